// Asks the gateway that served this page, with the user's API key. The key goes into a header only: never
// into an address, a cookie, or storage that outlives the tab.

const SLOT = "ephemeralml.key";
const ADVICE = {
  UNAUTHENTICATED: "The key is wrong, expired or revoked. Sign out and enter another, or ask your operator for one.",
  SCOPE_MISSING: "Ask your operator for a key with this scope: ephemeralml gateway keys create TENANT --scopes …",
  RATE_LIMITED: "This page waits and asks again by itself.",
  BATCH_NOT_FOUND: "It may have been deleted, or belongs to another tenant. Go back to the list.",
  WEBHOOKS_OFF: "The operator has not set webhooks up for this gateway.",
  STORE_UNAVAILABLE: "The gateway cannot reach its database. This page asks again by itself.",
  BLOB_STORE_UNAVAILABLE: "The gateway cannot reach its blob store. This page asks again by itself.",
};
let key = sessionStorage.getItem(SLOT);
let identity = null;

export class ApiError extends Error {
  constructor(code, message, wait = 0) {
    super(message);
    this.code = code;
    this.wait = wait;
    this.advice = ADVICE[code] ?? "";
  }
}

export const signedIn = () => key !== null;
export const who = () => identity;
export const may = (scope) => identity?.scopes.includes(scope) ?? false;

export async function signIn(given, remember) {
  key = given;
  try {
    await learn();
  } catch (error) {
    key = null;
    throw error;
  }
  if (remember) sessionStorage.setItem(SLOT, given);
}

export function signOut() {
  key = null;
  identity = null;
  sessionStorage.removeItem(SLOT);
}

/** Learns whose key it is. */
export async function learn() {
  identity = await get("/v1/me");
}

export async function ask(path, { method = "GET", signal, accept = "application/json" } = {}) {
  let answer;
  try {
    // Relative to the page, so that a proxy in front may have moved gateway and page together.
    answer = await fetch(`..${path}`, {
      method,
      signal,
      headers: { Authorization: `Bearer ${key}`, Accept: accept },
      credentials: "omit",
      cache: "no-store",
      redirect: "error",
      referrerPolicy: "no-referrer",
    });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    const failure = new ApiError("", "The gateway does not answer.");
    failure.advice = "Is it running, and is this machine online? This page asks again by itself.";
    throw failure;
  }
  if (answer.ok) return answer;
  const problem = await answer.json().catch(() => ({}));
  const wait = Number(answer.headers.get("Retry-After")) || 0;
  throw new ApiError(String(problem.code ?? answer.status), String(problem.detail ?? "The gateway refused."), wait);
}

export async function get(path, signal) {
  return (await ask(path, { signal })).json();
}

/** Returns up to `most` objects of a stream of JSON lines, and whether there may be more. */
export async function lines(path, most, signal) {
  const answer = await ask(path, { signal, accept: "application/x-ndjson" });
  const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
  const found = [];
  let held = "";
  for (;;) {
    const { value, done } = await reader.read();
    held += value ?? "";
    const parts = held.split("\n");
    held = parts.pop();
    found.push(...parts.filter(Boolean).map((part) => JSON.parse(part)));
    if (done) return { found, more: false };
    if (found.length >= most) {
      await reader.cancel();
      return { found: found.slice(0, most), more: true };
    }
  }
}
