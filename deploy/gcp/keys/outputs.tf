output "gcp_provider" {
  value       = google_iam_workload_identity_pool_provider.space.name
  description = "EPHEMERALML_WORKER_GCP_PROVIDER"
}

output "fleet_key_id" {
  value       = google_kms_crypto_key.fleet.id
  description = "EPHEMERALML_WORKER_FLEET_KEY_ID"
}

output "model_key_id" {
  value       = google_kms_crypto_key.model.id
  description = "EPHEMERALML_WORKER_MODEL_KEY_ID"
}
