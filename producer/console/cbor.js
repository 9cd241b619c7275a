// Deterministic CBOR (RFC 8949, section 4.2.1) as wire/encoding.py reads it: one strict form, and a
// tolerant one for vendors' evidence. Integers become BigInt, so that all 64 bits are exact; floats are
// wrapped, because JavaScript would take 1.0 for 1.

export const MAX_DEPTH = 16;
const UTF8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

export class CborError extends Error {
  constructor(code, message) {
    super(message);
    this.code = code;
  }
}

export class Tag {
  constructor(tag, value) {
    this.tag = tag;
    this.value = value;
  }
}

export class Float {
  constructor(value) {
    this.value = value;
  }
}

/** A byte string as a map's key: equal bytes are equal keys only through `hex`. */
export class BytesKey {
  constructor(bytes) {
    this.hex = toHex(bytes);
  }
}

export function toHex(bytes) {
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** Returns bytes, or null where the text is not hexadecimal. */
export function fromHex(text) {
  if (text.length % 2 || !/^[0-9a-f]*$/i.test(text)) return null;
  return Uint8Array.from(text.match(/../g) ?? [], (pair) => Number.parseInt(pair, 16));
}

export function sameBytes(one, other) {
  return one.length === other.length && one.every((byte, place) => byte === other[place]);
}

class Decoder {
  constructor(data, tags, strict) {
    this.data = data;
    this.view = new DataView(data.buffer, data.byteOffset, data.byteLength);
    this.position = 0;
    this.tags = tags;
    this.strict = strict;
  }

  item(depth) {
    if (this.position >= this.data.length) this.truncated();
    const initial = this.data[this.position++];
    const major = initial >> 5;
    const info = initial & 31;
    if (major === 7) return this.simple(info);
    const argument = this.argument(info);
    if (major === 2) return argument === null ? this.joined(2) : this.take(argument);
    if (major === 3) return argument === null ? this.joinedText() : this.text(this.take(argument));
    if (major <= 1) {
      const number = this.definite(argument);
      return major === 0 ? number : -1n - number;
    }
    if (depth >= MAX_DEPTH) throw new CborError("CBOR_TOO_DEEP", `nested deeper than ${MAX_DEPTH}`);
    if (major === 4) return this.array(argument, depth + 1);
    if (major === 5) return this.map(argument, depth + 1);
    return this.tag(argument, depth + 1);
  }

  argument(info) {
    if (info < 24) return BigInt(info);
    if (info === 31) {
      if (this.strict) throw new CborError("CBOR_NOT_DETERMINISTIC", "indefinite length");
      return null;
    }
    if (info > 27) throw new CborError("CBOR_BAD_TYPE", "reserved additional information");
    const size = 1 << (info - 24);
    let value = 0n;
    for (const byte of this.take(size)) value = (value << 8n) | BigInt(byte);
    const least = size === 1 ? 24n : 1n << BigInt(4 * size);
    if (this.strict && value < least) {
      throw new CborError("CBOR_NOT_DETERMINISTIC", "a head is not in its shortest form");
    }
    return value;
  }

  definite(argument) {
    if (argument === null) throw new CborError("CBOR_BAD_TYPE", "an indefinite integer or tag");
    return argument;
  }

  take(size) {
    if (BigInt(size) > BigInt(this.data.length - this.position)) this.truncated();
    const start = this.position;
    this.position += Number(size);
    return this.data.subarray(start, this.position);
  }

  truncated() {
    throw new CborError("CBOR_TRUNCATED", "the data ends inside an item");
  }

  text(raw) {
    try {
      return UTF8.decode(raw);
    } catch {
      throw new CborError("CBOR_BAD_UTF8", "a text is not UTF-8");
    }
  }

  atBreak() {
    if (this.position >= this.data.length) this.truncated();
    if (this.data[this.position] !== 0xff) return false;
    this.position++;
    return true;
  }

  chunks(major) {
    const found = [];
    while (!this.atBreak()) {
      const initial = this.data[this.position++];
      if (initial >> 5 !== major || (initial & 31) === 31) {
        throw new CborError("CBOR_BAD_TYPE", "a wrong chunk in an indefinite string");
      }
      found.push(this.take(this.definite(this.argument(initial & 31))));
    }
    return found;
  }

  joined(major) {
    const chunks = this.chunks(major);
    const whole = new Uint8Array(chunks.reduce((sum, chunk) => sum + chunk.length, 0));
    let place = 0;
    for (const chunk of chunks) {
      whole.set(chunk, place);
      place += chunk.length;
    }
    return whole;
  }

  joinedText() {
    return this.chunks(3).map((chunk) => this.text(chunk)).join("");
  }

  array(count, depth) {
    const items = [];
    if (count === null) {
      while (!this.atBreak()) items.push(this.item(depth));
      return items;
    }
    if (count > BigInt(this.data.length - this.position)) this.truncated();
    for (let left = count; left > 0n; left--) items.push(this.item(depth));
    return items;
  }

  map(count, depth) {
    if (count !== null && count > BigInt((this.data.length - this.position) >> 1)) this.truncated();
    const found = new Map();
    const seen = new Set();
    let previous = "";
    for (let left = count; left === null ? !this.atBreak() : left > 0n; left = left === null ? null : left - 1n) {
      const start = this.position;
      const key = this.key(depth);
      const name = key instanceof BytesKey ? `h${key.hex}` : `${typeof key}${key}`;
      if (seen.has(name)) throw new CborError("CBOR_DUPLICATE_KEY", "a map key stands twice");
      seen.add(name);
      if (this.strict) {
        const encoded = toHex(this.data.subarray(start, this.position));
        // Hexadecimal digits sort as their bytes do, and no head is the beginning of another item.
        if (encoded < previous) throw new CborError("CBOR_NOT_DETERMINISTIC", "map keys are not sorted");
        previous = encoded;
      }
      found.set(key, this.item(depth));
    }
    return found;
  }

  key(depth) {
    const key = this.item(depth);
    if (key instanceof Uint8Array) return new BytesKey(key);
    if (typeof key === "bigint" || typeof key === "string") return key;
    throw new CborError("CBOR_BAD_TYPE", "a map key is neither an integer nor a string");
  }

  tag(number, depth) {
    const tag = this.definite(number);
    if (!this.tags.includes(tag)) throw new CborError("CBOR_UNEXPECTED_TAG", `tag ${tag} was not asked for`);
    return new Tag(tag, this.item(depth));
  }

  simple(info) {
    if (info >= 20 && info <= 22) return [false, true, null][info - 20];
    if (info < 25 || info > 27) throw new CborError("CBOR_BAD_TYPE", "an unknown simple value");
    const size = 1 << (info - 24);
    const start = this.position;
    const raw = this.take(size);
    const value = size === 2 ? half(raw) : size === 4 ? this.view.getFloat32(start) : this.view.getFloat64(start);
    const shortest = Number.isNaN(value)
      ? size === 2 && raw[0] === 0x7e && raw[1] === 0
      : size === shortestSize(value);
    if (this.strict && !shortest) {
      throw new CborError("CBOR_NOT_DETERMINISTIC", "a float is not in its shortest form");
    }
    return new Float(value);
  }
}

function half(raw) {
  const bits = (raw[0] << 8) | raw[1];
  const sign = bits & 0x8000 ? -1 : 1;
  const exponent = (bits >> 10) & 31;
  const mantissa = bits & 0x3ff;
  if (exponent === 0) return sign * mantissa * 2 ** -24;
  if (exponent === 31) return mantissa ? Number.NaN : sign * Number.POSITIVE_INFINITY;
  return sign * (1024 + mantissa) * 2 ** (exponent - 25);
}

/** Returns how many bytes the shortest float of this value has: 2, 4 or 8. */
function shortestSize(value) {
  if (Math.fround(value) !== value) return 8;
  const size = Math.abs(value);
  if (size === 0 || size === Number.POSITIVE_INFINITY) return 2;
  if (size > 65504) return 4;
  // The distance between neighbouring half floats here: 11 bits of significand, 2^-24 at the least.
  let step = 2 ** -24;
  while (size >= step * 2048) step *= 2;
  return Number.isInteger(size / step) ? 2 : 4;
}

/**
 * Returns the one item that `data` is, or throws CborError with the codes of wire/encoding.py.
 * `tags` are those that may appear, as BigInt.
 */
export function decode(data, { tags = [], strict = true } = {}) {
  const decoder = new Decoder(data, tags, strict);
  const value = decoder.item(0);
  if (decoder.position !== data.length) throw new CborError("CBOR_TRAILING_BYTES", "bytes follow the item");
  return value;
}
