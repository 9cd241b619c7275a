// Draws what a verification found: the verdict, what was not checked, every check, the claims, the limits.

import { CHECKS, LAYERS } from "./air.js";
import { toHex } from "./cbor.js";
import { badge, el, facts, note, table, time } from "./dom.js";
import { CHECK_WORDS, CLAIM_WORDS, LAYER_WORDS, LEVELS, LIMITS, STATUS_TONES, STATUS_WORDS, TITLES } from "./words.js";

/** Returns the report's nodes; `about` says which files and key were judged, and when. */
export function report(found, about) {
  return [verdict(found), about.keyNote, unchecked(found), checks(found), claims(found), full(about), limits(found)].filter(Boolean);
}

function verdict(found) {
  const tone = found.verdict === "sound" ? "good" : "bad";
  const first = found.checks.find((check) => check.status === "failed");
  return el(
    "div",
    { class: `note verdict ${tone}`, id: "verdict", "data-verdict": found.verdict, "data-level": found.level },
    el("strong", {}, TITLES[found.level]),
    el("p", {}, LEVELS[found.level]),
    first ? el("p", {}, el("code", {}, first.code), ` ${LAYERS[first.layer]}, ${first.name}: ${first.detail}.`) : null,
    el("p", { class: "quiet" }, "Assurance level: ", el("b", {}, found.level), " · SHA-256 of the receipt: ", el("code", {}, found.receiptHash)),
  );
}

function unchecked(found) {
  const names = found.checks.filter((check) => check.status === "skipped");
  if (!names.length) return null;
  return note(
    "warn",
    "Not checked here",
    el("ul", { class: "plainlist" }, ...names.map((check) => el("li", {}, el("code", {}, check.name), ` ${CHECK_WORDS[check.name] ?? ""}: ${check.detail}`))),
  );
}

function checks(found) {
  const layers = Object.keys(LAYERS).map((number) => {
    const of = found.checks.filter((check) => check.layer === Number(number));
    const failed = of.some((check) => check.status === "failed");
    const counted = of.filter((check) => check.status === "passed").length;
    const rows = of.map((check) => [
      el("code", {}, check.name),
      badge(STATUS_WORDS[check.status], STATUS_TONES[check.status]),
      check.code ? el("code", {}, check.code) : "",
      check.detail || CHECK_WORDS[check.name] || "",
    ]);
    return el(
      "details",
      { class: "layer", open: failed },
      el("summary", {}, el("b", {}, `${number} ${LAYERS[number]}`), el("span", { class: "grow" }, LAYER_WORDS[number]), badge(`${counted} of ${CHECKS[number].length}`, failed ? "bad" : counted === of.length ? "good" : "warn")),
      table(`Checks of layer ${number}`, ["Check", "Result", "Code", "Detail"], rows),
    );
  });
  return el("section", {}, el("h2", {}, "Every check"), ...layers);
}

function claims(found) {
  if (!found.claims) {
    return el("p", { class: "quiet" }, "No claims are shown: they would be nobody’s word.");
  }
  const { enclave_measurements: slots, ...rest } = found.claims;
  const pairs = Object.entries(rest).map(([name, value]) => [CLAIM_WORDS[name] ?? name, shown(name, value)]);
  const measured = [...slots].map(([name, value]) => [name === "measurement_type" ? "Kind of the TEE's measurements" : name, shown(name, value)]);
  return el("section", {}, el("h2", {}, "What the receipt says"), facts([...pairs, ...measured]));
}

function shown(name, value) {
  if (name === "iat") return value < 1n << 40n ? time(value) : String(value);
  return value instanceof Uint8Array ? el("code", {}, toHex(value)) : String(value);
}

function full(about) {
  return el(
    "section",
    {},
    el("h2", {}, "Where the key lives"),
    el("p", {}, "A browser cannot appraise evidence. The whole judgement, TEE provenance included, on your own machine:"),
    el("pre", {}, `ephemeralml verify receipt ${about.command} \\\n  --public-key ${about.key} \\\n  --evidence FILE --policy POLICY`),
  );
}

function limits(found) {
  if (found.verdict !== "sound") return null;
  return el("section", {}, el("h2", {}, "What no receipt proves"), el("ul", {}, ...LIMITS.map((limit) => el("li", {}, limit))));
}
