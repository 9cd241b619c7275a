// The console: which part is shown, and whose key is used.

import * as api from "./api.js";
import * as batches from "./batches.js";
import { el, trouble } from "./dom.js";
import * as fleet from "./fleet.js";
import * as letters from "./letters.js";
import * as receipt from "./receipt.js";
import * as webhooks from "./webhooks.js";

const PARTS = {
  batches: { title: "Batches", show: (place, signal, rest) => (rest ? batches.detail(place, signal, rest) : batches.list(place, signal)) },
  fleet: { title: "Fleet", show: fleet.show },
  "dead-letters": { title: "Dead letters", show: letters.show },
  webhooks: { title: "Webhooks", show: webhooks.show },
  receipt: { title: "Verify a receipt", show: receipt.show, open: true },
};
const place = document.querySelector("main");
const account = document.querySelector("#account");
let leaving = new AbortController();

function route(moved) {
  leaving.abort();
  leaving = new AbortController();
  const [name, rest] = location.hash.replace(/^#\/?/, "").split("/");
  const known = Object.hasOwn(PARTS, name) ? name : "batches";
  const part = PARTS[known];
  document.title = `${part.title} · EphemeralML`;
  for (const link of document.querySelectorAll("nav a")) {
    const current = link.getAttribute("href") === `#/${known}`;
    if (current) {
      link.setAttribute("aria-current", "page");
      link.scrollIntoView({ block: "nearest", inline: "nearest" }); // on a narrow screen
    } else {
      link.removeAttribute("aria-current");
    }
  }
  const shown = el("div");
  place.replaceChildren(shown);
  if (part.open || api.signedIn()) part.show(shown, leaving.signal, rest);
  else signIn(shown);
  if (moved) place.querySelector("h1")?.focus();
  showAccount();
}

function showAccount() {
  const identity = api.who();
  if (!api.signedIn() || !identity) {
    account.replaceChildren();
    return;
  }
  const out = el("button", { type: "button" }, "Sign out");
  out.addEventListener("click", () => {
    api.signOut();
    location.hash = "#/batches";
    route(true);
  });
  account.replaceChildren(
    el("span", { title: `Key ${identity.key}; scopes: ${identity.scopes.join(", ")}` }, el("b", {}, identity.tenant), el("span", { class: "scopes" }, ` · ${identity.scopes.join(", ")}`)),
    out,
  );
}

function signIn(shown) {
  const said = el("div");
  const key = el("input", { id: "api-key", type: "password", required: true, autocomplete: "off", spellcheck: "false", placeholder: "eml_…" });
  const keep = el("input", { id: "keep", type: "checkbox" });
  const button = el("button", { type: "submit" }, "Sign in");
  const form = el(
    "form",
    { class: "card signin" },
    el("h1", { tabindex: "-1" }, "Sign in"),
    el("p", {}, "With an API key of this gateway; the scope ", el("code", {}, "read"), " is enough. It stays in this tab’s memory."),
    el("div", { class: "row" }, el("label", { for: "api-key" }, "API key"), key),
    el("div", { class: "row check" }, keep, el("label", { for: "keep" }, "Keep it until this tab is closed")),
    button,
    said,
    el("p", { class: "quiet" }, "No key? ", el("a", { href: "#/receipt" }, "Verify a receipt"), " works without one."),
  );
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    button.disabled = true;
    try {
      await api.signIn(key.value.trim(), keep.checked);
      route(true);
    } catch (error) {
      said.replaceChildren(trouble(error));
      button.disabled = false;
      key.focus();
    }
  });
  shown.append(form);
}

document.querySelector("#skip").addEventListener("click", () => place.focus());
window.addEventListener("hashchange", () => route(true));
// A file dropped beside its place must not make the browser leave the page for it.
for (const kind of ["dragover", "drop"]) window.addEventListener(kind, (event) => event.preventDefault());
if (api.signedIn()) await api.learn().catch((error) => error.code === "UNAUTHENTICATED" && api.signOut());
route(false);
