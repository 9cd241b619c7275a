// Workers as they announce themselves. The page says so wherever it shows one.

import { ask, get } from "./api.js";
import { badge, copyable, el, facts, note, short, time, trouble } from "./dom.js";
import { readAnnouncement } from "./evidence.js";
import { live } from "./live.js";

export function show(place, signal) {
  const body = el("div");
  place.append(
    el("h1", { tabindex: "-1" }, "Fleet"),
    note(
      "warn",
      "Announced, not verified here.",
      el(
        "p",
        {},
        "This is what workers say of themselves, as the gateway passes it on. A browser cannot appraise evidence. To verify a pool under your trust policy, run ",
        el("code", {}, "ephemeralml doctor --pool NAME --policy POLICY"),
        ".",
      ),
    ),
    body,
  );
  live(body, () => get("/v1/pools", signal), (pools) => draw(pools.data, signal), signal, 15000);
}

function draw(pools, signal) {
  if (!pools.length) {
    return note("plain", "No worker has announced itself.", el("p", {}, "A worker shows up here once a KMS has released its keys. ", el("code", {}, "ephemeralml doctor"), " on its machine says what is missing."));
  }
  return pools.map((pool) =>
    el(
      "section",
      {},
      el("h2", {}, `Pool ${pool.name}`),
      el("p", { class: "quiet" }, `${pool.workers.length} ${pool.workers.length === 1 ? "worker" : "workers"}; replies go to `, el("code", {}, pool.reply_to)),
      el("div", { class: "cards" }, ...pool.workers.map((worker) => card(worker, signal))),
    ),
  );
}

function card(worker, signal) {
  const over = worker.not_after * 1000 < Date.now();
  const more = el("div");
  const details = el("details", {}, el("summary", { "data-key": worker.worker_id }, "Measurements and keys"), more);
  details.addEventListener("toggle", () => details.open && !more.firstChild && reveal(more, worker, signal));
  return el(
    "article",
    { class: "card" },
    el(
      "div",
      { class: "head" },
      el("h3", {}, "Worker ", short(worker.worker_id, 8)),
      badge("not verified", "warn"),
      over ? badge("expired", "bad") : null,
    ),
    facts([
      ["Platform", worker.platform],
      ["Security mode", worker.security_mode === "production" ? worker.security_mode : badge(worker.security_mode, "warn")],
      ["Model", `${worker.model} ${worker.model_version}`],
      ["Model hash", short(worker.model_hash, 16)],
      ["Tasks", worker.tasks.join(", ")],
      ["Key epoch", String(worker.epoch)],
      ["Announced", time(worker.issued_at)],
      [over ? "Ended" : "Valid until", time(worker.not_after)],
    ]),
    details,
  );
}

async function reveal(place, worker, signal) {
  place.append(note("plain", "Loading…"));
  try {
    const answer = await ask(`/v1/blobs/${worker.announcement}`, { signal, accept: "application/octet-stream" });
    const found = readAnnouncement(new Uint8Array(await answer.arrayBuffer()));
    place.replaceChildren(...said(found, worker));
  } catch (error) {
    if (signal.aborted) return;
    place.replaceChildren(error.code !== undefined ? trouble(error) : note("bad", "The announcement cannot be read."));
  }
}

function said({ receiptKey, platform, evidence, measurements }, worker) {
  const save = el("button", { type: "button" }, "Save evidence");
  save.addEventListener("click", () => {
    const address = URL.createObjectURL(new Blob([evidence], { type: "application/octet-stream" }));
    const link = document.createElement("a");
    link.href = address;
    link.download = `${worker.evidence_hash}.evidence`;
    link.click();
    setTimeout(() => URL.revokeObjectURL(address), 10000);
  });
  return [
    facts([
      ...measurements.map(([name, value]) => [name, el("code", {}, value)]),
      ["Receipt key", copyable(receiptKey)],
      ["SHA-256 of the evidence", el("code", {}, worker.evidence_hash)],
      ["Fleet key", el("code", {}, worker.key_id)],
    ]),
    measurements.length ? null : el("p", { class: "quiet" }, "This page cannot read measurements of this platform."),
    el("p", {}, "To verify: save the evidence, then"),
    el("pre", {}, `ephemeralml verify evidence FILE --platform ${platform} \\\n  --public-key ${receiptKey} --policy POLICY`),
    save,
  ].filter(Boolean);
}
