// Webhooks and what became of each event.

import { get } from "./api.js";
import { badge, el, facts, note, number, short, table, time } from "./dom.js";
import { live } from "./live.js";

const SHOWN = 20;
const TONES = { delivered: "good", pending: "busy", failed: "bad" };

export function show(place, signal) {
  const body = el("div");
  place.append(el("h1", { tabindex: "-1" }, "Webhooks"), body);
  live(body, () => load(signal), draw, signal);
}

async function load(signal) {
  const { data } = await get("/v1/webhooks", signal);
  return Promise.all(
    data.map(async (endpoint) => ({ endpoint, page: await get(`/v1/webhooks/${endpoint.id}/deliveries?limit=${SHOWN}`, signal) })),
  );
}

function draw(found) {
  if (!found.length) {
    return note("plain", "No webhooks.", el("p", {}, "Make one with ", el("code", {}, "ephemeralml webhooks create TENANT URL"), " or POST /v1/webhooks."));
  }
  return found.map(({ endpoint, page }) =>
    el(
      "section",
      {},
      el("div", { class: "head" }, el("h2", { class: "break" }, endpoint.url), endpoint.enabled ? badge("enabled", "good") : badge("disabled", "bad")),
      endpoint.enabled ? null : note("bad", disabled(endpoint), el("p", {}, "Mend the receiver, then: ", el("code", {}, `ephemeralml webhooks enable ${endpoint.id}`))),
      facts([
        ["Id", el("code", {}, endpoint.id)],
        ["Description", endpoint.description || null],
        ["Events", endpoint.events.join(", ")],
        ["Signing", endpoint.signing],
        ["Failing since", endpoint.failing_since === null ? null : time(endpoint.failing_since)],
      ]),
      page.data.length
        ? table(
            `Deliveries to ${endpoint.url}`,
            ["Event", "State", "Attempts", "Last answer", "Happened", "Next attempt", "Message"],
            page.data.map((each) => [
              each.type, badge(each.state, TONES[each.state] ?? "plain"), number(each.attempts), answer(each),
              time(each.happened_at), time(each.next_at), short(each.id, 16),
            ]),
          )
        : el("p", { class: "quiet" }, "Nothing was sent yet."),
      page.has_more ? el("p", { class: "quiet" }, `The newest ${SHOWN}; all: `, el("code", {}, `ephemeralml webhooks deliveries ${endpoint.id}`)) : null,
    ),
  );
}

function disabled(endpoint) {
  const reasons = { GONE: "Disabled: the receiver answered 410 Gone.", FAILING: "Disabled: the receiver took nothing for days." };
  return reasons[endpoint.disabled_reason] ?? "Disabled.";
}

function answer(delivery) {
  if (delivery.last_at === null) return "–";
  const status = delivery.last_status ? `HTTP ${delivery.last_status}` : "no answer";
  return delivery.last_code ? el("span", {}, status, " ", el("code", {}, delivery.last_code)) : status;
}
