"""The parts of the console as users meet them, over a real gateway."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

import pytest

from .conftest import HOSTILE, LETTER, Shown, sign_in

if TYPE_CHECKING:
    from playwright.sync_api import Page, Route

PARTS = ("batches", "fleet", "dead-letters", "webhooks", "receipt")


def go(page: Page, shown: Shown, part: str) -> None:
    """Show a part of the page, which stays where it is."""
    page.goto(f"{shown.url}#/{part}")


def test_a_key_is_asked_for_and_goes_nowhere_but_into_headers(page: Page, shown: Shown) -> None:
    addresses: list[str] = []
    page.on("request", lambda request: addresses.append(request.url))
    page.goto(shown.url)
    page.get_by_label("API key").fill("eml_wrong")
    page.get_by_role("button", name="Sign in").click()
    page.get_by_text("UNAUTHENTICATED").wait_for()
    page.get_by_label("API key").fill(shown.reader)
    page.get_by_role("button", name="Sign in").click()
    page.get_by_role("link", name=re.compile("^batch_")).first.wait_for()
    kept = "[{...localStorage}, {...sessionStorage}, document.cookie]"
    assert page.evaluate(kept) == [{}, {}, ""]
    assert not [address for address in addresses if shown.reader in address or "eml_" in address]
    assert all(address.startswith(shown.gateway.url) for address in addresses)
    # Not kept unless that was asked for, and then until the tab or the session ends.
    page.reload()
    page.get_by_label("API key").fill(shown.reader)
    page.get_by_label("Keep it until this tab is closed").check()
    page.get_by_role("button", name="Sign in").click()
    page.get_by_text("acme", exact=True).wait_for()
    page.reload()
    page.get_by_role("link", name=re.compile("^batch_")).first.wait_for()
    page.get_by_role("button", name="Sign out").click()
    page.get_by_label("API key").wait_for()
    assert page.evaluate(kept) == [{}, {}, ""]


def test_batches_one_of_them_and_its_ends(page: Page, shown: Shown) -> None:
    sign_in(page, shown, shown.reader)
    row = page.get_by_role("row").filter(has_text=shown.running.name[:18])
    row.wait_for()
    assert "in progress" in row.inner_text()
    said = row.get_by_role("progressbar").get_attribute("aria-valuetext")
    assert said == "330 of 500 jobs have ended: 310 succeeded, 12 failed, 8 expired"
    row.get_by_role("link").click()
    page.get_by_text("nightly").wait_for()
    assert page.evaluate("document.activeElement.tagName") == "H1"
    tiles = page.locator(".tile").all_inner_texts()
    wanted = [(310, "succeeded"), (12, "failed"), (8, "expired"), (0, "cancelled"), (0, "rejected")]
    assert [tile.split() for tile in tiles] == [
        [str(count), end] for count, end in [*wanted, (170, "pending")]
    ]
    page.get_by_text("100 ends shown.").wait_for()
    for count in (200, 300, 330):
        page.get_by_role("button", name="Show more").click()
        page.get_by_text(f"{count} ends shown").wait_for()
    cells = page.get_by_role("row").last.get_by_role("cell").all_inner_texts()
    assert cells[:4] == ["329", "item-329", "expired", "EXPIRED"]
    created = page.locator("dd time").first
    title = created.get_attribute("title") or ""
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.000Z", title)
    # Vienna is not Greenwich: what is read is the user's own time.
    assert title[11:13] not in created.inner_text().split(", ")[1][:2]
    assert page.get_by_role("button", name="Cancel batch…").count() == 0
    go(page, shown, f"batches/{shown.done.name}")
    page.get_by_text(bytes(range(32)).hex()).wait_for()
    go(page, shown, "batches/batch_../../v1/me")
    page.get_by_text("This is no name of a batch.").wait_for()
    go(page, shown, "batches/batch_" + "0" * 32)
    page.get_by_text("there is no such batch").first.wait_for()


def test_strings_from_the_gateway_are_text(page: Page, shown: Shown) -> None:
    sign_in(page, shown, shown.operator)
    go(page, shown, f"batches/{shown.hostile.name}")
    page.get_by_text("who <b>").wait_for()
    page.get_by_text(shown.hostile.custom_ids[1]).wait_for()
    for part in ("fleet", "webhooks"):
        go(page, shown, part)
        page.get_by_text(HOSTILE[:90]).first.wait_for()
    assert page.locator("main img, main script").count() == 0

    def poison(route: Route) -> None:
        """Answer as a hostile gateway would: markup in every string but the names of things."""
        answered = route.fetch()
        lines = [json.dumps(poisoned(json.loads(line))) for line in answered.text().splitlines()]
        route.fulfill(response=answered, body="\n".join(lines))

    page.route("**/v1/**", poison)
    for part in ("batches", f"batches/{shown.running.name}", "fleet", "dead-letters", "webhooks"):
        go(page, shown, part)
        page.get_by_text("<img src=x").first.wait_for()
        assert page.locator("main img, main script").count() == 0
    assert "owned" not in page.title()


def poisoned(value: Any) -> Any:
    """Return an answer with markup in all its strings."""
    if isinstance(value, dict):
        # A link is made of an id, and it stays within the page.
        return {name: each if name in ("id", "last_id") else poisoned(each) for name, each in value.items()}
    if isinstance(value, list):
        return [poisoned(each) for each in value]
    return HOSTILE if isinstance(value, str) else value


def test_cancel_needs_the_scope_and_a_second_thought(page: Page, shown: Shown) -> None:
    sign_in(page, shown, shown.writer)
    go(page, shown, f"batches/{shown.hostile.name}")
    page.get_by_role("button", name="Cancel batch…").click()
    page.get_by_role("button", name="Keep it running").click()
    assert page.locator("dialog").count() == 0
    page.get_by_role("button", name="Cancel batch…").click()
    page.get_by_role("button", name="Cancel batch", exact=True).click()
    page.locator(".head .badge", has_text="cancelling").wait_for()
    assert page.get_by_role("button", name="Cancel batch…").count() == 0
    go(page, shown, f"batches/{shown.done.name}")
    page.locator(".head .badge", has_text="completed").wait_for()
    assert page.get_by_role("button", name="Cancel batch…").count() == 0


def test_fleet_says_that_nothing_is_verified(page: Page, shown: Shown) -> None:
    sign_in(page, shown, shown.reader)
    go(page, shown, "fleet")
    card = page.get_by_role("article").filter(has_text="all-MiniLM-L6-v2")
    card.wait_for()
    page.get_by_text("Announced, not verified here.").wait_for()
    for words in ("not verified", "simulated", "evaluation", "Valid until"):
        assert words in card.inner_text()
    card.get_by_text("Measurements and keys").click()
    card.get_by_text("PCR2").wait_for()
    assert shown.receipt_key.hex() in card.inner_text()
    assert "ephemeralml verify evidence FILE" in card.inner_text()
    with page.expect_download() as saved:
        card.get_by_role("button", name="Save evidence").click()
    from ephemeralml.wire.encoding import sha256

    path = saved.value.path()
    assert saved.value.suggested_filename == sha256(path.read_bytes()).hex() + ".evidence"


def test_dead_letters_are_for_operators(page: Page, shown: Shown) -> None:
    sign_in(page, shown, shown.operator)
    go(page, shown, "dead-letters")
    page.get_by_text("TOO_MANY_DELIVERIES").wait_for()
    assert LETTER.id[:16] in page.locator("main").inner_text()
    page.get_by_role("button", name="Sign out").click()
    sign_in(page, shown, shown.reader)
    go(page, shown, "dead-letters")
    page.get_by_text("Only operators see dead letters.").wait_for()


def test_webhook_deliveries(page: Page, shown: Shown) -> None:
    sign_in(page, shown, shown.reader)
    go(page, shown, "webhooks")
    page.get_by_role("heading", name="https://hooks.example.com/ephemeralml").wait_for()
    said = page.get_by_role("table").inner_text()
    for words in ("delivered", "HTTP 200", "HTTP 503", "HTTP_503", "pending"):
        assert words in said


def test_a_gateway_that_is_gone_is_said_and_asked_again(page: Page, shown: Shown) -> None:
    page.clock.install()
    sign_in(page, shown, shown.reader)
    page.get_by_role("link", name=re.compile("^batch_")).first.wait_for()
    page.route("**/v1/batches**", lambda route: route.abort())
    page.clock.fast_forward(6000)
    page.get_by_text("The gateway does not answer.").wait_for()
    assert page.get_by_role("link", name=re.compile("^batch_")).count() > 0  # what was seen stays
    page.unroute("**/v1/batches**")
    page.clock.fast_forward(6000)
    page.get_by_text("The gateway does not answer.").wait_for(state="detached")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_narrow_screens_and_contrast(page: Page, shown: Shown, scheme: str) -> None:
    page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
    page.set_viewport_size({"width": 360, "height": 700})
    sign_in(page, shown, shown.operator)
    for part in (*PARTS, f"batches/{shown.running.name}"):
        go(page, shown, part)
        page.locator("main h1").wait_for()
        page.wait_for_load_state("networkidle")
        assert page.evaluate("document.documentElement.scrollWidth") <= 360, part
        assert page.evaluate(CONTRAST) >= 4.5, part


def test_the_keyboard_is_enough(page: Page, shown: Shown) -> None:
    page.goto(shown.url)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "skip"
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    page.keyboard.type(shown.reader)
    page.keyboard.press("Enter")
    page.get_by_role("link", name=re.compile("^batch_")).first.wait_for()
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.get_by_role("heading", name="Batch", exact=True).wait_for()
    assert json.loads(page.evaluate("JSON.stringify(location.hash)")).startswith("#/batches/batch_")


#: The least contrast of any text with the nearest ground behind it (WCAG 2.2, 1.4.3).
CONTRAST = """() => {
  const light = (colour) => {
    const parts = colour.match(/[\\d.]+/g).slice(0, 3).map((part) => part / 255);
    const [r, g, b] = parts.map((part) => (part <= 0.03928 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ground = (node) => {
    for (; node; node = node.parentElement) {
      const colour = getComputedStyle(node).backgroundColor;
      if (!/, 0\\)$/.test(colour)) return colour;
    }
    return "rgb(255, 255, 255)";
  };
  const ratios = [...document.querySelectorAll("body *")]
    .filter((node) => [...node.childNodes].some((child) => child.nodeType === 3 && child.data.trim()))
    .filter((node) => node.checkVisibility())
    .map((node) => [light(getComputedStyle(node).color), light(ground(node))])
    .map(([one, other]) => (Math.max(one, other) + 0.05) / (Math.min(one, other) + 0.05));
  return Math.min(...ratios);
}"""
