"""The page an officer reads: complete, self-contained, and not written by the receipt's signer."""

from __future__ import annotations

from dataclasses import replace
from html.parser import HTMLParser

import pytest

from ephemeralml.receipts.checks import Verification
from ephemeralml.receipts.issue import issue
from ephemeralml.receipts.report import LIMITS
from ephemeralml.receipts.report_html import to_html
from ephemeralml.receipts.verify import assess, verify_receipt

from .samples import CLAIMS, EVALUATION, KEY, NOW, POLICY, PUBLIC, appraisal, evidence

RECEIPT = issue(CLAIMS, KEY)
CASES = [
    assess(RECEIPT, PUBLIC, POLICY, NOW, verified_evidence=evidence(), appraisal=appraisal()),
    verify_receipt(RECEIPT, PUBLIC, POLICY, NOW),
    verify_receipt(RECEIPT, PUBLIC, None, NOW),
    verify_receipt(issue(EVALUATION, KEY), PUBLIC, None, NOW),
    verify_receipt(b"", PUBLIC, None, NOW),
]
ALLOWED = {
    *("html", "head", "meta", "title", "style", "body", "h1", "h2", "h3", "small", "code", "div", "b", "p"),
    *("ul", "li", "table", "tr", "td", "br"),
}
VOID = {"meta", "br"}


class Page(HTMLParser):
    """Collects the text and checks that tags are known and closed."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.words: list[str] = []
        self.feed(page)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in ALLOWED
        assert {name for name, _ in attrs} <= {"class", "lang", "charset", "http-equiv", "content", "name"}
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)


def text_of(found: Verification) -> str:
    return "".join(Page(to_html(found, judged_at=NOW)).words)


@pytest.mark.parametrize("found", CASES)
def test_the_page_says_everything(found: Verification) -> None:
    text = text_of(found)
    assert found.verdict.capitalize() in text
    assert found.receipt_hash.hex() in text
    assert "25 February 2025" in text
    assert all(limit in text for limit in LIMITS)
    assert all(check.name in text and check.detail in text for check in found.checks)
    assert all(code in text for code in found.codes)
    assert ("What was not checked, and why" in text) == any(
        check.status in ("skipped", "not_run") for check in found.checks
    )


@pytest.mark.parametrize("found", CASES)
def test_nothing_is_loaded_from_elsewhere(found: Verification) -> None:
    page = to_html(found).lower()
    for word in (
        "<script",
        "<link",
        "<img",
        "<iframe",
        "src=",
        "href=",
        "url(",
        "@import",
        "http://",
        "https://",
    ):
        assert word not in page
    assert "default-src 'none'" in page


def test_a_signer_cannot_write_html() -> None:
    nasty = replace(CLAIMS, iss="<script>alert(1)</script>\"'&", model_id="\u202eevil\n<b onclick=x>")
    for policy in (None, POLICY):
        page = to_html(verify_receipt(issue(nasty, KEY), PUBLIC, policy, NOW))
        Page(page)
        assert "<script" not in page
        assert "<b onclick" not in page
        assert "\u202e" not in page
        assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page


def test_any_time_can_be_shown() -> None:
    far = issue(replace(CLAIMS, iat=(1 << 64) - 1), KEY)
    assert "18446744073709551615 s after 1970" in to_html(verify_receipt(far, PUBLIC, None, NOW))
