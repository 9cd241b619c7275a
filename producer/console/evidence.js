// Reads what an announcement and its evidence say. Nothing here verifies anything: a browser has neither
// the vendors' roots nor your trust policy.

import { Tag, decode, toHex } from "./cbor.js";

const RTMR = 328;

/** Returns `{receiptKey, platform, evidence, measurements}` of an announcement (spec/wire.md). */
export function readAnnouncement(data) {
  const [, body, bundle] = decode(data);
  const receiptKey = decode(body).get(6n);
  const [platform, evidence] = bundle;
  return { receiptKey: toHex(receiptKey), platform, evidence, measurements: measurements(platform, evidence) };
}

/** Returns pairs of a register's name and value, or none where this page cannot read the evidence. */
function measurements(platform, evidence) {
  try {
    if (platform === "nitro" || platform === "simulated") return nitro(evidence);
    if (platform === "tdx") return tdx(evidence);
  } catch {
    return [];
  }
  return [];
}

function nitro(evidence) {
  const parts = decode(evidence, { tags: [18n], strict: false });
  const payload = decode((parts instanceof Tag ? parts.value : parts)[2], { strict: false });
  return [...payload.get("pcrs")]
    .filter(([, value]) => value.some((byte) => byte !== 0))
    .map(([index, value]) => [`PCR${index}`, toHex(value)]);
}

/** Offsets: Intel TDX DCAP quoting library, quote versions 4 and 5. */
function tdx(quote) {
  const version = quote[0] | (quote[1] << 8);
  if (version !== 4 && version !== 5) return [];
  const start = version === 4 ? 48 : 54;
  const read = (offset) => toHex(quote.subarray(start + offset, start + offset + 48));
  return [["MRTD", read(136)], ...[0, 1, 2, 3].map((index) => [`RTMR${index}`, read(RTMR + 48 * index)])];
}
