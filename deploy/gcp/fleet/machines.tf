locals {
  machine_type = var.gpu ? "a3-highgpu-1g" : var.machine_type
  # Confidential Space images bring the launcher; the one for GPUs brings the driver that is measured too.
  image_family = var.gpu ? var.gpu_image_family : "confidential-space"
  # Whoever starts the machine sets these; they stand in the token (env_override) and in the trust policy.
  settings = {
    EPHEMERALML_PROFILE             = "pubsub"
    EPHEMERALML_PUBSUB_PROJECT      = var.project
    EPHEMERALML_PUBSUB_PREFIX       = var.prefix
    EPHEMERALML_BLOB_URL            = "gs://${google_storage_bucket.blobs.name}/${var.pool}"
    EPHEMERALML_WORKER_POOL         = var.pool
    EPHEMERALML_WORKER_MODEL        = var.model_url
    EPHEMERALML_POLICY_URL          = "gs://${google_storage_bucket.artefacts.name}/policies/${var.pool}.bundle"
    EPHEMERALML_COLLATERAL_URL      = "gs://${google_storage_bucket.artefacts.name}/collateral"
    EPHEMERALML_WORKER_GCP_PROVIDER = var.gcp_provider
    EPHEMERALML_WORKER_FLEET_KEY_ID = var.fleet_key_id
    EPHEMERALML_WORKER_MODEL_KEY_ID = var.model_key_id
  }
}

resource "google_compute_instance_template" "worker" {
  name_prefix  = "${var.name}-${var.pool}-"
  machine_type = local.machine_type

  confidential_instance_config {
    enable_confidential_compute = true
    confidential_instance_type  = "TDX"
  }

  shielded_instance_config {
    enable_secure_boot          = true
    enable_vtpm                 = true
    enable_integrity_monitoring = true
  }

  disk {
    source_image = "projects/confidential-space-images/global/images/family/${local.image_family}"
    disk_size_gb = var.gpu ? 100 : 20
    disk_type    = "pd-balanced"
    boot         = true
    auto_delete  = true
  }

  dynamic "guest_accelerator" {
    for_each = var.gpu ? [1] : []
    content {
      type  = "nvidia-h100-80gb"
      count = guest_accelerator.value
    }
  }

  scheduling {
    # Neither TDX nor a GPU can be moved to another host while it runs.
    on_host_maintenance         = "TERMINATE"
    automatic_restart           = !var.spot
    preemptible                 = var.spot
    provisioning_model          = var.spot ? "SPOT" : "STANDARD"
    instance_termination_action = var.spot ? "STOP" : null
  }

  network_interface {
    subnetwork = google_compute_subnetwork.workers.id
    nic_type   = "GVNIC"
  }

  service_account {
    email  = google_service_account.worker.email
    scopes = ["cloud-platform"]
  }

  metadata = merge(
    {
      tee-image-reference        = "${var.image}@${var.image_digest}"
      tee-restart-policy         = "OnFailure"
      tee-container-log-redirect = "false"
      block-project-ssh-keys     = "true"
      enable-oslogin             = "true"
      serial-port-enable         = "false"
    },
    var.gpu ? { tee-install-gpu-driver = "true" } : {},
    { for name, value in local.settings : "tee-env-${name}" => value },
  )

  lifecycle {
    create_before_destroy = true
  }
}

resource "google_compute_region_instance_group_manager" "workers" {
  name                      = "${var.name}-${var.pool}"
  region                    = var.region
  base_instance_name        = "${var.name}-${var.pool}"
  distribution_policy_zones = var.zones
  version {
    instance_template = google_compute_instance_template.worker.self_link_unique
  }
  update_policy {
    type                  = "PROACTIVE"
    minimal_action        = "REPLACE"
    max_surge_fixed       = length(var.zones)
    max_unavailable_fixed = 0
  }
}

# Follows the backlog down to nothing. Removed machines get the launcher's SIGTERM; what they cannot finish
# in Compute Engine's time for shutdown is delivered again and answered once (docs/operations.md).
resource "google_compute_region_autoscaler" "workers" {
  name   = "${var.name}-${var.pool}"
  region = var.region
  target = google_compute_region_instance_group_manager.workers.id
  autoscaling_policy {
    min_replicas    = var.min_workers
    max_replicas    = var.max_workers
    cooldown_period = var.gpu ? 600 : 180
    metric {
      name                       = "pubsub.googleapis.com/subscription/num_undelivered_messages"
      filter                     = "resource.type = pubsub_subscription AND resource.label.subscription_id = \"${google_pubsub_subscription.jobs.name}\""
      single_instance_assignment = var.messages_per_worker
    }
    scale_in_control {
      time_window_sec = 600
      max_scaled_in_replicas {
        fixed = 1
      }
    }
  }
}

resource "google_monitoring_alert_policy" "waiting" {
  display_name = "${var.name}: jobs wait longer than an hour"
  combiner     = "OR"
  conditions {
    display_name = "oldest unacknowledged message"
    condition_threshold {
      filter          = "resource.type = \"pubsub_subscription\" AND resource.labels.subscription_id = \"${local.jobs}\" AND metric.type = \"pubsub.googleapis.com/subscription/oldest_unacked_message_age\""
      comparison      = "COMPARISON_GT"
      threshold_value = 3600
      duration        = "0s"
    }
  }
}
