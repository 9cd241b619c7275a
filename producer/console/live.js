// Keeps a part of the page up to date while somebody looks at it.

import { fill, note, trouble } from "./dom.js";

export const PERIOD_MS = 5000;

/**
 * Loads and draws until `signal` aborts; returns a function that asks for it now. What has not changed is
 * not drawn again, so that nothing jumps; an error stands above what was last seen.
 */
export function live(place, load, draw, signal, period = PERIOD_MS) {
  const status = document.createElement("div");
  const body = document.createElement("div");
  const clock = { wake: () => {}, asked: false };
  place.replaceChildren(status, body);
  body.append(note("plain", "Loading…"));
  run({ status, body, load, draw, signal, period, clock });
  return () => {
    clock.asked = true;
    clock.wake();
  };
}

async function run({ status, body, load, draw, signal, period, clock }) {
  let before = null;
  while (!signal.aborted) {
    let wait = period;
    clock.asked = false;
    try {
      const found = await load(signal);
      if (signal.aborted) return;
      const now = JSON.stringify(found);
      status.replaceChildren();
      if (now !== before) fill(body, draw(found));
      before = now;
    } catch (error) {
      if (signal.aborted) return;
      wait = Math.max(period, (error.wait ?? 0) * 1000);
      if (before === null) body.replaceChildren();
      status.replaceChildren(trouble(error));
    }
    if (!clock.asked) await pause(wait, signal, clock);
  }
}

/** Waits; where nobody looks at the page, until somebody does. */
async function pause(milliseconds, signal, clock) {
  await new Promise((go) => {
    const timer = setTimeout(go, milliseconds);
    clock.wake = () => {
      clearTimeout(timer);
      go();
    };
    signal.addEventListener("abort", clock.wake, { once: true });
  });
  while (document.hidden && !signal.aborted) {
    await new Promise((go) => {
      document.addEventListener("visibilitychange", go, { once: true });
      signal.addEventListener("abort", go, { once: true });
    });
  }
}
