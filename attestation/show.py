"""One door to what evidence says of itself, unverified, and to which platform it looks like."""

from __future__ import annotations

from ..wire.errors import EndorsementsError, Error
from .confidential_space.show import show as show_confidential_space
from .nitro.parse import parse as parse_nitro
from .nitro.show import show as show_nitro
from .nvidia.parse import parse as parse_nvidia
from .nvidia.show import show as show_nvidia
from .simulated.show import show as show_simulated
from .tdx.show import show as show_tdx

_JWT_HEAD = b"eyJ"  # base64url of '{"'


def show(platform: str, data: bytes) -> tuple[tuple[str, str], ...]:
    """Return labels and words for what evidence claims; nothing of it has been checked.

    The words hold no control characters, whoever wrote the evidence.

    :raises MalformedError: it is no evidence of this platform.
    :raises EndorsementsError: ``UNKNOWN_PLATFORM``.
    """
    match platform:
        case "nitro":
            lines = show_nitro(data)
        case "simulated":
            lines = show_simulated(data)
        case "confidential-space":
            lines = show_confidential_space(data)
        case "nvidia":
            lines = show_nvidia(data)
        case "tdx":
            lines = show_tdx(data)
        case _:
            raise EndorsementsError("UNKNOWN_PLATFORM", "no verifier for this platform")
    return tuple((printable(label), printable(words)) for label, words in lines)


def guess_platform(data: bytes) -> str | None:
    """Return which platform's evidence this looks like, or None; a guess picks a verifier, nothing more.

    Nitro's format is guessed to be ``nitro``: a simulated TEE must be asked for by name.
    """
    if data[:2] in (b"\x04\x00", b"\x05\x00") and data[4:8] == b"\x81\x00\x00\x00":
        return "tdx"  # version 4 or 5, TEE type TDX (Intel TDX DCAP quoting library, quote header)
    if data.startswith(_JWT_HEAD) and data.count(b".") == 2:
        return "confidential-space"
    for platform, parse in (("nitro", parse_nitro), ("nvidia", parse_nvidia)):
        try:
            parse(data)
        except Error:
            continue
        return platform
    return None


def printable(text: str) -> str:
    """Return a text without control characters, which could rewrite a terminal's screen."""
    return "".join(
        character if character.isprintable() else character.encode("unicode_escape").decode("ascii")
        for character in text
    )
