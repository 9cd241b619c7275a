"""The page's verifier as a person uses it, and that nothing leaves the machine meanwhile."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ephemeralml.wire.encoding import sha256

from .conftest import HOSTILE, Shown
from .test_verifier import load

if TYPE_CHECKING:
    from playwright.sync_api import FilePayload, Page

JOB = "00112233445566778899aabbccddeeff"


def payload(name: str, data: bytes) -> FilePayload:
    """Return a file as a browser takes it from a test."""
    return {"name": name, "mimeType": "application/octet-stream", "buffer": data}


def put(page: Page, *files: tuple[str, bytes]) -> None:
    """Choose files as if they were dropped."""
    page.locator("#drop-input").set_input_files([payload(name, data) for name, data in files])


def opened(page: Page, shown: Shown) -> list[str]:
    """Open the verifier; return the list that every later request is written to."""
    page.goto(f"{shown.url}#/receipt")
    page.get_by_role("heading", name="Verify a receipt").wait_for()
    page.wait_for_load_state("networkidle")
    seen: list[str] = []
    page.context.on("request", lambda request: seen.append(request.url))
    return seen


def vector(name: str = "ok-nitro-all-slots.json") -> tuple[bytes, dict[str, Any]]:
    found = load(name)
    return bytes.fromhex(found["receipt_hex"]), found


def results(key: str, job: str = JOB) -> bytes:
    """Return a results file as `ephemeralml results` writes it, with other lines around."""
    lines = [
        {"id": "a", "job_id": "ff" * 16, "status": "failed", "code": "X"},
        {"id": "b", "job_id": "ee" * 16, "status": "succeeded", "receipt_key": "11" * 32},
        {"id": "c", "job_id": job, "status": "succeeded", "receipt_key": key},
    ]
    return b"".join(json.dumps(line).encode() + b"\n" for line in lines) + b'{"receipt_key": cut'


def test_dropped_with_its_results_it_is_verified_and_nothing_is_asked(page: Page, shown: Shown) -> None:
    requests = opened(page, shown)
    receipt, found = vector()
    put(page, (f"{JOB}.air", receipt), ("texts.jsonl.results.jsonl", results(found["public_key_hex"])))
    verdict = page.locator("#verdict")
    verdict.wait_for()
    assert (verdict.get_attribute("data-verdict"), verdict.get_attribute("data-level")) == (
        "sound",
        "signature",
    )
    said = page.locator("#report").inner_text()
    for name in ("EVIDENCE", "KEY_BINDING", "REQUEST", "RESPONSE", "MHASH", "REPLAY", "FRESH"):
        assert name in said.split("Not checked here")[1].split("Every check")[0]
    assert sha256(receipt).hex() in said
    assert found["claims"]["model_id"] in said if "claims" in found else "minilm" in said
    assert f"ephemeralml verify receipt {JOB}.air" in said
    assert requests == []


def test_bound_when_held_against_request_response_and_model(page: Page, shown: Shown) -> None:
    requests = opened(page, shown)
    receipt, found = vector("ok-everything-expected.json")
    policy = found["verify_policy"]
    page.get_by_text("What else to hold it against").click()
    page.get_by_label("Receipt key").fill(found["public_key_hex"])
    for label, name in (("Request", "request"), ("Response", "response"), ("Model", "model")):
        page.get_by_label(label, exact=True).fill(policy[f"expected_{name}_hash_hex"])
    page.get_by_label("Nonce").fill(policy["expected_nonce_hex"])
    put(page, ("x.air", receipt))
    page.locator('#verdict[data-level="bound"]').wait_for()
    page.get_by_label("Request", exact=True).fill("00" * 32)
    page.get_by_role("button", name="Verify", exact=True).click()
    page.locator('#verdict[data-verdict="unsound"]').wait_for()
    assert "REQUEST_HASH_MISMATCH" in page.locator("#verdict").inner_text()
    page.get_by_label("Hash a request file").set_input_files(payload("request.bin", b"a request"))
    page.locator("#request").and_(page.locator(":not(:focus)")).wait_for()
    for _ in range(100):
        if page.locator("#request").input_value() == sha256(b"a request").hex():
            break
        page.wait_for_timeout(50)
    assert page.locator("#request").input_value() == sha256(b"a request").hex()
    assert requests == []


def test_refused_says_why_and_shows_no_claim(page: Page, shown: Shown) -> None:
    opened(page, shown)
    receipt, found = vector()
    put(
        page,
        ("key.hex", found["public_key_hex"].encode()),
        ("bad.air", receipt[:-1] + bytes([receipt[-1] ^ 1])),
    )
    verdict = page.locator('#verdict[data-verdict="unsound"]')
    verdict.wait_for()
    assert "SIG_FAILED" in verdict.inner_text()
    said = page.locator("#report").inner_text()
    assert "What the receipt says" not in said
    assert "minilm" not in said


def test_evidence_is_compared_by_its_hash_only(page: Page, shown: Shown) -> None:
    opened(page, shown)
    receipt, found = vector()
    put(
        page,
        ("k.hex", found["public_key_hex"].encode()),
        ("aa.evidence", b"not this one"),
        ("r.air", receipt),
    )
    page.locator('#verdict[data-verdict="unsound"]').wait_for()
    assert "ATTESTATION_DOC_HASH_MISMATCH" in page.locator("#verdict").inner_text()


def test_what_is_missing_is_asked_for(page: Page, shown: Shown) -> None:
    opened(page, shown)
    page.get_by_role("button", name="Verify", exact=True).click()
    page.get_by_text("Which receipt?").wait_for()
    put(page, ("r.air", vector()[0]))
    page.get_by_text("Whose key?").wait_for()
    page.get_by_label("Receipt key").fill("12")
    page.get_by_role("button", name="Verify", exact=True).click()
    page.get_by_text("A receipt key has 64 hexadecimal digits.").wait_for()
    # Another job's key is not taken for this receipt's.
    put(page, ("r.jsonl", results("22" * 32)))
    page.get_by_text("results, 2 of them with a receipt key").wait_for()
    assert page.get_by_label("Receipt key").input_value() == "12"


def test_names_of_files_are_text(page: Page, shown: Shown) -> None:
    opened(page, shown)
    receipt, found = vector()
    put(page, ("k.hex", found["public_key_hex"].encode()), (HOSTILE.replace("/", "_") + "; rm.air", receipt))
    page.locator("#verdict").wait_for()
    assert page.locator("main img").count() == 0
    assert "ephemeralml verify receipt FILE" in page.locator("#report").inner_text()
    assert page.title() == "Verify a receipt · EphemeralML"


def test_browser_without_ed25519_is_told(page: Page, shown: Shown) -> None:
    page.add_init_script(
        "crypto.subtle.importKey = () => Promise.reject(new DOMException('no', 'NotSupportedError'))"
    )
    opened(page, shown)
    receipt, found = vector()
    put(page, ("k.hex", found["public_key_hex"].encode()), ("r.air", receipt))
    page.get_by_text("This browser cannot verify receipts.").wait_for()
    assert page.locator("#verdict").count() == 0


def test_a_file_that_is_dropped(page: Page, shown: Shown) -> None:
    """A drop, not only a choice; and beside the place it does not make the browser leave."""
    opened(page, shown)
    receipt, found = vector()
    page.get_by_label("Receipt key").fill(found["public_key_hex"])
    drop = """([selector, bytes]) => {
      const data = new DataTransfer();
      data.items.add(new File([Uint8Array.from(bytes)], "r.air"));
      const event = new DragEvent("drop", { dataTransfer: data, bubbles: true, cancelable: true });
      return document.querySelector(selector).dispatchEvent(event);
    }"""
    assert page.evaluate(drop, ["footer", [1]]) is False
    page.evaluate(drop, ["#drop", list(receipt)])
    page.locator('#verdict[data-verdict="sound"]').wait_for()


def test_assets_hold_no_address_of_elsewhere() -> None:
    from .conftest import asset_folder

    profile = "https://spec.cyntrisec.com/air/v1"
    for path in sorted(Path(asset_folder()).iterdir()):
        text = path.read_text().replace(profile, "").replace("http://www.w3.org/2000/svg", "")
        assert "://" not in text, path.name
        for word in (
            "innerHTML",
            "outerHTML",
            "insertAdjacentHTML",
            "document.write",
            "eval(",
            "localStorage",
        ):
            assert word not in text, path.name
