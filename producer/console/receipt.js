// A receipt dropped on the page is verified in the page. Files are read where they are; nothing here asks
// the network for anything.

import { MAX_RECEIPT_BYTES, verifyReceipt } from "./air.js";
import { fromHex, toHex } from "./cbor.js";
import { Unsupported } from "./ed25519.js";
import { el, note } from "./dom.js";
import { report } from "./report.js";

const MAX_RESULTS_BYTES = 64 << 20;
const HEX_FIELDS = { request: 32, response: 32, model: 32, evidence: 32, nonce: null };

export function show(place) {
  const held = { receipt: null, keys: new Map(), keyFrom: null };
  const out = el("div", { "aria-live": "polite", id: "report" });
  const files = el("ul", { class: "plainlist", id: "files" });
  const fields = makeFields();
  const judge = () => judgeHeld(held, fields, out);
  const take = async (given) => {
    for (const file of given) await takeFile(file, held, fields, files);
    chooseKey(held, fields);
    await judge();
  };
  fields.key.addEventListener("input", () => (held.keyFrom = null));
  place.append(
    el("h1", { tabindex: "-1" }, "Verify a receipt"),
    el("p", {}, "The receipt is verified by this page, in your browser. ", el("b", {}, "Nothing is uploaded"), ": no file and no part of one leaves this machine, and no key for the gateway is needed."),
    dropZone(take),
    files,
    form(fields, judge),
    out,
  );
}

function dropZone(take) {
  const input = el("input", { type: "file", multiple: true, id: "drop-input", class: "unseen" });
  input.addEventListener("change", async () => {
    await take([...input.files]);
    input.value = "";
  });
  const zone = el(
    "label",
    { class: "drop", for: "drop-input", id: "drop" },
    input,
    el("b", {}, "Drop a receipt here, or choose files"),
    el("span", { class: "quiet" }, "JOB.air; with it, if you like, your FILE.results.jsonl (holds the key) and SHA256.evidence"),
  );
  for (const kind of ["dragenter", "dragover"]) {
    zone.addEventListener(kind, (event) => {
      event.preventDefault();
      zone.classList.add("over");
    });
  }
  zone.addEventListener("dragleave", () => zone.classList.remove("over"));
  zone.addEventListener("drop", async (event) => {
    event.preventDefault();
    zone.classList.remove("over");
    await take([...event.dataTransfer.files]);
  });
  return zone;
}

function makeFields() {
  const hex = (id, placeholder) => el("input", { id, type: "text", class: "hex", autocomplete: "off", spellcheck: "false", placeholder });
  return {
    key: hex("key", "64 hexadecimal digits"),
    request: hex("request", "SHA-256"),
    response: hex("response", "SHA-256"),
    model: hex("model", "SHA-256 of the model manifest"),
    evidence: hex("evidence", "SHA-256"),
    nonce: hex("nonce", "8 to 64 bytes"),
    maxAge: el("input", { id: "max-age", type: "number", min: "0", step: "1", placeholder: "seconds" }),
    at: el("input", { id: "at", type: "datetime-local", step: "1" }),
    evaluation: el("input", { id: "evaluation", type: "checkbox" }),
  };
}

function form(fields, judge) {
  const row = (label, input, ...rest) => el("div", { class: "row" }, el("label", { for: input.id }, label), input, ...rest);
  const made = el(
    "form",
    {},
    row("Receipt key (Ed25519)", fields.key),
    el(
      "details",
      {},
      el("summary", {}, "What else to hold it against"),
      row("Request", fields.request, hasher(fields.request, "request")),
      row("Response", fields.response, hasher(fields.response, "response")),
      row("Model", fields.model),
      row("Evidence", fields.evidence, hasher(fields.evidence, "evidence")),
      row("Nonce", fields.nonce),
      row("Not older than", fields.maxAge),
      row("Judge at this time", fields.at),
      el("div", { class: "row check" }, fields.evaluation, el("label", { for: "evaluation" }, "Accept receipts of simulated or debuggable TEEs (evaluation)")),
    ),
    el("button", { type: "submit" }, "Verify"),
  );
  made.addEventListener("submit", (event) => {
    event.preventDefault();
    judge();
  });
  return made;
}

/** A choice of a file whose hash goes into a field. */
function hasher(field, name) {
  const input = el("input", { type: "file", "aria-label": `Hash a ${name} file` });
  input.addEventListener("change", async () => {
    if (input.files[0]) field.value = toHex(await sha256(await bytesOf(input.files[0])));
  });
  return input;
}

async function takeFile(file, held, fields, list) {
  let said;
  try {
    said = await readFile(file, held, fields);
  } catch {
    said = "cannot be read";
  }
  list.append(el("li", {}, el("b", {}, file.name), `: ${said}`));
  while (list.childElementCount > 8) list.firstChild.remove();
}

