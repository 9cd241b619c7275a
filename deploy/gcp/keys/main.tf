# The keys of one fleet, in the project of whoever owns them: released to attested workloads of the named
# images and to nobody else. Apply it as the keys' owner. See docs/deploy/gcp-tdx.md.
terraform {
  required_version = ">= 1.6"
  required_providers {
    google = {
      source  = "hashicorp/google"
      version = "~> 6.0"
    }
  }
}

provider "google" {
  project = var.project
  region  = var.location
}

locals {
  # What every token must show, whatever its image. CEL, read by Google's STS; a claim that is not there is
  # an error, and an error is a refusal.
  genuine = "assertion.swname == 'CONFIDENTIAL_SPACE' && assertion.hwmodel == 'GCP_INTEL_TDX' && assertion.secboot == true && assertion.dbgstat == 'disabled-since-boot'"
  support = "'${var.support_attribute}' in assertion.submods.confidential_space.support_attributes"
  account = "'${var.worker_service_account}' in assertion.google_service_accounts"
  gpu     = var.gpu ? " && assertion.submods.nvidia_gpu.cc_mode == 'ON'" : ""
  image   = "assertion.submods.container.image_digest in ${jsonencode(var.image_digests)}"
}

resource "google_iam_workload_identity_pool" "workers" {
  workload_identity_pool_id = "${var.name}-workers"
  display_name              = "${var.name} workers"
  description               = "Attested workers; their tokens are exchanged here"
}

resource "google_iam_workload_identity_pool_provider" "space" {
  workload_identity_pool_id          = google_iam_workload_identity_pool.workers.workload_identity_pool_id
  workload_identity_pool_provider_id = "space"
  display_name                       = "Confidential Space"
  attribute_mapping = {
    "google.subject"         = "'gcpcs::' + assertion.submods.container.image_digest + '::' + assertion.submods.gce.instance_id"
    "attribute.image_digest" = "assertion.submods.container.image_digest"
  }
  attribute_condition = "${local.genuine} && ${local.support} && ${local.account} && ${local.image}${local.gpu}"
  # No audience is listed: the provider then takes tokens made for its own name and no others, so that
  # published evidence, which has another audience, is no credential.
  oidc {
    issuer_uri = "https://confidentialcomputing.googleapis.com"
  }
}

resource "google_kms_key_ring" "keys" {
  name     = var.name
  location = var.location
}

resource "google_kms_crypto_key" "fleet" {
  name                       = "fleet"
  key_ring                   = google_kms_key_ring.keys.id
  purpose                    = "ENCRYPT_DECRYPT"
  rotation_period            = "7776000s"
  destroy_scheduled_duration = "2592000s"
  version_template {
    algorithm        = "GOOGLE_SYMMETRIC_ENCRYPTION"
    protection_level = "HSM"
  }
  lifecycle {
    prevent_destroy = true
  }
}

resource "google_kms_crypto_key" "model" {
  name                       = "model"
  key_ring                   = google_kms_key_ring.keys.id
  purpose                    = "ENCRYPT_DECRYPT"
  rotation_period            = "7776000s"
  destroy_scheduled_duration = "2592000s"
  version_template {
    algorithm        = "GOOGLE_SYMMETRIC_ENCRYPTION"
    protection_level = "HSM"
  }
  lifecycle {
    prevent_destroy = true
  }
}

locals {
  by_image = "principalSet://iam.googleapis.com/${google_iam_workload_identity_pool.workers.name}/attribute.image_digest"
}

# A binding, not a member: whoever else was given this role on these keys loses it.
resource "google_kms_crypto_key_iam_binding" "fleet" {
  crypto_key_id = google_kms_crypto_key.fleet.id
  role          = "roles/cloudkms.cryptoKeyEncrypterDecrypter"
  members       = [for digest in var.image_digests : "${local.by_image}/${digest}"]
}

resource "google_kms_crypto_key_iam_binding" "model_workers" {
  crypto_key_id = google_kms_crypto_key.model.id
  role          = "roles/cloudkms.cryptoKeyDecrypter"
  members       = [for digest in var.image_digests : "${local.by_image}/${digest}"]
}

resource "google_kms_crypto_key_iam_binding" "model_packager" {
  crypto_key_id = google_kms_crypto_key.model.id
  role          = "roles/cloudkms.cryptoKeyEncrypter"
  members       = ["serviceAccount:${var.packager_service_account}"]
}

# Every use of a key is written down, with who asked.
resource "google_project_iam_audit_config" "kms" {
  project = var.project
  service = "cloudkms.googleapis.com"
  audit_log_config {
    log_type = "DATA_READ"
  }
  audit_log_config {
    log_type = "DATA_WRITE"
  }
}

resource "google_project_iam_audit_config" "sts" {
  project = var.project
  service = "sts.googleapis.com"
  audit_log_config {
    log_type = "DATA_READ"
  }
}
