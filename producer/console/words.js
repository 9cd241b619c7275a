// The words of receipts/report_html.py and receipts/report.py, for the report that is shown here.

export const TITLES = {
  none: "Refused",
  signature: "Sound: signature only",
  bound: "Sound: bound to request, response and model",
};
export const LEVELS = {
  none: "The receipt is not sound. Do not rely on what it says.",
  signature: "The holder of the given key signed it. Nothing is shown about where the key lives.",
  bound: "Signed, and about this request, this response and this model. Nothing is shown about where the key lives.",
};
export const LAYER_WORDS = {
  1: "Is it a receipt of this format, in its one allowed form?",
  2: "Did the given key sign it?",
  3: "Is every statement in it complete and within its bounds?",
  4: "Is it what you expected?",
  5: "Does the signing key live in a TEE that is genuine and wanted?",
};
export const STATUS_WORDS = { passed: "passed", failed: "failed", skipped: "not checked", not_run: "not reached" };
export const STATUS_TONES = { passed: "good", failed: "bad", skipped: "warn", not_run: "plain" };
export const CHECK_WORDS = {
  FUTURE: "not from the future",
  FRESH: "not too old",
  NONCE: "answers our challenge",
  MHASH: "the model we wanted",
  MODEL_ID: "the model's name",
  REQUEST: "our request",
  RESPONSE: "the response we hold",
  ATTESTATION_DOC: "the evidence we hold",
  PLATFORM: "the kind of TEE",
  SECURITY_MODE: "a security mode we accept",
  REPLAY: "not seen before",
  EVIDENCE: "evidence is genuine",
  EVIDENCE_HASH: "evidence is the one named",
  MEASUREMENTS: "software is the one attested",
  KEY_BINDING: "key was made in that TEE",
  APPRAISAL: "our trust policy wants it",
};
export const CLAIM_WORDS = {
  iss: "Operator of the worker",
  iat: "Issued at (the worker's clock)",
  cti: "Number of this receipt",
  eat_nonce: "Challenge of the client",
  model_id: "Model",
  model_version: "Version of the model",
  model_hash: "Fingerprint of the model",
  model_hash_scheme: "How that fingerprint was made",
  request_hash: "Fingerprint of the request",
  response_hash: "Fingerprint of the response",
  attestation_doc_hash: "Fingerprint of the TEE's evidence",
  policy_version: "Policy that the worker ran under",
  sequence_number: "Count since the worker started",
  execution_time_ms: "Time of the inference (ms)",
  memory_peak_mb: "Peak of memory (MB)",
  security_mode: "Security mode",
};
export const LIMITS = [
  "A receipt does not prove that inputs or outputs were deleted.",
  "It does not prove that the model or its answer is correct or fair.",
  "Its time is the clock of the TEE's host, which nobody vouches for.",
  "Hashes of small inputs can be guessed, unless they were made with a secret salt.",
  "Sequence numbers start again with every worker and are no evidence against replay.",
  "It covers one inference and one CPU attestation document; evidence of a GPU travels beside it.",
];
