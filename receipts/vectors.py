"""Runs test vectors of AIR v1: those of spec/vectors/air-v1, and the published ones of the format."""

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


@dataclass(frozen=True, slots=True)
class VectorResult:
    """One vector: what was expected of it and what came out.

    :param layer: first failed layer, None when sound. :param code: first failed code, empty when sound.
    ``passed`` also needs the vector's check to be the first that failed, where the vector names one.
    """

    name: str
    passed: bool
    expected_layer: int | None
    expected_code: str
    layer: int | None
    code: str
    verification: Verification


def run_vectors(path: Path | str) -> Iterator[VectorResult]:
    """Verify every ``*.json`` vector of a file or folder (subfolders too), in the order of their names.

    :raises ConfigurationError: ``NO_VECTORS`` when there is none.
    :raises MalformedError: ``BAD_VECTOR`` when a file is not a vector.
    """
    root = Path(path)
    files = [root] if root.is_file() else sorted(root.rglob("*.json"))
    if not files:
        raise ConfigurationError("NO_VECTORS", "there are no *.json vectors")
    for file in files:
        yield _run(file)


def _run(file: Path) -> VectorResult:
    try:
        vector = json.loads(file.read_text(encoding="utf-8"))
        receipt = bytes.fromhex(vector["receipt_hex"])
        public_key = bytes.fromhex(vector.get("wrong_public_key_hex") or vector["public_key_hex"])
        policy = _policy(vector.get("verify_policy", {}))
        layer, check, code = _expected(vector)
        now = int(vector.get("now", DEFAULT_NOW))
        name = str(vector["name"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError, ConfigurationError):
        raise MalformedError("BAD_VECTOR", f"{file.name} is not a vector of AIR v1") from None
    found = verify_receipt(receipt, public_key, policy, now)
    first = next((one for one in found.checks if one.status == "failed"), None)
    found_code = first.code if first else ""
    matches = (found.failed_layer, found_code) == (layer, code) and found.passed == (layer is None)
    matches = matches and (check == "" or first is None or first.name == check)
    return VectorResult(name, matches, layer, code, found.failed_layer, found_code, found)


def _expected(vector: Mapping[str, object]) -> tuple[int | None, str, str]:
    expected = vector.get("expected", vector.get("expected_failure"))
    if isinstance(expected, dict) and "code" in expected:
        return int(expected["layer"]), str(expected.get("check", "")), str(expected["code"])
    if expected is None and "expected_verification" not in vector:
        raise ValueError("a vector states what is expected")
    return None, "", ""


def _policy(wanted: Mapping[str, object]) -> ReceiptPolicy:
    values: dict[str, object] = {}
    for name, value in wanted.items():
        if name in _HEX_POLICY:
            values[_HEX_POLICY[name]] = bytes.fromhex(str(value))
        else:
            values[_PLAIN_POLICY[name]] = tuple(value) if isinstance(value, list) else value
    return ReceiptPolicy(**values)  # type: ignore[arg-type]
