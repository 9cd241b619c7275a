"""Parameters of the task ``generate``: read strictly, bounded, and recorded in the response.

Names and meanings are those of the field (spec/stream.md, section 1). An engine that cannot
honour one refuses the job; none is ever ignored, so that the record in the canonical response
is what was really applied.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Final

from .errors import MalformedError

Scalar = int | float | str | bool

MAX_TOKENS: Final = 131_072
#: Tokens that all inputs of one job may ask for together.
MAX_JOB_TOKENS: Final = 1 << 20
#: Log-probabilities of one job: tokens times (alternatives and the token itself).
MAX_JOB_LOGPROBS: Final = 200_000
MAX_STOPS: Final = 16
MAX_STOP_BYTES: Final = 256
MAX_SEED: Final = (1 << 32) - 1
FINISH_REASONS: Final = ("stop", "length", "deadline")

_INTEGERS: Final = {
    "max_tokens": (1, MAX_TOKENS),
    "top_k": (0, 1024),
    "seed": (0, MAX_SEED),
    "top_logprobs": (0, 20),
}
_NUMBERS: Final = {
    "temperature": (0.0, 2.0),
    "top_p": (0.0, 1.0),
    "min_p": (0.0, 1.0),
    "repetition_penalty": (0.1, 2.0),
    "presence_penalty": (-2.0, 2.0),
    "frequency_penalty": (-2.0, 2.0),
}
_SWITCHES: Final = frozenset({"logprobs", "chat_template", "stream"})


@dataclass(frozen=True, slots=True)
class GenerateParameters:
    """How text is to be generated; the same for all inputs of a job.

    :param max_tokens: 1 to 131,072, per input. :param temperature: 0 to 2; 0 takes the likeliest token.
    :param top_k: 0 (off) to 1024. :param top_p: above 0, to 1 (off). :param min_p: 0 (off) to 1.
    :param repetition_penalty: 0.1 to 2; 1 is off. :param presence_penalty: -2 to 2; 0 is off.
    :param frequency_penalty: -2 to 2; 0 is off. :param seed: 0 to 2^32 - 1, of the first input, each
        next input takes the next one; None derives it from the job's salt.
    :param stop: at most 16 texts of 1 to 256 bytes; the first that appears ends the text, and is left out.
    :param logprobs: report each token's log-probability. :param top_logprobs: 0 to 20 alternatives.
    :param chat_template: take a text input for the one turn of a user. :param stream: send chunks.
    """

    max_tokens: int = 256
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    seed: int | None = None
    stop: tuple[str, ...] = ()
    logprobs: bool = False
    top_logprobs: int = 0
    chat_template: bool = False
    stream: bool = False

    @classmethod
    def read(cls, parameters: Mapping[str, Any], inputs: int = 1) -> GenerateParameters:
        """Read a job's parameters.

        :param inputs: how many inputs the job has.
        :raises MalformedError: ``BAD_PARAMETERS``; names the parameter, never its value.
        """
        values: dict[str, Any] = {}
        for name, value in parameters.items():
            values[name] = _read(name, value)
        read = cls(**values)
        if read.top_logprobs and not read.logprobs:
            raise _bad("top_logprobs needs logprobs")
        if read.max_tokens * inputs > MAX_JOB_TOKENS:
            raise _bad(f"all inputs together may ask for {MAX_JOB_TOKENS} tokens")
        if read.logprobs and read.max_tokens * inputs * (1 + read.top_logprobs) > MAX_JOB_LOGPROBS:
            raise _bad(f"a job may ask for {MAX_JOB_LOGPROBS} log-probabilities")
        return read

    def to_parameters(self) -> dict[str, Scalar | list[Scalar]]:
        """Return what :meth:`read` reads: everything that is not the default."""
        return {
            name: value
            for name, value in self._plain().items()
            if value != (default := _DEFAULTS[name]) or type(value) is not type(default)
        }

    def effective(self) -> dict[str, Scalar | list[Scalar]]:
        """Return the record for the canonical response; seeds stand with each output."""
        return {name: value for name, value in self._plain().items() if name not in ("seed", "stream")}

    def _plain(self) -> dict[str, Scalar | list[Scalar]]:
        plain: dict[str, Any] = {field.name: getattr(self, field.name) for field in fields(self)}
        plain["stop"] = list(self.stop)
        return {name: value for name, value in plain.items() if value is not None}


_DEFAULTS: Final[dict[str, Any]] = {f.name: f.default for f in fields(GenerateParameters)} | {"stop": []}


def _read(name: str, value: object) -> object:
    if name in _INTEGERS:
        low, high = _INTEGERS[name]
        if type(value) is int and low <= value <= high:
            return value
        raise _bad(f"{name} must be a whole number from {low} to {high}")
    if name in _NUMBERS:
        return _number(name, value)
    if name in _SWITCHES:
        if type(value) is bool:
            return value
        raise _bad(f"{name} must be true or false")
    if name == "stop":
        return _stops(value)
    raise _bad("an unknown parameter for generate")


def _number(name: str, value: object) -> float:
    least, most = _NUMBERS[name]
    if isinstance(value, (int, float)) and type(value) is not bool and least <= value <= most:
        number = float(value)
        if number or name != "top_p":  # keeping the likeliest nothing would keep nothing
            return number
    raise _bad(f"{name} must be a number from {least:g} to {most:g}")


def _stops(value: object) -> tuple[str, ...]:
    if isinstance(value, (list, tuple)) and len(value) <= MAX_STOPS and all(map(_good_stop, value)):
        return tuple(value)
    raise _bad(f"stop must be at most {MAX_STOPS} texts of 1 to {MAX_STOP_BYTES} bytes")


def _good_stop(text: object) -> bool:
    if not isinstance(text, str):
        return False
    try:
        return 1 <= len(text.encode()) <= MAX_STOP_BYTES
    except UnicodeEncodeError:
        return False


def _bad(why: str) -> MalformedError:
    return MalformedError("BAD_PARAMETERS", why)