async function readFile(file, held, fields) {
  const name = file.name.toLowerCase();
  if (/\.(jsonl|ndjson|json)$/.test(name)) {
    if (file.size > MAX_RESULTS_BYTES) return "results of more than 64 MiB: paste the receipt_key of its line instead";
    const found = keysOf(await file.text());
    for (const [job, key] of found) held.keys.set(job, key);
    return `results, ${found.size} of them with a receipt key`;
  }
  if (name.endsWith(".evidence")) {
    fields.evidence.value = toHex(await sha256(await bytesOf(file)));
    return "evidence: its hash is compared, the evidence itself is not judged";
  }
  if (/\.(pub|key|hex|txt)$/.test(name) && file.size <= 200) {
    const bytes = await bytesOf(file);
    const text = new TextDecoder().decode(bytes).trim();
    fields.key.value = bytes.length === 32 ? toHex(bytes) : text;
    held.keyFrom = file.name;
    return "key";
  }
  // One byte more than is allowed is enough to refuse a receipt for its size.
  held.receipt = { name: file.name, bytes: await bytesOf(file.slice(0, MAX_RECEIPT_BYTES + 1)) };
  return "receipt";
}

/** Returns receipt keys by job id from the lines that `ephemeralml results` writes. */
function keysOf(text) {
  const found = new Map();
  for (const line of text.split("\n")) {
    if (!line.includes('"receipt_key"')) continue;
    try {
      const { job_id: job, receipt_key: key } = JSON.parse(line);
      if (/^[0-9a-f]{32}$/.test(job) && /^[0-9a-f]{64}$/.test(key)) found.set(job, key);
    } catch {
      continue; // a line cut off harms no other
    }
  }
  return found;
}

function chooseKey(held, fields) {
  if (!held.receipt || !held.keys.size) return;
  const all = new Set(held.keys.values());
  const key = held.keys.get(held.receipt.name.split(".")[0].toLowerCase()) ?? (all.size === 1 ? [...all][0] : null);
  if (key !== null) {
    fields.key.value = key;
    held.keyFrom = "your results file";
  }
}

async function judgeHeld(held, fields, out) {
  if (!held.receipt) {
    out.replaceChildren(note("plain", "Which receipt?", el("p", {}, "Drop the file above, or choose it.")));
    return;
  }
  const wrong = wrongField(fields);
  if (wrong !== null) {
    out.replaceChildren(note("bad", wrong.text));
    wrong.field.focus();
    return;
  }
  const now = fields.at.value ? Math.floor(new Date(fields.at.value).valueOf() / 1000) : Math.floor(Date.now() / 1000);
  try {
    const found = await verifyReceipt(held.receipt.bytes, fromHex(fields.key.value.trim()), policyOf(fields), now);
    out.replaceChildren(...report(found, aboutOf(held, fields)));
  } catch (error) {
    if (!(error instanceof Unsupported)) throw error;
    out.replaceChildren(note("bad", "This browser cannot verify receipts.", el("p", {}, error.message, " Or use ", el("code", {}, "ephemeralml verify receipt"), ".")));
  }
}

function wrongField(fields) {
  const key = fromHex(fields.key.value.trim());
  if (key?.length !== 32) {
    return {
      field: fields.key,
      text: fields.key.value.trim() ? "A receipt key has 64 hexadecimal digits." : "Whose key? Paste the receipt key, or drop your results file beside the receipt.",
    };
  }
  for (const [name, size] of Object.entries(HEX_FIELDS)) {
    const value = fromHex(fields[name].value.trim());
    const good = value !== null && (value.length === 0 || (size ? value.length === size : value.length >= 8 && value.length <= 64));
    if (!good) return { field: fields[name], text: `The ${name} is not ${size ? "64" : "16 to 128"} hexadecimal digits.` };
  }
  return fields.maxAge.validity.valid ? null : { field: fields.maxAge, text: "An age is a whole number of seconds." };
}

function policyOf(fields) {
  const hex = (field) => (field.value.trim() ? fromHex(field.value.trim()) : null);
  return {
    requestHash: hex(fields.request),
    responseHash: hex(fields.response),
    modelHash: hex(fields.model),
    attestationDocHash: hex(fields.evidence),
    nonce: hex(fields.nonce),
    maxAge: fields.maxAge.value ? Number(fields.maxAge.value) : null,
    securityModes: fields.evaluation.checked ? ["production", "evaluation"] : ["production"],
  };
}

function aboutOf(held, fields) {
  const keyNote = held.keyFrom
    ? el("p", { class: "quiet" }, `The key is from ${held.keyFrom}. It is worth as much as that file: one that came with the receipt from a stranger proves nothing.`)
    : null;
  // A name goes into a command only where no shell could take it for anything else.
  const command = /^[A-Za-z0-9._-]+$/.test(held.receipt.name) && !held.receipt.name.startsWith("-") ? held.receipt.name : "FILE";
  return { keyNote, command, key: fields.key.value.trim().toLowerCase() };
}

async function bytesOf(file) {
  return new Uint8Array(await file.arrayBuffer());
}

async function sha256(bytes) {
  return new Uint8Array(await crypto.subtle.digest("SHA-256", bytes));
}
