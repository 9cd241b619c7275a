// Dead letters: messages that no worker can answer.

import { get, may } from "./api.js";
import { el, note, number, short, table, time } from "./dom.js";
import { live } from "./live.js";

export function show(place, signal) {
  const body = el("div");
  place.append(
    el("h1", { tabindex: "-1" }, "Dead letters"),
    el("p", { class: "quiet" }, "Messages that were given up after too many deliveries. Each of their jobs has a signed “failed” outcome. For operators."),
    body,
  );
  if (!may("admin")) {
    body.append(note("plain", "Only operators see dead letters.", el("p", {}, "A dead letter belongs to a pool, not to a tenant. Sign in with a key of the scope ", el("code", {}, "admin"), ", or run ", el("code", {}, "ephemeralml dlq list --pool NAME"), ".")));
    return;
  }
  live(body, () => load(signal), draw, signal, 15000);
}

async function load(signal) {
  const { data } = await get("/v1/pools", signal);
  return Promise.all(
    data.map(async ({ name }) => ({ name, ...(await get(`/v1/dead-letters?pool=${encodeURIComponent(name)}`, signal)) })),
  );
}

function draw(pools) {
  const found = pools.filter((pool) => pool.data.length);
  if (!found.length) return note("good", "No dead letters in any pool that announces workers.");
  return found.map((pool) =>
    el(
      "section",
      {},
      el("h2", {}, `Pool ${pool.name}`),
      table(
        `Dead letters of ${pool.name}`,
        ["Message", "Code", "Deliveries", "Jobs", "Bytes", "Given up"],
        pool.data.map((letter) => [
          short(letter.id, 16), el("code", {}, letter.code), number(letter.deliveries), number(letter.jobs),
          number(letter.bytes), time(letter.died_at),
        ]),
      ),
      pool.has_more ? el("p", {}, "There are more: ", el("code", {}, `ephemeralml dlq list --pool ${pool.name}`)) : null,
      el("p", { class: "quiet" }, "To look into one: ", el("code", {}, `ephemeralml dlq show ID --pool ${pool.name}`)),
    ),
  );
}
