// Batches: the list, and one with the ends of its items.

import { ApiError, ask, get, lines, may } from "./api.js";
import { badge, copyable, el, facts, note, number, short, table, time, trouble } from "./dom.js";
import { live } from "./live.js";

const ENDS = ["succeeded", "failed", "expired", "cancelled", "rejected"];
const TONES = {
  completed: "good", succeeded: "good", failed: "bad", rejected: "bad", expired: "warn", cancelled: "warn",
  cancelling: "warn", in_progress: "busy", finalizing: "busy", validating: "plain",
};
const PAGE = 20;
const ITEMS = 100;

export const state = (text) => badge(text.replace("_", " "), TONES[text] ?? "plain");

function progress(counts) {
  const ended = counts.total - counts.pending;
  const parts = ENDS.filter((end) => counts[end]).map((end) => {
    const part = el("span", { class: `part ${TONES[end]}` });
    part.style.flexGrow = String(counts[end]);
    return part;
  });
  const left = el("span", { class: "part" });
  left.style.flexGrow = String(counts.pending);
  const words = ENDS.filter((end) => counts[end]).map((end) => `${number(counts[end])} ${end}`);
  const said = `${number(ended)} of ${number(counts.total)} jobs have ended: ${words.join(", ") || "none yet"}`;
  return el(
    "div",
    { class: "progress" },
    el(
      "div",
      {
        class: "bar", role: "progressbar", "aria-valuemin": "0", "aria-valuemax": String(counts.total),
        "aria-valuenow": String(ended), "aria-valuetext": said, "aria-label": "Progress", title: said,
      },
      ...parts,
      left,
    ),
    el("span", { class: "count" }, `${number(ended)} / ${number(counts.total)}`),
  );
}

/** Shows all batches, the newest first. */
export function list(place, signal) {
  let shown = PAGE;
  const load = async () => {
    const found = { data: [], has_more: true, last_id: null };
    while (found.data.length < shown && found.has_more) {
      const after = found.last_id ? `&after=${encodeURIComponent(found.last_id)}` : "";
      const page = await get(`/v1/batches?limit=${Math.min(100, shown - found.data.length)}${after}`, signal);
      found.data.push(...page.data);
      Object.assign(found, { has_more: page.has_more, last_id: page.last_id });
    }
    return found;
  };
  const body = el("div");
  const draw = (found) => {
    if (!found.data.length) {
      return note(
        "plain",
        "No batches yet.",
        el("p", {}, "Send one with ", el("code", {}, "ephemeralml batch submit FILE --pool NAME"), "; it shows up here by itself."),
      );
    }
    const rows = found.data.map((batch) => [
      el("a", { href: `#/batches/${batch.id}`, "data-key": batch.id }, short(batch.id, 18)),
      state(batch.status),
      progress(batch.counts),
      batch.pool,
      time(batch.created_at),
      time(batch.expires_at),
    ]);
    const button = found.has_more
      ? el("button", { type: "button", "data-key": "more", onclick: more }, "Show more")
      : null;
    return [table("Batches, the newest first", ["Batch", "Status", "Progress", "Pool", "Created", "Expires"], rows), button];
  };
  place.append(el("h1", { tabindex: "-1" }, "Batches"), body);
  const again = live(body, load, draw, signal);
  const more = () => {
    shown += PAGE;
    again();
  };
}

/** Shows one batch. `name` is from the page's address, so it is checked. */
export function detail(place, signal, name) {
  place.append(el("p", {}, el("a", { href: "#/batches" }, "← All batches")), el("h1", { tabindex: "-1" }, "Batch"));
  if (!/^batch_[0-9a-f]{32}$/.test(name)) {
    place.append(trouble(new ApiError("BATCH_NOT_FOUND", "This is no name of a batch.")));
    return;
  }
  const body = el("div");
  const items = el("div");
  place.append(body, el("h2", {}, "Ends of its items"), items);
  const load = () => get(`/v1/batches/${name}`, signal);
  const again = live(body, load, (batch) => summary(batch, signal, () => again()), signal);
  ends(items, name, signal);
}

