"""Says in words what NVIDIA evidence claims, unverified."""

from __future__ import annotations

from datetime import UTC, datetime

from .answer import Answer
from .parse import DeviceEvidence, parse


def show(data: bytes) -> tuple[tuple[str, str], ...]:
    """Return labels and words for what evidence says; nothing of it has been checked.

    :raises MalformedError: as :func:`.parse.parse`.
    """
    evidence = parse(data)
    return _devices(evidence) if isinstance(evidence, DeviceEvidence) else _answer(evidence.answer)


def _devices(evidence: DeviceEvidence) -> tuple[tuple[str, str], ...]:
    lines = [
        ("form", "reports of devices, to be verified here"),
        ("architecture", f"{evidence.architecture} ({evidence.kind})"),
        ("nonce", evidence.nonce.hex()),
    ]
    for position, device in enumerate(evidence.devices):
        opaque = device.report.opaque
        lines += [
            (f"device {position} driver", opaque.driver or "nothing said"),
            (f"device {position} VBIOS", opaque.vbios or "nothing said"),
            (f"device {position} mode", opaque.mode or "nothing said"),
            (f"device {position} firmware", "nothing said" if opaque.fwid is None else opaque.fwid.hex()),
            (f"device {position} measurements", str(len(device.report.measurements))),
            (f"device {position} chain", f"{len(device.chain)} certificates"),
        ]
    return tuple(lines)


def _answer(answer: Answer) -> tuple[tuple[str, str], ...]:
    return (
        ("form", "answer of NVIDIA's Remote Attestation Service"),
        ("signed by", f"key {answer.overall.key_id}"),
        ("issuer", answer.overall.issuer[:128]),
        ("issued at", _time(answer.overall.issued_at)),
        ("expires at", _time(answer.overall.expires_at)),
        ("nonce", answer.nonce.hex()),
        ("overall result", "good" if answer.result else "not good"),
        ("devices", ", ".join(answer.devices)),
    )


def _time(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
