// The table of spec/air-v1.md: one rule per claim, as receipts/rules.py has it. A rule returns null, or a
// code and a detail that never repeats the value.

export const PROFILE = "https://spec.cyntrisec.com/air/v1";
export const EAT_PROFILE = 265n;
export const NITRO = "nitro-pcr";
export const TDX = "tdx-mrtd-rtmr";
const MODES = ["production", "evaluation"];
const SCHEMES = ["sha256-single", "sha256-concat", "sha256-manifest"];
const REQUIRED_SLOTS = ["pcr0", "pcr1", "pcr2"];
const MEASUREMENT_KEYS = new Set([...REQUIRED_SLOTS, "pcr3", "pcr4", "pcr8", "measurement_type"]);
const UTF8 = new TextEncoder();

const isBytes = (value) => value instanceof Uint8Array;
const isZero = (bytes) => bytes.every((byte) => byte === 0);

function text(most) {
  return (value) => {
    if (typeof value !== "string") return ["WRONG_TYPE", "is not a text"];
    const size = UTF8.encode(value).length;
    return size >= 1 && size <= most ? null : ["TEXT_LENGTH", `has not 1 to ${most} UTF-8 bytes`];
  };
}

function uint(value) {
  return typeof value === "bigint" && value >= 0n ? null : ["WRONG_TYPE", "is not an unsigned integer"];
}

function time(value) {
  return uint(value) ?? (value === 0n ? ["ZERO_IAT", "is 0"] : null);
}

function digest(value) {
  if (!isBytes(value)) return ["WRONG_TYPE", "is not a byte string"];
  return value.length === 32 ? null : ["BAD_HASH_LENGTH", "has not 32 bytes"];
}

function modelHash(value) {
  return digest(value) ?? (isZero(value) ? ["ZERO_MODEL_HASH", "is all zero"] : null);
}

function cti(value) {
  if (!isBytes(value)) return ["WRONG_TYPE", "is not a byte string"];
  if (value.length !== 16) return ["BAD_CTI_LENGTH", "has not 16 bytes"];
  return isZero(value) ? ["ZERO_CTI", "is all zero"] : null;
}

function nonce(value) {
  if (!isBytes(value)) return ["WRONG_TYPE", "is not a byte string"];
  return value.length >= 8 && value.length <= 64 ? null : ["BAD_NONCE_LENGTH", "has not 8 to 64 bytes"];
}

function word(words, code) {
  return (value) => {
    if (typeof value !== "string") return ["WRONG_TYPE", "is not a text"];
    return words.includes(value) ? null : [code, "is none of the words that AIR v1 knows"];
  };
}

function measurements(value) {
  if (!(value instanceof Map)) return ["WRONG_TYPE", "is not a map"];
  if (!value.has("measurement_type")) return ["MISSING_CLAIM", "lacks measurement_type"];
  const kind = value.get("measurement_type");
  if (typeof kind !== "string") return ["WRONG_TYPE", "has a measurement_type that is not a text"];
  if (kind !== NITRO && kind !== TDX) return ["UNKNOWN_MTYPE", "has an unknown measurement_type"];
  return slots(value, kind);
}

function slots(value, kind) {
  if ([...value.keys()].some((key) => !MEASUREMENT_KEYS.has(key))) {
    return ["UNKNOWN_MEASUREMENT", "has a key that AIR v1 does not know"];
  }
  if (kind === TDX && value.has("pcr8")) return ["PCR8_FORBIDDEN", "has pcr8, which TDX does not have"];
  if (REQUIRED_SLOTS.some((slot) => !value.has(slot))) {
    return ["MISSING_CLAIM", "lacks one of pcr0, pcr1 and pcr2"];
  }
  const measured = [...value].filter(([key]) => key !== "measurement_type").map(([, found]) => found);
  if (!measured.every(isBytes)) return ["WRONG_TYPE", "has a slot that is not a byte string"];
  if (measured.some((one) => one.length !== 48)) {
    return ["BAD_MEASUREMENT_LENGTH", "has a slot that has not 48 bytes"];
  }
  return null;
}

/** In the order of the encoded map. */
export const RULES = [
  { key: 1n, name: "iss", check: "ISS", judge: text(256), required: true },
  { key: 6n, name: "iat", check: "IAT", judge: time, required: true },
  { key: 7n, name: "cti", check: "CTI", judge: cti, required: true },
  { key: 10n, name: "eat_nonce", check: "NONCE_FORM", judge: nonce, required: false },
  { key: -65537n, name: "model_id", check: "MODEL_ID", judge: text(256), required: true },
  { key: -65538n, name: "model_version", check: "MODEL_VERSION", judge: text(128), required: true },
  { key: -65539n, name: "model_hash", check: "MHASH_PRESENT", judge: modelHash, required: true },
  { key: -65540n, name: "request_hash", check: "REQUEST_HASH", judge: digest, required: true },
  { key: -65541n, name: "response_hash", check: "RESPONSE_HASH", judge: digest, required: true },
  { key: -65542n, name: "attestation_doc_hash", check: "ATTESTATION_DOC_HASH", judge: digest, required: true },
  { key: -65543n, name: "enclave_measurements", check: "MEAS", judge: measurements, required: true },
  { key: -65544n, name: "policy_version", check: "POLICY_VERSION", judge: text(256), required: true },
  { key: -65545n, name: "sequence_number", check: "SEQUENCE", judge: uint, required: true },
  { key: -65546n, name: "execution_time_ms", check: "EXECUTION_TIME", judge: uint, required: true },
  { key: -65547n, name: "memory_peak_mb", check: "MEMORY_PEAK", judge: uint, required: true },
  { key: -65548n, name: "security_mode", check: "MODE_FORM", judge: word(MODES, "UNKNOWN_SECURITY_MODE"), required: true },
  {
    key: -65549n,
    name: "model_hash_scheme",
    check: "MHASH_SCHEME",
    judge: word(SCHEMES, "UNKNOWN_MODEL_HASH_SCHEME"),
    required: false,
  },
];
const KNOWN = new Set([...RULES.map((rule) => rule.key), EAT_PROFILE]);

export function faultOf(rule, claims) {
  if (claims.has(rule.key)) return rule.judge(claims.get(rule.key));
  return rule.required ? ["MISSING_CLAIM", "is missing"] : null;
}

export function faultInProfile(claims) {
  return claims.get(EAT_PROFILE) === PROFILE ? null : ["WRONG_PROFILE", "is not of the AIR v1 profile"];
}

export function faultInClosedMap(claims) {
  const unknown = [...claims.keys()].filter((key) => !KNOWN.has(key));
  if (!unknown.length) return null;
  if (unknown.some((key) => typeof key !== "bigint")) return ["BAD_CLAIM_KEY", "has a key that is not an integer"];
  return ["UNKNOWN_CLAIM", "has a claim that AIR v1 does not know"];
}

