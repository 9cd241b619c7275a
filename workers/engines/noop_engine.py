"""An engine that computes nothing: for measuring everything else, and only when asked for by name."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Sequence
from functools import lru_cache

from .base import EmbedRequest, EmbedResult, check_request


class NoopEngine:
    """Deterministic vectors of length 1 from a hash of the text; see :class:`Engine`."""

    name = "noop"
    backend = "noop"
    precision = "f32"
    version = "1"
    model_dimensions = 384
    max_tokens = 256
    tasks = frozenset({"embed"})

    def check(self, request: EmbedRequest) -> None:
        """See :meth:`Engine.check`."""
        check_request(request, self.model_dimensions)

    def run(self, requests: Sequence[EmbedRequest]) -> list[EmbedResult]:
        """See :meth:`Engine.run`."""
        for request in requests:
            self.check(request)
        return [self._answer(request) for request in requests]

    def _answer(self, request: EmbedRequest) -> EmbedResult:
        size = request.dimensions or self.model_dimensions
        counts = [text.count(" ") + 3 for text in request.texts]
        return EmbedResult(
            vectors=[_vector((request.prompt or "") + text, size) for text in request.texts],
            tokens=[min(count, self.max_tokens) for count in counts],
            truncated=[count > self.max_tokens for count in counts],
        )


def _vector(text: str, size: int) -> bytes:
    digest = hashlib.shake_256(text.encode("utf-8")).digest(-(-size // 8))
    table = _signs(size)
    return b"".join([table[byte] for byte in digest])[: 4 * size]


@lru_cache(maxsize=8)
def _signs(size: int) -> list[bytes]:
    """Return for each byte eight floats of plus or minus 1/sqrt(size)."""
    unit = float(size) ** -0.5
    return [
        struct.pack("<8f", *(unit if byte >> bit & 1 else -unit for bit in range(8))) for byte in range(256)
    ]
