# One fleet of workers in Confidential Space: topics, bucket, service account, machines that follow the
# backlog. Nothing here is trusted with plaintext or keys. See docs/deploy/gcp-tdx.md and gcp-h100.md.
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
  region  = var.region
}

data "google_project" "this" {
  project_id = var.project
}

locals {
  # As broker_config/pubsub names them.
  jobs = "${var.prefix}jobs.${var.pool}"
  dead = "${var.prefix}dead.${var.pool}"
  # Pub/Sub itself moves what it gives up.
  pubsub_agent = "serviceAccount:service-${data.google_project.this.number}@gcp-sa-pubsub.iam.gserviceaccount.com"
}

# ---------------------------------------------------------------- encryption at rest (ciphertext, once more)

resource "google_kms_key_ring" "rest" {
  name     = "${var.name}-rest"
  location = var.region
}

resource "google_kms_crypto_key" "rest" {
  name            = "rest"
  key_ring        = google_kms_key_ring.rest.id
  purpose         = "ENCRYPT_DECRYPT"
  rotation_period = "7776000s"
  lifecycle {
    prevent_destroy = true
  }
}

data "google_storage_project_service_account" "storage" {
  project = var.project
}

resource "google_kms_crypto_key_iam_binding" "rest" {
  crypto_key_id = google_kms_crypto_key.rest.id
  role          = "roles/cloudkms.cryptoKeyEncrypterDecrypter"
  members = [
    local.pubsub_agent,
    "serviceAccount:${data.google_storage_project_service_account.storage.email_address}",
  ]
}

# ---------------------------------------------------------------- queue

resource "google_pubsub_topic" "dead" {
  name         = local.dead
  kms_key_name = google_kms_crypto_key.rest.id
  depends_on   = [google_kms_crypto_key_iam_binding.rest]
}

resource "google_pubsub_subscription" "dead" {
  name                       = local.dead
  topic                      = google_pubsub_topic.dead.id
  ack_deadline_seconds       = 600
  message_retention_duration = "${var.retention_seconds}s"
  expiration_policy {
    ttl = ""
  }
}

resource "google_pubsub_topic" "jobs" {
  name         = local.jobs
  kms_key_name = google_kms_crypto_key.rest.id
  depends_on   = [google_kms_crypto_key_iam_binding.rest]
}

resource "google_pubsub_subscription" "jobs" {
  name                       = local.jobs
  topic                      = google_pubsub_topic.jobs.id
  ack_deadline_seconds       = 120
  message_retention_duration = "${var.retention_seconds}s"
  expiration_policy {
    ttl = ""
  }
  # A last net: the workers' own dead letters come long before it and keep the reason.
  dead_letter_policy {
    dead_letter_topic     = google_pubsub_topic.dead.id
    max_delivery_attempts = 100
  }
}

resource "google_pubsub_topic_iam_member" "agent_gives_up" {
  topic  = google_pubsub_topic.dead.id
  role   = "roles/pubsub.publisher"
  member = local.pubsub_agent
}

resource "google_pubsub_subscription_iam_member" "agent_takes" {
  subscription = google_pubsub_subscription.jobs.id
  role         = "roles/pubsub.subscriber"
  member       = local.pubsub_agent
}

# ---------------------------------------------------------------- workers' rights

resource "google_service_account" "worker" {
  account_id   = "${var.name}-worker"
  display_name = "Attested workers"
}

locals {
  worker = "serviceAccount:${google_service_account.worker.email}"
}

resource "google_pubsub_subscription_iam_member" "worker_takes" {
  subscription = google_pubsub_subscription.jobs.id
  role         = "roles/pubsub.subscriber"
  member       = local.worker
}

# Replies go to topics that clients make: name by name they cannot be granted in advance.
resource "google_project_iam_member" "worker_answers" {
  project = var.project
  role    = "roles/pubsub.publisher"
  member  = local.worker
}

# What a workload needs to be given a token by Google's attestation service.
resource "google_project_iam_member" "worker_attests" {
  project = var.project
  role    = "roles/confidentialcomputing.workloadUser"
  member  = local.worker
}

resource "google_project_iam_member" "worker_logs" {
  project = var.project
  role    = "roles/logging.logWriter"
  member  = local.worker
}

resource "google_artifact_registry_repository_iam_member" "worker_pulls" {
  location   = var.region
  repository = var.image_repository
  role       = "roles/artifactregistry.reader"
  member     = local.worker
}

resource "google_storage_bucket_iam_member" "worker_blobs" {
  bucket = google_storage_bucket.blobs.name
  role   = "roles/storage.objectUser"
  member = local.worker
  condition {
    title = "its-pool"
    # Listing is a right on the bucket: there the prefix that is asked for decides.
    expression = "resource.name.startsWith('projects/_/buckets/${google_storage_bucket.blobs.name}/objects/${var.pool}/') || api.getAttribute('storage.googleapis.com/objectListPrefix', '').startsWith('${var.pool}/')"
  }
}

resource "google_storage_bucket_iam_member" "worker_models" {
  bucket = google_storage_bucket.artefacts.name
  role   = "roles/storage.objectViewer"
  member = local.worker
}

# ---------------------------------------------------------------- whoever publishes models

# Makes objects and looks at them; changes and deletes none.
resource "google_storage_bucket_iam_member" "packager" {
  for_each = var.packager_service_account == "" ? [] : toset(["roles/storage.objectCreator", "roles/storage.objectViewer"])
  bucket   = google_storage_bucket.artefacts.name
  role     = each.value
  member   = "serviceAccount:${var.packager_service_account}"
  condition {
    title      = "models"
    expression = "resource.name.startsWith('projects/_/buckets/${google_storage_bucket.artefacts.name}/objects/models/')"
  }
}

# ---------------------------------------------------------------- blob store

resource "google_storage_bucket" "blobs" {
  name                        = "${var.project}-${var.name}-blobs"
  location                    = var.region
  uniform_bucket_level_access = true
  public_access_prevention    = "enforced"
  encryption {
    default_kms_key_name = google_kms_crypto_key.rest.id
  }
  lifecycle_rule {
    action {
      type = "Delete"
    }
    condition {
      age            = 30
      matches_prefix = ["${var.pool}/sha256/", "${var.pool}/expires/"]
    }
  }
  lifecycle_rule {
    action {
      type = "AbortIncompleteMultipartUpload"
    }
    condition {
      age = 1
    }
  }
  depends_on = [google_kms_crypto_key_iam_binding.rest]
}

# Model packages, encrypted, and what auditors come back to.
resource "google_storage_bucket" "artefacts" {
  name                        = "${var.project}-${var.name}-artefacts"
  location                    = var.region
  uniform_bucket_level_access = true
  public_access_prevention    = "enforced"
  encryption {
    default_kms_key_name = google_kms_crypto_key.rest.id
  }
  versioning {
    enabled = true
  }
  dynamic "retention_policy" {
    for_each = var.retain_artefacts_days > 0 ? [var.retain_artefacts_days] : []
    content {
      is_locked        = true
      retention_period = retention_policy.value * 86400
    }
  }
  depends_on = [google_kms_crypto_key_iam_binding.rest]
}
