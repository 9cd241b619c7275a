"""Attestation: evidence, verification and appraisal."""
