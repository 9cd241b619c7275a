"""The browser's verifier says what the Python verifier says: every check, code and word, on everything."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ephemeralml.receipts import vectors
from ephemeralml.receipts.checks import CHECKS, LAYERS
from ephemeralml.receipts.policy import ReceiptPolicy
from ephemeralml.receipts.report import LIMITS
from ephemeralml.receipts.report_html import _CHECK_WORDS, _CLAIM_WORDS
from ephemeralml.receipts.verify import Verification, verify_receipt
from ephemeralml.wire.encoding import decode, encode
from ephemeralml.wire.errors import MalformedError

from .conftest import Shown

if TYPE_CHECKING:
    from playwright.sync_api import Page

VECTORS = Path(__file__).parents[2] / "spec" / "vectors" / "air-v1"
POLICY = {
    "expected_nonce_hex": "nonce",
    "expected_model_hash_hex": "modelHash",
    "expected_request_hash_hex": "requestHash",
    "expected_response_hash_hex": "responseHash",
    "expected_attestation_doc_hash_hex": "attestationDocHash",
    "expected_model_id": "modelId",
    "expected_platform": "platform",
    "max_age_secs": "maxAge",
    "clock_skew_secs": "skew",
    "security_modes": "securityModes",
}
VERIFY = """async (cases) => {
  const { verifyReceipt } = await import("/console/air.js");
  const { fromHex } = await import("/console/cbor.js");
  const found = [];
  for (const { receipt, key, policy, hex, now } of cases) {
    const wanted = { ...policy };
    for (const [name, value] of Object.entries(hex)) wanted[name] = fromHex(value);
    const { claims, ...report } = await verifyReceipt(fromHex(receipt), fromHex(key), wanted, now);
    found.push(report);
  }
  return found;
}"""
DECODE = """async (items) => {
  const { decode, fromHex } = await import("/console/cbor.js");
  return items.map((item) => {
    try { decode(fromHex(item)); return ""; } catch (error) { return error.code ?? String(error); }
  });
}"""


def case_of(vector: dict[str, Any]) -> dict[str, Any]:
    """Return a vector as the browser takes it."""
    given = {name: value for name, value in (vector.get("verify_policy") or {}).items() if value is not None}
    return {
        "receipt": vector["receipt_hex"],
        "key": vector.get("wrong_public_key_hex") or vector["public_key_hex"],
        "policy": {POLICY[name]: value for name, value in given.items() if not name.endswith("_hex")},
        "hex": {POLICY[name]: value for name, value in given.items() if name.endswith("_hex")},
        "now": vector.get("now", vectors.DEFAULT_NOW),
    }


def expected(found: Verification) -> dict[str, Any]:
    """Return a verification as the browser states one."""
    return {
        "checks": [
            {
                "layer": check.layer,
                "name": check.name,
                "code": check.code,
                "status": check.status,
                "detail": check.detail,
            }
            for check in found.checks
        ],
        "verdict": found.verdict,
        "level": found.level,
        "bound": found.bound,
        "codes": list(found.codes),
        "failedLayer": found.failed_layer,
        "receiptHash": found.receipt_hash.hex(),
    }


def load(name: str) -> dict[str, Any]:
    value: dict[str, Any] = json.loads((VECTORS / name).read_text())
    return value


def test_all_vectors_agree_in_every_check(page: Page, shown: Shown) -> None:
    page.goto(f"{shown.url}#/receipt")
    files = sorted(VECTORS.glob("*.json"))
    assert len(files) >= 180
    found = page.evaluate(VERIFY, [case_of(load(file.name)) for file in files])
    for file, browsers in zip(files, found, strict=True):
        (ours,) = vectors.run_vectors(file)
        assert ours.passed, file.name
        assert browsers == expected(ours.verification), file.name


def test_changed_receipts_agree(page: Page, shown: Shown) -> None:
    """Bytes changed, dropped, doubled: the same judgement, whatever it is."""
    page.goto(f"{shown.url}#/receipt")
    drawn = random.Random(8)  # noqa: S311 - the same every time
    vector = load("ok-everything-expected.json")
    good, key = bytes.fromhex(vector["receipt_hex"]), bytes.fromhex(vector["public_key_hex"])
    receipts = []
    for _ in range(600):
        place, value = drawn.randrange(len(good)), drawn.randrange(256)
        kept = good[:place], good[place + 1 :]
        receipts.append(
            drawn.choice(
                (bytes([value]).join(kept), b"".join(kept), kept[0] + good[place:][:1] * 2 + kept[1])
            )
        )
    common = {"key": key.hex(), "policy": {}, "hex": {}, "now": vector["now"]}
    found = page.evaluate(VERIFY, [{"receipt": each.hex(), **common} for each in receipts])
    for receipt, browsers in zip(receipts, found, strict=True):
        ours = verify_receipt(receipt, key, ReceiptPolicy(), vector["now"])
        assert browsers == expected(ours), receipt.hex()
    assert {each["failedLayer"] for each in found} >= {1, 2}


def test_decoders_agree(page: Page, shown: Shown) -> None:
    """Random bytes, floats of all widths, and changed items: accepted and refused alike."""
    page.goto(f"{shown.url}#/receipt")
    drawn = random.Random(9)  # noqa: S311 - the same every time
    items = [drawn.randbytes(drawn.randrange(1, 12)) for _ in range(3000)]
    for initial, size in ((0xF9, 2), (0xFA, 4), (0xFB, 8)):
        items += [bytes([initial]) + drawn.randbytes(size) for _ in range(200)]
        short = [drawn.randbytes(2) + bytes(size - 2) for _ in range(100)]
        items += [bytes([initial]) + each for each in (*short, bytes(size), b"\x7e" + bytes(size - 1))]
    values: list[object] = [
        1.5,
        -0.0,
        1e300,
        65504.0,
        65505.0,
        2.0**-24,
        2.0**-25,
        float("inf"),
        float("nan"),
    ]
    values += [{b"a": 1, "a": 2, 1: 3, -1: [4, {}]}, 1 << 63, -(1 << 63), "é\ufeff", [None, True, False]]
    for value in map(encode, values):
        items.append(value)
        for _ in range(40):
            changed = bytearray(value)
            changed[drawn.randrange(len(value))] = drawn.randrange(256)
            items.append(bytes(changed))
    items.append(b"\x81" * 17 + b"\x00")
    items.append(b"\x81" * 16 + b"\x00")
    found = page.evaluate(DECODE, [each.hex() for each in items])
    for item, code in zip(items, found, strict=True):
        assert code == code_of(item), item.hex()
    assert len(set(found)) >= 8


def code_of(item: bytes) -> str:
    try:
        decode(item)
    except MalformedError as error:
        return error.code
    return ""


def test_names_and_words_are_the_same(page: Page, shown: Shown) -> None:
    page.goto(f"{shown.url}#/receipt")
    said = page.evaluate(
        """async () => {
          const { CHECKS, LAYERS } = await import("/console/air.js");
          const { CHECK_WORDS, CLAIM_WORDS, LIMITS } = await import("/console/words.js");
          return { CHECKS, LAYERS, CHECK_WORDS, CLAIM_WORDS, LIMITS };
        }"""
    )
    assert said["CHECKS"] == {str(layer): list(names) for layer, names in CHECKS.items()}
    assert said["LAYERS"] == {str(layer): name for layer, name in LAYERS.items()}
    assert said["CHECK_WORDS"] == dict(_CHECK_WORDS)
    assert said["CLAIM_WORDS"] == {
        key: word for key, word in _CLAIM_WORDS.items() if key != "measurement_type"
    }
    assert tuple(said["LIMITS"]) == LIMITS
