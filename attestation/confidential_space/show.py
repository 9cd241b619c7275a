"""Says in words what a token claims, unverified."""

from __future__ import annotations

from datetime import UTC, datetime

from .parse import parse


def show(data: bytes) -> tuple[tuple[str, str], ...]:
    """Return labels and words for what a token says; nothing of it has been checked.

    Values of environment variables and arguments are left out.

    :raises MalformedError: as :func:`.parse.parse`.
    """
    token = parse(data)
    support = "nothing said" if token.support_attributes is None else ", ".join(token.support_attributes)
    return (
        ("signed by", f"a chain of {len(token.chain)}" if token.chain else f"key {token.key_id}"),
        ("issuer", token.issuer),
        ("audience", token.audience),
        ("issued at", _time(token.issued_at)),
        ("expires at", _time(token.expires_at)),
        ("image", token.image_digest),
        ("image reference", token.image_reference),
        ("machine", token.hardware_model),
        ("system", f"{token.software_name} {token.software_version}"),
        ("debugging", token.debug_status),
        ("secure boot", "yes" if token.secure_boot else "no"),
        ("support", support or "none"),
        ("service accounts", ", ".join(token.service_accounts) or "none"),
        ("GPU confidential computing", token.gpu_cc_mode or "no GPU"),
        ("environment set at start", ", ".join(sorted(token.environment_override)) or "none"),
        ("command set at start", "yes" if token.command_override else "no"),
        ("restart policy", token.restart_policy or "nothing said"),
        ("project and zone", f"{token.project_id or '?'}, {token.zone or '?'}"),
        ("nonces", ", ".join(token.nonces) or "none"),
    )


def _time(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
