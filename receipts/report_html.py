"""One self-contained HTML page that says to a reader without our tools what a verification found.

No script, no style, font or picture from elsewhere, and a policy in the page that
forbids them. Everything that comes from the receipt is escaped: its signer is not
trusted to write HTML.
"""

from __future__ import annotations

from datetime import UTC, datetime
from html import escape
from types import MappingProxyType
from typing import Final

from .checks import LAYERS, POLICY, Check, Level, Verification
from .report import LEVELS, LIMITS, claims_values

_TITLES: Final = MappingProxyType[Level, str](
    {
        "none": "Not sound",
        "signature": "Signature only",
        "bound": "Bound to request, response and model",
        "provenance": "TEE provenance",
    }
)
_LAYER_WORDS: Final = MappingProxyType(
    {
        "parse": "Is it a receipt of this format, in its one allowed form?",
        "crypto": "Did the given key sign it?",
        "claims": "Is every statement in it complete and within its bounds?",
        "policy": "Is it what the person who verified it expected?",
        "provenance": "Does the signing key live in a TEE that is genuine and wanted?",
    }
)
_WORDS: Final = MappingProxyType(
    {"passed": "passed", "failed": "failed", "skipped": "not checked", "not_run": "not reached"}
)
_CLAIM_WORDS: Final = MappingProxyType(
    {
        "iss": "Operator of the worker",
        "iat": "Issued at (the worker's clock)",
        "cti": "Number of this receipt",
        "eat_nonce": "Challenge of the client",
        "model_id": "Model",
        "model_version": "Version of the model",
        "model_hash": "Fingerprint of the model",
        "model_hash_scheme": "How that fingerprint was made",
        "request_hash": "Fingerprint of the request",
        "response_hash": "Fingerprint of the response",
        "attestation_doc_hash": "Fingerprint of the TEE's evidence",
        "measurement_type": "Kind of the TEE's measurements",
        "policy_version": "Policy that the worker ran under",
        "sequence_number": "Count since the worker started",
        "execution_time_ms": "Time of the inference (ms)",
        "memory_peak_mb": "Peak of memory (MB)",
        "security_mode": "Security mode",
    }
)
_CHECK_WORDS: Final = MappingProxyType(
    {
        "FUTURE": "not from the future",
        "FRESH": "not too old",
        "NONCE": "answers our challenge",
        "MHASH": "the model we wanted",
        "MODEL_ID": "the model's name",
        "REQUEST": "our request",
        "RESPONSE": "the response we hold",
        "ATTESTATION_DOC": "the evidence we hold",
        "PLATFORM": "the kind of TEE",
        "SECURITY_MODE": "a security mode we accept",
        "REPLAY": "not seen before",
        "EVIDENCE": "evidence is genuine",
        "EVIDENCE_HASH": "evidence is the one named",
        "MEASUREMENTS": "software is the one attested",
        "KEY_BINDING": "key was made in that TEE",
        "APPRAISAL": "our trust policy wants it",
    }
)
_STYLE: Final = """
body{font:16px/1.5 system-ui,sans-serif;color:#1c1f23;background:#fff;max-width:60rem;margin:2rem auto;
padding:0 1.5rem}
h1{font-size:1.5rem;margin:0 0 .25rem}h2{font-size:1.15rem;margin:2rem 0 .5rem}
code{font:.8rem/1.4 ui-monospace,monospace;overflow-wrap:anywhere}
.verdict{border-left:.5rem solid;padding:.75rem 1rem;margin:1rem 0;background:#f6f7f8}
.verdict b{font-size:1.3rem}.sound{border-color:#1a7f37}.unsound{border-color:#b42318}
.part{border-color:#9a6700}
table{border-collapse:collapse;width:100%;font-size:.9rem}
th,td{text-align:left;vertical-align:top;padding:.3rem .5rem;border-bottom:1px solid #d8dbdf}
td:first-child,th:first-child{width:34%}
.checks td:first-child{width:50%}.checks td:nth-child(2){width:7rem}
.passed{color:#1a7f37}.failed{color:#b42318;font-weight:bold}.skipped{color:#8a5a00}.not_run{color:#5c636b}
small{color:#5c636b}tr{break-inside:avoid}h2,h3{break-after:avoid}h3{font-size:.95rem;margin:1rem 0 .25rem}
@media print{body{margin:0;max-width:none;font-size:11pt}.verdict{background:none}}
""".strip()


def to_html(verification: Verification, *, judged_at: int | None = None) -> str:
    """Return the report as one HTML page in UTF-8.

    :param judged_at: the time that the receipt was judged at, Unix seconds, to be shown.
    """
    parts = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8">',
        '<meta http-equiv="Content-Security-Policy" '
        "content=\"default-src 'none'; style-src 'unsafe-inline'\">",
        '<meta name="viewport" content="width=device-width,initial-scale=1">',
        '<meta name="referrer" content="no-referrer">',
        f"<title>Receipt verification: {verification.verdict}</title>",
        f"<style>{_STYLE}</style></head><body>",
        *_head(verification, judged_at),
        *_open_questions(verification),
        *_claims(verification),
        *_checks(verification),
        "<h2>What no receipt of this format proves</h2>",
        f"<ul>{''.join(f'<li>{escape(limit)}</li>' for limit in LIMITS)}</ul>",
        "</body></html>",
    ]
    return "\n".join(parts) + "\n"


