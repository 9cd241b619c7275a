"""Draws the next token from logits, for libraries that leave it to their caller.

The order is that of the field (transformers, vLLM): penalties, temperature, top-k, top-p,
min-p. Random numbers are NumPy's PCG64, whose stream is the same on every machine.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...wire.errors import EngineError
from ...wire.generation import GenerateParameters
from .generate import Token

Floats = NDArray[np.floating[Any]]


class Sampler:
    """Draws the tokens of one sequence.

    :param prompt: its tokens, which penalties count too.
    """

    def __init__(self, parameters: GenerateParameters, seed: int, prompt: list[int]) -> None:
        self._parameters = parameters
        self._random = np.random.Generator(np.random.PCG64(seed))
        self._seen: dict[int, int] = {}
        for token in prompt:
            self._seen[token] = self._seen.get(token, 0) + 1

    def draw(self, logits: Floats) -> Token:
        """Return the next token.

        :param logits: one per token of the vocabulary; not changed.
        :raises EngineError: ``ENGINE_NOT_FINITE``.
        """
        raw = np.asarray(logits, dtype=np.float64)
        if not np.isfinite(raw.max()) or np.isnan(raw).any():
            raise EngineError("ENGINE_NOT_FINITE", "the model gave numbers that are not finite")
        parameters = self._parameters
        penalised = self._penalised(raw)
        if parameters.temperature == 0.0:
            token = int(penalised.argmax())
        else:
            token = self._drawn(penalised / parameters.temperature)
        self._seen[token] = self._seen.get(token, 0) + 1
        return with_logprobs(token, raw, parameters)

    def _penalised(self, logits: Floats) -> Floats:
        p = self._parameters
        if not self._seen or (p.repetition_penalty, p.presence_penalty, p.frequency_penalty) == (
            1.0,
            0.0,
            0.0,
        ):
            return logits
        known = {token: count for token, count in self._seen.items() if token < len(logits)}
        tokens = np.fromiter(known, dtype=np.int64)
        counts = np.fromiter(known.values(), dtype=np.float64)
        values = logits[tokens]
        values = np.where(values > 0, values / p.repetition_penalty, values * p.repetition_penalty)
        changed = logits.copy()
        changed[tokens] = values - p.presence_penalty - p.frequency_penalty * counts
        return changed

    def _drawn(self, logits: Floats) -> int:
        order, probabilities = kept(logits, self._parameters)
        place = np.searchsorted(
            np.cumsum(probabilities), self._random.random() * probabilities.sum(), "right"
        )
        return int(order[min(int(place), len(order) - 1)])


def kept(logits: Floats, parameters: GenerateParameters) -> tuple[NDArray[np.int64], Floats]:
    """Return the tokens that the filters keep, likeliest first, and their probabilities (of sum 1).

    :param logits: after penalties and temperature.
    """
    count = parameters.top_k or len(logits)
    if count < len(logits):
        order = np.argpartition(-logits, count - 1)[:count]
        order = order[np.argsort(-logits[order], kind="stable")]
    else:
        order = np.argsort(-logits, kind="stable")
    probabilities = _softmax(logits[order])
    if parameters.top_p < 1.0:
        below = np.cumsum(probabilities) - probabilities
        order, probabilities = order[below < parameters.top_p], probabilities[below < parameters.top_p]
        probabilities = probabilities / probabilities.sum()
    if parameters.min_p > 0.0:
        enough = probabilities >= parameters.min_p * probabilities[0]
        order, probabilities = order[enough], probabilities[enough]
    return order.astype(np.int64), probabilities / probabilities.sum()


def with_logprobs(token: int, logits: Floats, parameters: GenerateParameters) -> Token:
    """Return the token with its log-probability and its alternatives, where they are asked for.

    :param logits: as the model gave them, before temperature and filters.
    """
    if not parameters.logprobs:
        return Token(token)
    raw = np.asarray(logits, dtype=np.float64)
    raw = raw - raw.max()
    logprobs = np.minimum(raw - np.log(np.exp(raw).sum()), 0.0)
    count = min(parameters.top_logprobs, len(raw))
    order = np.argsort(-logprobs, kind="stable")[:count]
    return Token(
        token, float(logprobs[token]), tuple((int(place), float(logprobs[place])) for place in order)
    )


def _softmax(logits: Floats) -> Floats:
    powers = np.exp(logits - logits[0])
    return np.asarray(powers / powers.sum())
