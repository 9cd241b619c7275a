"""Says in words what a verification found: text, JSON and Markdown.

A report names the assurance level that was reached, the checks that were skipped
and the limits of AIR v1, so that nobody reads more into a receipt than it proves.
JSON follows spec/receipt-report.cddl and spec/receipt-report.schema.json; the HTML
page is in :mod:`.report_html`.
"""

from __future__ import annotations

import json
from types import MappingProxyType
from typing import Final

from .checks import LAYERS, Check, Level, Verification
from .claims import Claims

REPORT_VERSION: Final = 1
LEVELS: Final = MappingProxyType[Level, str](
    {
        "none": "none: the receipt is not sound",
        "signature": "signature: the holder of the given key signed it; "
        "nothing is shown about where the key lives",
        "bound": "bound: signed, and about this request, this response and this model; "
        "nothing is shown about where the key lives",
        "provenance": "provenance: signed by a key of a TEE whose evidence is genuine and wanted",
    }
)
LIMITS: Final = (
    "A receipt does not prove that inputs or outputs were deleted.",
    "It does not prove that the model or its answer is correct or fair.",
    "Its time is the clock of the TEE's host, which nobody vouches for.",
    "Hashes of small inputs can be guessed, unless they were made with a secret salt.",
    "Sequence numbers start again with every worker and are no evidence against replay.",
    "It covers one inference and one CPU attestation document; evidence of a GPU travels beside it.",
)
_MARKS: Final = MappingProxyType(
    {"passed": "ok", "failed": "FAILED", "skipped": "skipped", "not_run": "not run"}
)


def to_json_value(verification: Verification) -> dict[str, object]:
    """Return the report as plain JSON values (spec/receipt-report.cddl)."""
    return {
        "report_version": REPORT_VERSION,
        "format": "air-v1",
        "verdict": verification.verdict,
        "level": verification.level,
        "bound": verification.bound,
        "codes": list(verification.codes),
        "receipt_sha256": verification.receipt_hash.hex(),
        "checks": [
            {
                "layer": check.layer,
                "layer_name": LAYERS[check.layer],
                "check": check.name,
                "status": check.status,
                "code": check.code,
                "detail": check.detail,
            }
            for check in verification.checks
        ],
        "claims": None if verification.claims is None else claims_values(verification.claims),
        "limits": list(LIMITS),
    }


def to_json(verification: Verification) -> str:
    """Return the report as JSON text, keys in a fixed order."""
    return json.dumps(to_json_value(verification), indent=2, ensure_ascii=False) + "\n"


def to_text(verification: Verification) -> str:
    """Return the report as plain lines, one per check."""
    lines = [f"receipt {verification.receipt_hash.hex()}", *_summary(verification), ""]
    for check in verification.checks:
        tail = "  ".join(part for part in (check.code, check.detail) if part)
        name = f"{check.layer} {LAYERS[check.layer]:<10}  {check.name:<20}"
        lines.append(f"{name}  {_MARKS[check.status]:<7}  {tail}".rstrip())
    lines += ["", "limits:", *(f"  {limit}" for limit in LIMITS)]
    return "\n".join(lines) + "\n"


def to_markdown(verification: Verification) -> str:
    """Return the report as Markdown with one table of checks."""
    lines = ["# Receipt verification", "", f"- receipt: `{verification.receipt_hash.hex()}`"]
    lines += [f"- {line}" for line in _summary(verification)]
    if verification.claims is not None:
        lines += ["", "## Claims", "", "| claim | value |", "|---|---|"]
        lines += [
            f"| {name} | {_cell(value)} |" for name, value in claims_values(verification.claims).items()
        ]
    lines += ["", "## Checks", "", "| layer | check | status | code | detail |", "|---|---|---|---|---|"]
    lines += [_row(check) for check in verification.checks]
    lines += ["", "## What a receipt does not prove", "", *(f"- {limit}" for limit in LIMITS)]
    return "\n".join(lines) + "\n"


def _summary(verification: Verification) -> list[str]:
    lines = [
        f"verdict: {verification.verdict}",
        f"assurance: {LEVELS[verification.level]}",
        f"held against request, response and model: {'yes' if verification.bound else 'no'}",
    ]
    if verification.codes:
        lines.append("failed: " + ", ".join(verification.codes))
    skipped = ", ".join(f"{LAYERS[check.layer]}/{check.name}" for check in verification.skipped)
    lines.append(f"skipped checks: {skipped or 'none'}")
    return lines


def claims_values(claims: Claims) -> dict[str, object]:
    """Return the claims as plain values in the order of a report, byte strings in hexadecimal."""
    measurements = claims.enclave_measurements
    values = {
        "iss": claims.iss,
        "iat": claims.iat,
        "cti": claims.cti,
        "eat_nonce": claims.eat_nonce,
        "model_id": claims.model_id,
        "model_version": claims.model_version,
        "model_hash": claims.model_hash,
        "model_hash_scheme": claims.model_hash_scheme,
        "request_hash": claims.request_hash,
        "response_hash": claims.response_hash,
        "attestation_doc_hash": claims.attestation_doc_hash,
        "measurement_type": measurements.kind,
        **{name: measurements.values[name] for name in sorted(measurements.values)},
        "policy_version": claims.policy_version,
        "sequence_number": claims.sequence_number,
        "execution_time_ms": claims.execution_time_ms,
        "memory_peak_mb": claims.memory_peak_mb,
        "security_mode": claims.security_mode,
    }
    return {name: value.hex() if isinstance(value, bytes) else value for name, value in values.items()}


def _row(check: Check) -> str:
    cells = (LAYERS[check.layer], check.name, _MARKS[check.status], check.code, _cell(check.detail))
    return f"| {' | '.join(cells)} |"


def _cell(value: object) -> str:
    """Keep a claim's text inside its cell: the signer is not trusted to write Markdown."""
    if not isinstance(value, str):
        return "" if value is None else str(value)
    shown = "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in value)
    for special in "\\`*_[]<>|&!#~":
        shown = shown.replace(special, "\\" + special if special not in "<>&" else f"&#{ord(special)};")
    return shown
