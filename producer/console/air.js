// Verifies an AIR v1 receipt in the browser, with the layers, checks, codes and words of
// receipts/verify.py. Layer 5, where the signing key lives, is never run here: evidence is judged by the
// command-line tool. Nothing in this file reads a clock or the network.

import { CborError, Tag, decode, sameBytes, toHex } from "./cbor.js";
import { SignatureFault, verify as verifyEd25519 } from "./ed25519.js";
import { RULES, faultInClosedMap, faultInProfile, faultOf } from "./rules.js";

export const MAX_RECEIPT_BYTES = 65536;
export const LAYERS = { 1: "parse", 2: "crypto", 3: "claims", 4: "policy", 5: "provenance" };
export const CHECKS = {
  1: ["SIZE", "COSE", "UNPROTECTED", "ALG", "CTYPE", "PROTECTED", "PAYLOAD", "PROFILE"],
  2: ["SIG"],
  3: ["CLOSED", ...RULES.map((rule) => rule.check)],
  4: [
    "FUTURE", "FRESH", "NONCE", "MHASH", "MODEL_ID", "REQUEST", "RESPONSE", "ATTESTATION_DOC", "PLATFORM",
    "SECURITY_MODE", "REPLAY",
  ],
  5: ["EVIDENCE", "EVIDENCE_HASH", "MEASUREMENTS", "KEY_BINDING", "APPRAISAL"],
};
const PROTECTED = "a2012703183d"; // {1: -8, 3: 61}
// ["Signature1", protected, h'', payload] up to the payload (RFC 9052, section 4.4).
const SIG_HEAD = Uint8Array.from([
  0x84, 0x6a, ...new TextEncoder().encode("Signature1"), 0x46, 0xa2, 0x01, 0x27, 0x03, 0x18, 0x3d, 0x40,
]);
const DECODE_CODES = {
  CBOR_NOT_DETERMINISTIC: "NOT_DETERMINISTIC",
  CBOR_TRAILING_BYTES: "TRAILING_BYTES",
  CBOR_DUPLICATE_KEY: "DUPLICATE_KEY",
};
export const DEFAULT_POLICY = Object.freeze({
  maxAge: null,
  skew: 300,
  nonce: null,
  modelHash: null,
  modelId: null,
  requestHash: null,
  responseHash: null,
  attestationDocHash: null,
  platform: null,
  securityModes: ["production"],
});

class Refused extends Error {
  constructor(check, code, detail) {
    super(code);
    this.report = failed(1, check, code, detail);
  }
}

const passed = (layer, name) => ({ layer, name, code: "", status: "passed", detail: "" });
const skipped = (layer, name, detail) => ({ layer, name, code: "", status: "skipped", detail });
const failed = (layer, name, code, detail) => ({ layer, name, code, status: "failed", detail });
const judged = (layer, name, fault) => (fault ? failed(layer, name, ...fault) : passed(layer, name));
const anyFailed = (checks) => checks.some((check) => check.status === "failed");

function rest(layer, done) {
  const names = new Set(done.map((check) => check.name));
  const left = CHECKS[layer].filter((name) => !names.has(name));
  return [
    ...done,
    ...left.map((name) => ({ layer, name, code: "", status: "not_run", detail: "an earlier check failed" })),
  ];
}

/**
 * Returns `{checks, claims, verdict, level, bound, codes, failedLayer, receiptHash}`.
 *
 * `receipt` and `publicKey` are bytes, `now` is Unix seconds; `policy` as DEFAULT_POLICY has it, where
 * null means that nobody asks. Throws Unsupported where the browser cannot verify a signature at all.
 */
export async function verifyReceipt(receipt, publicKey, policy, now) {
  const { checks, claims } = await judge(receipt, publicKey, { ...DEFAULT_POLICY, ...policy }, now);
  const sound = claims !== null && checks.every((check) => ["passed", "skipped"].includes(check.status));
  const good = new Set(checks.filter((one) => one.layer === 4 && one.status === "passed").map((one) => one.name));
  const bound = sound && ["MHASH", "REQUEST", "RESPONSE"].every((name) => good.has(name));
  return {
    checks,
    claims,
    verdict: sound ? "sound" : "unsound",
    level: !sound ? "none" : bound ? "bound" : "signature",
    bound,
    codes: checks.filter((check) => check.status === "failed").map((check) => check.code),
    failedLayer: checks.find((check) => check.status === "failed")?.layer ?? null,
    receiptHash: toHex(new Uint8Array(await crypto.subtle.digest("SHA-256", receipt))),
  };
}

