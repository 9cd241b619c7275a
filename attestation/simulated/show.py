"""Says in words what a simulated document claims. Nothing here is verified."""

from __future__ import annotations

from ..nitro.show import show as show_nitro


def show(data: bytes) -> tuple[tuple[str, str], ...]:
    """Return labels and words for a document, in the order of interest.

    :raises MalformedError: it is no document in Nitro's format.
    """
    rest = [(label, words) for label, words in show_nitro(data) if label != "platform"]
    return (("platform", "simulated TEE in Nitro's format: proves nothing about hardware"), *rest)
