variable "project" {
  type        = string
  description = "Project of the fleet; another than the keys'."
}

variable "name" {
  type        = string
  default     = "ephemeralml"
  description = "Begins the names of what is made."
  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{1,20}$", var.name))
    error_message = "Lower-case letters, digits and hyphens, 2 to 21."
  }
}

variable "prefix" {
  type        = string
  default     = "ephemeralml."
  description = "EPHEMERALML_PUBSUB_PREFIX"
}

variable "region" {
  type    = string
  default = "europe-west4"
}

variable "zones" {
  type        = list(string)
  default     = ["europe-west4-a", "europe-west4-b", "europe-west4-c"]
  description = "Zones with TDX; for a3-highgpu-1g in confidential mode only a few, see Google's list."
}

variable "pool" {
  type        = string
  description = "Pool that the workers serve."
  validation {
    condition     = can(regex("^[a-z0-9][a-z0-9-]{0,30}$", var.pool))
    error_message = "Lower-case letters, digits and hyphens, 1 to 31."
  }
}

variable "image_repository" {
  type        = string
  description = "Artifact Registry repository of the worker's image, in this project and region."
}

variable "image" {
  type        = string
  description = "The worker's image without tag or digest."
  validation {
    condition     = !can(regex("[@:][^/]*$", var.image))
    error_message = "Name the image without tag or digest: image_digest says which."
  }
}

variable "image_digest" {
  type = string
  validation {
    condition     = can(regex("^sha256:[0-9a-f]{64}$", var.image_digest))
    error_message = "sha256: and 64 hexadecimal digits."
  }
}

variable "model_url" {
  type        = string
  description = "gs:// address of the encrypted model package."
}

variable "packager_service_account" {
  type        = string
  default     = ""
  description = "Who publishes models, as in the keys' module; empty, the project's own rights decide."
}

variable "gcp_provider" {
  type        = string
  description = "Output of the keys' module."
}

variable "fleet_key_id" {
  type        = string
  description = "Output of the keys' module."
}

variable "model_key_id" {
  type        = string
  description = "Output of the keys' module."
}

variable "gpu" {
  type        = bool
  default     = false
  description = "a3-highgpu-1g: one H100 in confidential-computing mode beside TDX."
}

variable "gpu_image_family" {
  type        = string
  default     = "confidential-space-preview-cgpu"
  description = "Family of Confidential Space images for GPUs; `gcloud compute images list --project confidential-space-images` shows today's."
}

variable "machine_type" {
  type        = string
  default     = "c3-standard-4"
  description = "Without a GPU: a c3-standard, the family that has TDX."
  validation {
    condition     = can(regex("^c3-standard-[0-9]+$", var.machine_type))
    error_message = "TDX runs on c3-standard machines."
  }
}

variable "spot" {
  type        = bool
  default     = false
  description = "Spot machines; needed for a3-highgpu-1g, which is not sold on demand."
}

variable "min_workers" {
  type    = number
  default = 0
}

variable "max_workers" {
  type    = number
  default = 3
}

variable "messages_per_worker" {
  type        = number
  default     = 50
  description = "Undelivered messages that one worker is to have before it."
}

variable "retention_seconds" {
  type        = number
  default     = 604800
  description = "EPHEMERALML_PUBSUB_RETENTION_S"
}

variable "retain_artefacts_days" {
  type        = number
  default     = 0
  description = "Above 0: nothing in the artefacts bucket can be deleted for so long, by anybody; cannot be taken back."
}
