// Builds the page. Every text becomes a text node: there is no way in here from a string to markup, and
// the page's policy (Trusted Types) forbids the browser to offer one.

const LOCAL = new Intl.DateTimeFormat(undefined, { dateStyle: "medium", timeStyle: "medium" });
const NUMBER = new Intl.NumberFormat();

/** Returns an element. `traits` are attributes, `class`, `onclick` and the like; children are nodes or texts. */
export function el(name, traits = {}, ...children) {
  const made = document.createElement(name);
  for (const [trait, value] of Object.entries(traits)) {
    if (value === null || value === undefined || value === false) continue;
    if (trait.startsWith("on")) made.addEventListener(trait.slice(2), value);
    else if (trait === "href" && !value.startsWith("#/")) throw new TypeError("links stay on this page");
    else made.setAttribute(trait, value === true ? "" : value);
  }
  made.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return made;
}

export function number(value) {
  return NUMBER.format(value);
}

/** Returns a time in the reader's zone, with ISO 8601 as its title. `seconds` are Unix seconds. */
export function time(seconds) {
  if (seconds === null || seconds === undefined) return el("span", { class: "quiet" }, "–");
  const date = new Date(Number(seconds) * 1000);
  if (Number.isNaN(date.valueOf())) return el("span", {}, String(seconds));
  const iso = date.toISOString();
  return el("time", { datetime: iso, title: iso }, LOCAL.format(date));
}

export function badge(text, tone) {
  return el("span", { class: `badge ${tone}` }, text);
}

/** Returns a long identifier, shortened for the eye; its whole is the title and what a copy takes. */
export function short(text, kept = 12) {
  if (text.length <= kept + 1) return el("code", {}, text);
  return el("code", { title: text }, `${text.slice(0, kept)}…`);
}

export function copyable(text) {
  const button = el("button", { type: "button", class: "link", "aria-label": "Copy" }, "Copy");
  button.addEventListener("click", async () => {
    await navigator.clipboard.writeText(text);
    button.textContent = "Copied";
    setTimeout(() => (button.textContent = "Copy"), 1500);
  });
  return el("span", { class: "copy" }, el("code", {}, text), navigator.clipboard ? button : null);
}

/** Returns a table; on a narrow screen its rows become cards that name their columns. */
export function table(caption, columns, rows) {
  const head = el("tr", {}, ...columns.map((column) => el("th", { scope: "col" }, column)));
  const body = rows.map((cells) =>
    el("tr", {}, ...cells.map((cell, place) => el("td", { "data-label": columns[place] }, cell))),
  );
  return el(
    "table",
    {},
    el("caption", { class: "unseen" }, caption),
    el("thead", {}, head),
    el("tbody", {}, ...body),
  );
}

/** Returns a list of terms; pairs whose value is null are left out. */
export function facts(pairs) {
  const shown = pairs.filter(([, value]) => value !== null && value !== undefined);
  return el("dl", { class: "facts" }, ...shown.map(([term, value]) => el("div", {}, el("dt", {}, term), el("dd", {}, value))));
}

export function note(tone, title, ...rest) {
  return el("div", { class: `note ${tone}`, role: tone === "bad" ? "alert" : "status" }, el("strong", {}, title), ...rest);
}

/** Says what went wrong and what to do about it. */
export function trouble(error) {
  const code = error.code ? el("code", {}, error.code) : null;
  return note("bad", error.message || "Something went wrong.", el("p", {}, error.advice ?? "", " ", code ?? ""));
}

/** Puts children into a place, and the keyboard's focus back where it was. */
export function fill(place, ...children) {
  const focused = document.activeElement?.closest?.("[data-key]");
  const key = place.contains(focused) ? focused.dataset.key : null;
  place.replaceChildren(...children.flat().filter((child) => child !== null && child !== undefined));
  if (key !== null) [...place.querySelectorAll("[data-key]")].find((one) => one.dataset.key === key)?.focus();
}
