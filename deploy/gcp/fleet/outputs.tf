output "worker_service_account" {
  value       = google_service_account.worker.email
  description = "For the keys' module and the trust policy."
}

output "blob_url" {
  value       = "gs://${google_storage_bucket.blobs.name}/${var.pool}"
  description = "EPHEMERALML_BLOB_URL"
}

output "artefacts_bucket" {
  value       = google_storage_bucket.artefacts.name
  description = "Where model packages go."
}