function summary(batch, signal, again) {
  const times = [
    ["Created", "created_at"], ["In progress since", "in_progress_at"], ["Finalizing since", "finalizing_at"],
    ["Completed", "completed_at"], ["Failed", "failed_at"], ["Cancelling since", "cancelling_at"],
    ["Cancelled", "cancelled_at"], ["Expired", "expired_at"], ["Expires", "expires_at"],
  ].filter(([, field]) => batch[field] !== null);
  const metadata = Object.entries(batch.metadata);
  const counted = [...ENDS, "pending"].map((end) => el("div", { class: "tile" }, el("b", {}, number(batch.counts[end])), el("span", {}, end)));
  return [
    el("div", { class: "head" }, state(batch.status), copyable(batch.id), cancelButton(batch, signal, again)),
    batch.code ? note("bad", "The batch could not be done.", " ", el("code", {}, batch.code)) : null,
    progress(batch.counts),
    el("div", { class: "tiles" }, ...counted),
    el(
      "div",
      { class: "columns" },
      el("section", {}, el("h2", {}, "Times"), facts(times.map(([term, field]) => [term, time(batch[field])]))),
      el(
        "section",
        {},
        el("h2", {}, "About it"),
        facts([
          ["Pool", batch.pool],
          ["Jobs", number(batch.counts.total)],
          ["Input root", batch.input_root ? el("code", {}, batch.input_root) : "none: no statement can be asked for"],
          ...metadata.map(([name, value]) => [`Metadata: ${name}`, value]),
        ]),
      ),
    ),
  ];
}

function cancelButton(batch, signal, again) {
  if (!may("write") || !["validating", "in_progress"].includes(batch.status)) return null;
  const button = el("button", { type: "button", class: "danger", "data-key": "cancel" }, "Cancel batch…");
  button.addEventListener("click", () => {
    const said = el("div", { "aria-live": "polite" });
    const dialog = el("dialog", { "aria-label": "Cancel batch" });
    const sure = el("button", { type: "button", class: "danger" }, "Cancel batch");
    sure.addEventListener("click", async () => {
      sure.disabled = true;
      try {
        await ask(`/v1/batches/${batch.id}/cancel`, { method: "POST", signal });
        dialog.close();
        again();
      } catch (error) {
        sure.disabled = false;
        said.replaceChildren(trouble(error));
      }
    });
    dialog.append(
      el("h2", {}, "Cancel this batch?"),
      el("p", {}, "Workers sign “cancelled” for jobs that they have not run. What has run keeps its result. This cannot be undone."),
      said,
      el("div", { class: "head" }, sure, el("button", { type: "button", onclick: () => dialog.close() }, "Keep it running")),
    );
    dialog.addEventListener("close", () => dialog.remove());
    document.body.append(dialog);
    dialog.showModal();
  });
  return button;
}

/** Shows ends in order of arrival, a hundred at a time. */
async function ends(place, name, signal) {
  const rows = el("div");
  const button = el("button", { type: "button" }, "Show more");
  const said = el("p", { class: "quiet", "aria-live": "polite" });
  place.append(
    el("p", { class: "quiet" }, "In order of arrival. Statuses are the gateway’s word; a signed outcome lies behind each, for ", el("code", {}, "ephemeralml verify batch"), "."),
    rows, said, button,
  );
  let seen = 0;
  const body = el("tbody");
  const next = async () => {
    button.disabled = true;
    try {
      const { found, more } = await lines(`/v1/batches/${name}/outcomes?after=${seen}`, ITEMS, signal);
      if (found.length && !rows.firstChild) {
        const empty = table("Ends of items", COLUMNS, []);
        empty.tBodies[0].replaceWith(body);
        rows.append(empty);
      }
      body.append(...table("", COLUMNS, found.map(endCells)).tBodies[0].rows);
      seen = found.length ? found.at(-1).seen : seen;
      said.textContent = seen ? `${number(seen)} ends shown${more ? "" : ": all that have arrived"}.` : "No item has ended yet.";
      button.textContent = more ? "Show more" : "Look for new ends";
    } catch (error) {
      if (!signal.aborted) said.replaceChildren(trouble(error));
    }
    button.disabled = false;
  };
  button.addEventListener("click", next);
  await next();
}

const COLUMNS = ["Index", "Custom id", "End", "Code", "Arrived", "Job"];

function endCells(end) {
  return [
    number(end.index),
    end.custom_id ?? el("span", { class: "quiet" }, "–"),
    state(end.status),
    end.code ? el("code", {}, end.code) : el("span", { class: "quiet" }, "–"),
    time(end.ended_at),
    short(end.job_id),
  ];
}
