variable "project" {
  type        = string
  description = "Project of the keys; another than the fleet's."
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

variable "location" {
  type        = string
  default     = "europe-west4"
  description = "Location of the key ring; near the fleet."
}

variable "worker_service_account" {
  type        = string
  description = "Service account that the fleet's machines run as; an output of the fleet's module."
}

variable "packager_service_account" {
  type        = string
  description = "Who encrypts models; it can never decrypt one."
}

variable "image_digests" {
  type        = list(string)
  description = "Images that get the keys: one, or two while a release is rolled."
  validation {
    condition     = length(var.image_digests) > 0 && alltrue([for one in var.image_digests : can(regex("^sha256:[0-9a-f]{64}$", one))])
    error_message = "At least one digest, each sha256: and 64 hexadecimal digits."
  }
}

variable "gpu" {
  type        = bool
  default     = false
  description = "Whether workers must show a GPU in confidential-computing mode."
}

variable "support_attribute" {
  type        = string
  default     = "STABLE"
  description = "What the Confidential Space image must be: STABLE, USABLE or LATEST."
  validation {
    condition     = contains(["LATEST", "STABLE", "USABLE"], var.support_attribute)
    error_message = "LATEST, STABLE or USABLE; EXPERIMENTAL gets no keys."
  }
}
