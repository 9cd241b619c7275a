// Ed25519, strictly (RFC 8032, section 5.1.7, and beyond): S < L, canonical encodings of A and R, neither
// of small order. The equation itself is the browser's (Web Cryptography API); the same rules in Python
// are in wire/cose.py.

const L = 2n ** 252n + 27742317777372353535851937790883648493n;
const P = 2n ** 255n - 19n;
// The points of order 8, by y, little-endian; both signs of x are meant.
const SMALL_ORDER_Y = new Set([
  0n,
  1n,
  P - 1n,
  little(0x26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05n),
  little(0xc7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037an),
]);
const Y_MASK = 2n ** 255n - 1n;
// A public key of nobody's: only whether the browser knows the algorithm is asked.
const PROBE = new Uint8Array(32).fill(9);

export class Unsupported extends Error {}

export class SignatureFault extends Error {
  constructor(code, message) {
    super(message);
    this.code = code;
  }
}

function little(value) {
  let turned = 0n;
  for (let left = value, count = 0; count < 32; count++, left >>= 8n) turned = (turned << 8n) | (left & 255n);
  return turned;
}

function number(bytes) {
  return bytes.reduceRight((value, byte) => (value << 8n) | BigInt(byte), 0n);
}

function checkPoint(bytes) {
  const y = number(bytes) & Y_MASK;
  if (y >= P || SMALL_ORDER_Y.has(y)) {
    throw new SignatureFault("SIG_FAILED", "a point is not canonical or of small order");
  }
}

/** Throws Unsupported, with what to do, where this browser cannot verify. */
export async function checkSupport() {
  if (!globalThis.crypto?.subtle) {
    throw new Unsupported("This page was not opened over HTTPS or on localhost, so the browser gives it no cryptography.");
  }
  try {
    await crypto.subtle.importKey("raw", PROBE, { name: "Ed25519" }, false, ["verify"]);
  } catch {
    throw new Unsupported("This browser has no Ed25519. Chrome and Edge from 137, Firefox from 129 and Safari from 17 have it.");
  }
}

/** Verifies, or throws SignatureFault (`BAD_SIG_LENGTH`, `SIG_FAILED`) or Unsupported. */
export async function verify(publicKey, message, signature) {
  if (signature.length !== 64) throw new SignatureFault("BAD_SIG_LENGTH", "an Ed25519 signature has 64 bytes");
  if (publicKey.length !== 32) throw new SignatureFault("SIG_FAILED", "an Ed25519 public key has 32 bytes");
  if (number(signature.subarray(32)) >= L) throw new SignatureFault("SIG_FAILED", "S is not reduced");
  checkPoint(publicKey);
  checkPoint(signature.subarray(0, 32));
  await checkSupport();
  let good = false;
  try {
    const key = await crypto.subtle.importKey("raw", publicKey, { name: "Ed25519" }, false, ["verify"]);
    good = await crypto.subtle.verify({ name: "Ed25519" }, key, signature, message);
  } catch {
    good = false; // some browsers refuse bytes that are no point where the key is imported
  }
  if (!good) throw new SignatureFault("SIG_FAILED", "the signature does not match");
}
