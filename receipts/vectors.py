"""Runs test vectors of AIR v1: ours, the published ones, and anyone's own in the public form.

A file holds one vector or a JSON list of them; spec/interop.md has the fields.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ..wire.errors import ConfigurationError, MalformedError
from .policy import ReceiptPolicy
from .verify import Verification, verify_receipt

# Published vectors name no time of verification; this is the date they were made, a year after their iat.
DEFAULT_NOW: Final = 1_772_000_000
MAX_FILE_BYTES: Final = 1 << 28
_HEX_POLICY: Final = {
    "expected_nonce_hex": "expected_nonce",
    "expected_model_hash_hex": "expected_model_hash",
    "expected_request_hash_hex": "expected_request_hash",
    "expected_response_hash_hex": "expected_response_hash",
    "expected_attestation_doc_hash_hex": "expected_attestation_doc_hash",
}
_PLAIN_POLICY: Final = {
    "expected_model_id": "expected_model_id",
    "expected_platform": "expected_platform",
    "max_age_secs": "max_age_s",
    "clock_skew_secs": "skew_s",
    "security_modes": "security_modes",
}
_UNUSABLE: Final = (ValueError, KeyError, TypeError, AttributeError, ConfigurationError, RecursionError)


@dataclass(frozen=True, slots=True)
class VectorResult:
    """One vector: what was expected of it and what came out.

    :param layer: first failed layer, None when sound. :param code: first failed code, empty when sound.
    :param passed: whether that is the same, or None when the vector expects nothing. It also needs the
        vector's check to be the first that failed, where the vector names one.
    """

    name: str
    passed: bool | None
    expected_layer: int | None
    expected_code: str
    layer: int | None
    code: str
    verification: Verification


def run_vectors(path: Path | str) -> Iterator[VectorResult]:
    """Verify every vector of a file or of a folder's ``*.json`` (subfolders too), in the order of names.

    :raises ConfigurationError: ``NO_VECTORS`` when there is none.
    :raises MalformedError: ``BAD_VECTOR`` when a file or an entry of its list is not a vector; those
        before it have been judged by then.
    """
    root = Path(path)
    files = [root] if root.is_file() else sorted(root.rglob("*.json"))
    if not files:
        raise ConfigurationError("NO_VECTORS", "there are no *.json vectors")
    for file in files:
        yield from _run_file(file)


def _run_file(file: Path) -> Iterator[VectorResult]:
    try:
        if file.stat().st_size > MAX_FILE_BYTES:
            raise MalformedError("BAD_VECTOR", f"{file.name} has more than {MAX_FILE_BYTES} bytes")
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        raise MalformedError("BAD_VECTOR", f"{file.name} is no JSON file that can be read") from None
    vectors = content if isinstance(content, list) else [content]
    if not vectors:
        raise MalformedError("BAD_VECTOR", f"{file.name} is an empty list")
    for number, vector in enumerate(vectors, start=1):
        try:
            result = _run(vector, file.stem if vector is content else f"{file.stem}#{number}")
        except _UNUSABLE:
            raise MalformedError(
                "BAD_VECTOR", f"number {number} of {file.name} is not a vector of AIR v1"
            ) from None
        yield result


def _run(vector: Mapping[str, object], unnamed: str) -> VectorResult:
    receipt = bytes.fromhex(_text(vector["receipt_hex"]))
    public_key = bytes.fromhex(_text(vector.get("wrong_public_key_hex") or vector["public_key_hex"]))
    policy = _policy(vector.get("verify_policy"))
    expected = _expected(vector)
    layer, check, code = expected or (None, "", "")
    now = vector.get("now", DEFAULT_NOW)
    found = verify_receipt(receipt, public_key, policy, now)  # type: ignore[arg-type]
    first = next((one for one in found.checks if one.status == "failed"), None)
    found_code = first.code if first else ""
    matches = (found.failed_layer, found_code) == (layer, code) and found.passed == (layer is None)
    matches = matches and (check == "" or first is None or first.name == check)
    name = str(vector.get("name") or unnamed)
    verdict = matches if expected else None
    return VectorResult(name, verdict, layer, code, found.failed_layer, found_code, found)


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError("not a text")
    return value


def _expected(vector: Mapping[str, object]) -> tuple[int | None, str, str] | None:
    """Return layer, check and code; layer None is sound. None: the vector expects nothing."""
    expected = vector.get("expected") or vector.get("expected_failure")
    if expected is None:
        return (None, "", "") if "expected_verification" in vector else None
    if not isinstance(expected, dict):
        raise TypeError("an expectation is a map")
    if "code" in expected:
        return int(expected["layer"]), str(expected.get("check", "")), str(expected["code"])
    if expected.get("verdict") != "sound":
        raise ValueError("what is unsound names its layer and code")
    return None, "", ""


def _policy(wanted: object) -> ReceiptPolicy:
    if wanted is None:
        return ReceiptPolicy()
    if not isinstance(wanted, dict):
        raise TypeError("a policy is a map")
    values: dict[str, object] = {}
    for name, value in wanted.items():
        if value is None:
            continue
        if name in _HEX_POLICY:
            values[_HEX_POLICY[name]] = bytes.fromhex(_text(value))
        else:
            values[_PLAIN_POLICY[name]] = tuple(value) if isinstance(value, list) else value
    return ReceiptPolicy(**values)  # type: ignore[arg-type]