async function judge(receipt, publicKey, policy, now) {
  const parsed = parseReceipt(receipt);
  const checks = [...parsed.checks];
  if (parsed.claims === null) return stopped(checks, 2);
  checks.push(await signature(parsed, publicKey));
  if (anyFailed(checks)) return stopped(checks, 3);
  checks.push(...checkClaims(parsed.claims));
  if (anyFailed(checks)) return stopped(checks, 4);
  const claims = Object.fromEntries(
    RULES.filter((rule) => parsed.claims.has(rule.key)).map((rule) => [rule.name, parsed.claims.get(rule.key)]),
  );
  const ofPolicy = checkPolicy(claims, policy, now);
  if (anyFailed(ofPolicy)) return { checks: [...checks, ...rest(4, ofPolicy), ...rest(5, [])], claims };
  ofPolicy.push(skipped(4, "REPLAY", "no store of seen receipts was given"));
  const provenance = CHECKS[5].map((name) => skipped(5, name, "no verified evidence was given"));
  return { checks: [...checks, ...ofPolicy, ...provenance], claims };
}

function stopped(checks, next) {
  const left = Object.keys(LAYERS).map(Number).filter((layer) => layer >= next);
  return { checks: [...checks, ...left.flatMap((layer) => rest(layer, []))], claims: null };
}

/** Layer 1: returns `{checks, payload, signature, claims}`; claims is null unless all of it passed. */
export function parseReceipt(data) {
  const done = [];
  try {
    return parse(data, done);
  } catch (error) {
    if (!(error instanceof Refused)) throw error;
    return { checks: rest(1, [...done, error.report]), payload: null, signature: null, claims: null };
  }
}

function parse(data, done) {
  if (data.length > MAX_RECEIPT_BYTES) {
    throw new Refused("SIZE", "RECEIPT_TOO_LARGE", `more than ${MAX_RECEIPT_BYTES} bytes`);
  }
  done.push(passed(1, "SIZE"));
  const { header, unprotected, payload, signature } = envelope(data);
  done.push(passed(1, "COSE"));
  if (unprotected.size) throw new Refused("UNPROTECTED", "NON_EMPTY_UNPROTECTED", "the unprotected header is not empty");
  done.push(passed(1, "UNPROTECTED"));
  // Determinism leaves one encoding of the one header that is allowed.
  if (toHex(header) !== PROTECTED) {
    done.push(...protectedHeader(header));
    return { checks: rest(1, done), payload, signature, claims: null };
  }
  done.push(passed(1, "ALG"), passed(1, "CTYPE"), passed(1, "PROTECTED"));
  const claims = claimsOf(payload);
  const fault = faultInProfile(claims);
  done.push(passed(1, "PAYLOAD"), judged(1, "PROFILE", fault));
  return { checks: done, payload, signature, claims: fault ? null : claims };
}

function decoded(data, check, what, tags = []) {
  try {
    return decode(data, { tags });
  } catch (error) {
    if (!(error instanceof CborError)) throw error;
    throw new Refused(check, DECODE_CODES[error.code] ?? "COSE_DECODE_FAILED", `the ${what}: ${error.message}`);
  }
}

function envelope(data) {
  const message = decoded(data, "COSE", "envelope", [18n]);
  if (!(message instanceof Tag)) throw new Refused("COSE", "COSE_DECODE_FAILED", "tag 18 is missing");
  const parts = Array.isArray(message.value) ? message.value : [];
  const [header, unprotected, payload, signature] = parts;
  const isBytes = (value) => value instanceof Uint8Array;
  if (
    parts.length !== 4 || !isBytes(header) || !(unprotected instanceof Map) ||
    !(isBytes(payload) || payload === null) || !isBytes(signature)
  ) {
    throw new Refused("COSE", "COSE_DECODE_FAILED", "not the four parts of a COSE_Sign1");
  }
  return { header, unprotected, payload: payload ?? new Uint8Array(), signature };
}

function protectedHeader(bytes) {
  const header = bytes.length ? decoded(bytes, "PROTECTED", "protected header") : new Map();
  if (!(header instanceof Map)) throw new Refused("PROTECTED", "COSE_DECODE_FAILED", "the protected header is not a map");
  const extra = [...header.keys()].some((label) => label !== 1n && label !== 3n);
  return [
    judged(1, "ALG", header.get(1n) === -8n ? null : ["BAD_ALG", "the algorithm is not EdDSA"]),
    judged(1, "CTYPE", header.get(3n) === 61n ? null : ["BAD_CONTENT_TYPE", "the content type is not 61"]),
    judged(
      1,
      "PROTECTED",
      extra ? ["EXTRA_PROTECTED_HEADER", "the protected header holds more than alg and content type"] : null,
    ),
  ];
}