def _head(verification: Verification, judged_at: int | None) -> list[str]:
    colour = "unsound" if not verification.passed else "sound" if _complete(verification) else "part"
    # Each level's sentence starts with the level's own name.
    sentence = LEVELS[verification.level].split(": ", 1)[1]
    sentence = sentence[0].upper() + sentence[1:] + "."
    bound = "It was" if verification.bound else "It was not"
    lines = [
        "<h1>Verification of an inference receipt</h1>",
        f"<small>AIR v1 receipt, SHA-256 <code>{verification.receipt_hash.hex()}</code></small>",
        f'<div class="verdict {colour}"><b>{verification.verdict.capitalize()}</b> &middot; '
        f"assurance level: <b>{escape(_TITLES[verification.level])}</b>",
        f"<p>{escape(sentence)}",
    ]
    if verification.passed:
        lines.append(f"{bound} held against the request, the response and the model all three.")
    lines.append("</p>")
    if verification.codes:
        codes = ", ".join(f"<code>{escape(code)}</code>" for code in verification.codes)
        lines.append(f"<p>Refused because of: {codes}. Nothing in it may be relied on.</p>")
    if judged_at is not None:
        lines.append(f"<p>Judged at {_time(judged_at)}.</p>")
    return [*lines, "</div>"]


def _complete(verification: Verification) -> bool:
    return verification.level == "provenance" and verification.bound


def _open_questions(verification: Verification) -> list[str]:
    not_run = sum(check.status == "not_run" for check in verification.checks)
    if not verification.skipped and not not_run:
        return []
    lines = ["<h2>What was not checked, and why</h2>", "<ul>"]
    for layer, name in LAYERS.items():
        reasons: dict[str, list[str]] = {}
        for check in verification.skipped:
            if check.layer == layer:
                reasons.setdefault(check.detail, []).append(check.name)
        for detail, names in reasons.items():
            listed = ", ".join(_named(layer, one) for one in names)
            lines.append(f"<li>{escape(name.capitalize())}: {listed} &ndash; {escape(detail)}.</li>")
    if not_run:
        lines.append(f"<li>{not_run} further checks were not reached, because an earlier one failed.</li>")
    return [*lines, "</ul>"]


def _claims(verification: Verification) -> list[str]:
    if verification.claims is None:
        return ["<h2>What it says</h2>", "<p>Its statements are not shown, because they are not sound.</p>"]
    rows = []
    for name, value in claims_values(verification.claims).items():
        words = _CLAIM_WORDS.get(name, f"Measurement {name}")
        label = f"{escape(words)}<br><small><code>{escape(name)}</code></small>"
        rows.append(f"<tr><td>{label}</td><td>{_value(name, value)}</td></tr>")
    by = (
        "The key of the verified TEE says:"
        if verification.level == "provenance"
        else "The holder of the given key says:"
    )
    shown = by if verification.passed else "It was refused; whoever signed it says:"
    return ["<h2>What it says</h2>", f"<p>{shown}</p>", f"<table>{''.join(rows)}</table>"]


def _value(name: str, value: object) -> str:
    if value is None:
        return "<small>not stated</small>"
    if name == "iat" and isinstance(value, int):
        return f"{_time(value)} <small>({value})</small>"
    shown = f"<code>{_text(str(value))}</code>"
    if name == "security_mode" and value == "evaluation":
        return f"{shown} &ndash; made by a simulated TEE or a debug enclave; no protection is claimed"
    return shown


def _checks(verification: Verification) -> list[str]:
    lines = ["<h2>Every check</h2>"]
    for layer, name in LAYERS.items():
        lines.append(f"<h3>{layer}. {name.capitalize()}: {escape(_LAYER_WORDS[name])}</h3>")
        rows = "".join(_row(check) for check in verification.checks if check.layer == layer)
        lines.append(f'<table class="checks">{rows}</table>')
    return lines


def _row(check: Check) -> str:
    code = f"<code>{escape(check.code)}</code> " if check.code else ""
    shown = code + escape(check.detail)
    return (
        f"<tr><td>{_named(check.layer, check.name)}</td>"
        f'<td class="{check.status}">{_WORDS[check.status]}</td><td>{shown}</td></tr>'
    )


def _named(layer: int, name: str) -> str:
    """Return a check's name, in layers 4 and 5 with what it asks."""
    words = _CHECK_WORDS.get(name) if layer >= POLICY else None
    return f"<code>{escape(name)}</code>" + (f" ({escape(words)})" if words else "")


def _text(value: str) -> str:
    """Escape a text of the signer's, and show what is not printable (also what reverses a line)."""
    return escape(
        "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in value)
    )


def _time(seconds: int) -> str:
    try:
        return datetime.fromtimestamp(seconds, UTC).strftime("%d %B %Y, %H:%M:%S UTC")
    except (OverflowError, ValueError, OSError):
        return f"{seconds} s after 1970"