function claimsOf(payload) {
  if (!payload.length) throw new Refused("PAYLOAD", "MISSING_PAYLOAD", "the payload is detached or empty");
  const claims = decoded(payload, "PAYLOAD", "payload");
  if (!(claims instanceof Map)) throw new Refused("PAYLOAD", "PAYLOAD_NOT_MAP", "the payload is not a map");
  return claims;
}

async function signature(parsed, publicKey) {
  try {
    await verifyEd25519(publicKey, signedBytes(parsed.payload), parsed.signature);
  } catch (error) {
    if (!(error instanceof SignatureFault)) throw error;
    return failed(2, "SIG", error.code, error.message);
  }
  return passed(2, "SIG");
}

function signedBytes(payload) {
  const size = payload.length;
  const head = size < 24 ? [0x40 | size] : size < 0x100 ? [0x58, size] : [0x59, size >> 8, size & 255];
  const whole = new Uint8Array(SIG_HEAD.length + head.length + size);
  whole.set(SIG_HEAD);
  whole.set(head, SIG_HEAD.length);
  whole.set(payload, SIG_HEAD.length + head.length);
  return whole;
}

function checkClaims(claims) {
  return [
    judged(3, "CLOSED", faultInClosedMap(claims)),
    ...RULES.map((rule) => judged(3, rule.check, faultOf(rule, claims))),
  ];
}

function checkPolicy(claims, policy, now) {
  const platform = claims.enclave_measurements.get("measurement_type");
  return [
    ...checkTime(claims.iat, policy, now),
    equal("NONCE", policy.nonce, claims.eat_nonce, "NONCE_MISMATCH"),
    equal("MHASH", policy.modelHash, claims.model_hash, "MODEL_HASH_MISMATCH"),
    equal("MODEL_ID", policy.modelId, claims.model_id, "MODEL_ID_MISMATCH"),
    equal("REQUEST", policy.requestHash, claims.request_hash, "REQUEST_HASH_MISMATCH"),
    equal("RESPONSE", policy.responseHash, claims.response_hash, "RESPONSE_HASH_MISMATCH"),
    equal("ATTESTATION_DOC", policy.attestationDocHash, claims.attestation_doc_hash, "ATTESTATION_DOC_HASH_MISMATCH"),
    equal("PLATFORM", policy.platform, platform, "PLATFORM_MISMATCH"),
    judged(4, "SECURITY_MODE", mode(claims.security_mode, policy.securityModes)),
  ];
}

function checkTime(iat, policy, now) {
  if (!Number.isSafeInteger(now) || now <= 0) {
    const notRun = rest(4, []).find((check) => check.name === "FRESH");
    return [failed(4, "FUTURE", "CLOCK_ERROR", "the time of verification is no time"), notRun];
  }
  const future = iat > BigInt(now) + BigInt(policy.skew);
  const checks = [
    judged(
      4,
      "FUTURE",
      future ? ["TIMESTAMP_FUTURE", `issued more than ${policy.skew} s after the time of verification`] : null,
    ),
  ];
  if (policy.maxAge === null) return [...checks, skipped(4, "FRESH", "no maximum age was asked for")];
  const stale = iat < BigInt(now) - BigInt(policy.maxAge);
  return [...checks, judged(4, "FRESH", stale ? ["TIMESTAMP_STALE", `issued more than ${policy.maxAge} s ago`] : null)];
}

function equal(name, wanted, found, code) {
  if (wanted === null) return skipped(4, name, "nothing was expected");
  if (found === undefined) return failed(4, name, "NONCE_MISSING", "the receipt has no nonce");
  const same = typeof wanted === "string" ? wanted === found : sameBytes(wanted, found);
  return judged(4, name, same ? null : [code, "the receipt names another one"]);
}

function mode(found, accepted) {
  if (accepted.includes(found)) return null;
  if (found === "evaluation") return ["EVALUATION_MODE_REJECTED", "made by a simulated or debuggable TEE"];
  return ["SECURITY_MODE_MISMATCH", "the security mode is not among those accepted"];
}

