"""Job, response and result: what is sealed between a client and a worker.

The *canonical request bytes* are :meth:`Job.encode`, the *canonical response bytes*
are :meth:`Response.encode`; a receipt's hashes are over exactly these. Both hold
the job's secret 32-byte salt, so that nobody can guess a small input from a hash.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Literal, cast

from .encoding import decode, encode
from .errors import MalformedError
from .fields import Fields
from .generation import FINISH_REASONS, MAX_SEED, Scalar
from .keys import PublicKey

__all__ = [
    "MAX_INPUTS",
    "MAX_JOB_BYTES",
    "MAX_PARAMETERS",
    "MAX_RECEIPT_BYTES",
    "MAX_RESPONSE_BYTES",
    "SALT_BYTES",
    "TASKS",
    "VERSION",
    "BatchCommitment",
    "Completion",
    "Embedding",
    "EngineInfo",
    "Input",
    "Job",
    "Output",
    "Response",
    "Result",
    "Scalar",
    "Task",
    "TokenLogprob",
    "Turn",
]

Task = Literal["embed", "generate"]

VERSION: Final = 1
TASKS: Final[tuple[Task, ...]] = ("embed", "generate")
#: With padding and seal a request or a result still fits into a pack (spec/wire.md, section 8).
MAX_JOB_BYTES: Final = 100 << 20
MAX_RESPONSE_BYTES: Final = 100 << 20
MAX_RECEIPT_BYTES: Final = 65_536
MAX_INPUTS: Final = 2048
MAX_PARAMETERS: Final = 64
SALT_BYTES: Final = 32
MAX_TOKEN_BYTES: Final = 1024
MAX_ALTERNATIVES: Final = 20
_MAX_TEXT: Final = MAX_JOB_BYTES


@dataclass(frozen=True, slots=True)
class Turn:
    """One turn of a conversation, input of ``generate``: role and text."""

    role: str
    content: str


Input = str | tuple[Turn, ...]


@dataclass(frozen=True, slots=True)
class BatchCommitment:
    """What a client committed to before it submitted a batch: Merkle root (32 bytes) and item count."""

    root: bytes
    count: int


@dataclass(frozen=True, slots=True)
class Job:
    """What the client asks, in full; travels sealed.

    :param model: model id that must run it. :param task: ``embed`` or ``generate``.
    :param inputs: 1 to 2048 texts (or conversations). :param parameters: engine parameters by name.
    :param salt: 32 secret random bytes. :param nonce: 8 to 64 bytes, the receipt's ``eat_nonce``.
    :param reply_key: the key that the result is sealed to. :param not_after: Unix seconds.
    """

    model: str
    task: Task
    inputs: tuple[Input, ...]
    parameters: dict[str, Scalar | list[Scalar]]
    salt: bytes
    nonce: bytes
    reply_key: PublicKey
    not_after: int
    batch: BatchCommitment | None = None

    def encode(self) -> bytes:
        """Return the canonical request bytes.

        :raises MalformedError: ``JOB_TOO_LARGE``.
        """
        fields: dict[object, object] = {
            1: VERSION,
            2: self.model,
            3: self.task,
            4: [_input_item(item) for item in self.inputs],
            5: self.parameters,
            6: self.salt,
            7: self.nonce,
            8: self.reply_key.to_map(),
            9: self.not_after,
        }
        if self.batch is not None:
            fields[10] = {1: self.batch.root, 2: self.batch.count}
        encoded = encode(fields)
        if len(encoded) > MAX_JOB_BYTES:
            raise MalformedError("JOB_TOO_LARGE", "a job's inputs hold at most 100 MiB; split them")
        return encoded

    @classmethod
    def decode(cls, data: bytes) -> Job:
        """Read canonical request bytes.

        :raises MalformedError: when they are anything else.
        """
        fields = Fields(decode(data, max_bytes=MAX_JOB_BYTES), "job", range(1, 11))
        fields.version(1, VERSION)
        return cls(
            model=fields.text(2, 1, 256),
            task=_task(fields.text(3, 1, 32)),
            inputs=tuple(_input(item) for item in fields.items(4, 1, MAX_INPUTS)),
            parameters=_parameters(fields.required(5, dict)),
            salt=fields.octets(6, SALT_BYTES),
            nonce=fields.octets(7, 8, 64),
            reply_key=PublicKey.from_map(fields.required(8, dict)),
            not_after=fields.uint(9, minimum=1),
            batch=_commitment(fields),
        )


@dataclass(frozen=True, slots=True)
class Embedding:
    """One embedding: float32 little-endian vector, input tokens used, whether the input was cut."""

    vector: bytes
    tokens: int
    truncated: bool


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """One token of the output: its bytes (perhaps not whole UTF-8), its natural log-probability.

    :param top: the likeliest tokens at its place, likeliest first, each with its log-probability.
    """

    token: bytes
    logprob: float
    top: tuple[tuple[bytes, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Completion:
    """One generated text: why it ended (``stop``, ``length``, ``deadline``) and token counts.

    :param seed: that its tokens were drawn with. :param logprobs: one per token, where they were asked for.
    """

    text: str
    finish_reason: str
    input_tokens: int
    output_tokens: int
    seed: int = 0
    logprobs: tuple[TokenLogprob, ...] | None = None


Output = Embedding | Completion


@dataclass(frozen=True, slots=True)
class EngineInfo:
    """What ran the job: engine, backend, numeric precision, version."""

    name: str
    backend: str
    precision: str
    version: str

    def to_map(self) -> dict[int, object]:
        """Return the CBOR map."""
        return {1: self.name, 2: self.backend, 3: self.precision, 4: self.version}

    @classmethod
    def from_map(cls, value: object) -> EngineInfo:
        """Read what :meth:`to_map` makes.

        :raises MalformedError: when it is anything else.
        """
        fields = Fields(value, "engine", range(1, 5))
        return cls(*(fields.text(key, 1, 64) for key in range(1, 5)))


@dataclass(frozen=True, slots=True)
class Response:
    """What the worker answers; :meth:`encode` gives the canonical response bytes.

    :param model_hash: SHA-256 of the model manifest, 32 bytes. :param salt: the job's salt.
    :param outputs: one per input, in order. :param sampling: of ``generate``, the parameters as applied.
    """

    job_id: bytes
    model: str
    model_hash: bytes
    task: Task
    outputs: tuple[Output, ...]
    engine: EngineInfo
    salt: bytes
    sampling: dict[str, Scalar | list[Scalar]] = field(default_factory=dict)

    def encode(self) -> bytes:
        """Return the canonical response bytes.

        :raises MalformedError: ``RESULT_TOO_LARGE``.
        """
        fields: dict[object, object] = {
            1: VERSION,
            2: self.job_id,
            3: self.model,
            4: self.model_hash,
            5: self.task,
            6: [_output_list(output) for output in self.outputs],
            7: self.engine.to_map(),
            8: self.salt,
        }
        if self.task == "generate":
            fields[9] = self.sampling
        encoded = encode(fields)
        if len(encoded) > MAX_RESPONSE_BYTES:
            raise MalformedError("RESULT_TOO_LARGE", "a job's outputs hold at most 100 MiB")
        return encoded

    @classmethod
    def decode(cls, data: bytes) -> Response:
        """Read canonical response bytes.

        :raises MalformedError: when they are anything else.
        """
        fields = Fields(decode(data, max_bytes=MAX_RESPONSE_BYTES), "response", range(1, 10))
        fields.version(1, VERSION)
        task = _task(fields.text(5, 1, 32))
        if task == "embed" and 9 in fields:
            raise MalformedError("UNKNOWN_FIELD", "the response has 1 unknown field(s)")
        return cls(
            job_id=fields.octets(2, 16),
            model=fields.text(3, 1, 256),
            model_hash=fields.octets(4, 32),
            task=task,
            outputs=tuple(_output(task, item) for item in fields.items(6, 1, MAX_INPUTS)),
            engine=EngineInfo.from_map(fields.required(7, dict)),
            salt=fields.octets(8, SALT_BYTES),
            sampling=_parameters(fields.required(9, dict)) if task == "generate" else {},
        )


@dataclass(frozen=True, slots=True)
class Result:
    """What is sealed to the client's reply key: canonical response bytes and the AIR v1 receipt."""

    response: bytes
    receipt: bytes

    def encode(self) -> bytes:
        """Return the deterministic CBOR."""
        return encode({1: VERSION, 2: self.response, 3: self.receipt})

    @classmethod
    def decode(cls, data: bytes) -> Result:
        """Read a result.

        :raises MalformedError: when it is anything else.
        """
        limit = MAX_RESPONSE_BYTES + MAX_RECEIPT_BYTES + 64
        fields = Fields(decode(data, max_bytes=limit), "result", (1, 2, 3))
        fields.version(1, VERSION)
        return cls(fields.octets(2, 1, MAX_RESPONSE_BYTES), fields.octets(3, 1, MAX_RECEIPT_BYTES))


def _task(name: str) -> Task:
    if name not in TASKS:
        raise MalformedError("UNKNOWN_TASK", "the task is not known")
    return name


def _input_item(item: Input) -> object:
    return item if isinstance(item, str) else [[turn.role, turn.content] for turn in item]


def _input(item: object) -> Input:
    if isinstance(item, str):
        return item
    if not isinstance(item, list) or not 1 <= len(item) <= MAX_INPUTS:
        raise MalformedError("WRONG_TYPE", "an input is neither a text nor a conversation")
    return tuple(_turn(turn) for turn in item)


def _turn(turn: object) -> Turn:
    if isinstance(turn, list) and len(turn) == 2 and all(isinstance(part, str) for part in turn):
        return Turn(turn[0], turn[1])
    raise MalformedError("WRONG_TYPE", "a turn is a role and a text")


def _parameters(value: dict[object, object]) -> dict[str, Scalar | list[Scalar]]:
    if len(value) > MAX_PARAMETERS or not all(isinstance(key, str) and key for key in value):
        raise MalformedError("OUT_OF_BOUNDS", "there are too many parameters, or one has no name")
    for item in value.values():
        for scalar in item if isinstance(item, list) else [item]:
            if not isinstance(scalar, (int, float, str, bool)):
                raise MalformedError("WRONG_TYPE", "a parameter is not a plain value")
    return cast("dict[str, Scalar | list[Scalar]]", value)


def _commitment(fields: Fields) -> BatchCommitment | None:
    if 10 not in fields:
        return None
    inner = Fields(fields.required(10, dict), "batch commitment", (1, 2))
    return BatchCommitment(inner.octets(1, 32), inner.uint(2, minimum=1, maximum=50_000))


def _output_list(output: Output) -> list[object]:
    if isinstance(output, Embedding):
        return [output.vector, output.tokens, output.truncated]
    logprobs = None
    if output.logprobs is not None:
        logprobs = [[item.token, item.logprob, [list(pair) for pair in item.top]] for item in output.logprobs]
    counts = [output.input_tokens, output.output_tokens]
    return [output.text, output.finish_reason, *counts, output.seed, logprobs]


def _output(task: Task, item: object) -> Output:
    return _embedding(item) if task == "embed" else _completion(item)


def _parts(item: object, kinds: tuple[type, ...]) -> list[object]:
    if not isinstance(item, list) or tuple(type(part) for part in item[: len(kinds)]) != kinds:
        raise MalformedError("WRONG_TYPE", "an output is not of its task's form")
    if any(type(part) is int and part < 0 for part in item):
        raise MalformedError("OUT_OF_BOUNDS", "a token count is negative")
    return item


def _embedding(item: object) -> Embedding:
    vector, *rest = _parts(item, (bytes, int, bool))
    if len(rest) != 2:
        raise MalformedError("WRONG_TYPE", "an output is not of its task's form")
    if len(cast("bytes", vector)) % 4:
        raise MalformedError("OUT_OF_BOUNDS", "a vector is not whole float32 numbers")
    return Embedding(vector, *rest)  # type: ignore[arg-type]


def _completion(item: object) -> Completion:
    parts = _parts(item, (str, str, int, int, int))
    if len(parts) != 6:
        raise MalformedError("WRONG_TYPE", "an output is not of its task's form")
    text, end, read, written, seed, logprobs = cast("tuple[str, str, int, int, int, object]", parts)
    if end not in FINISH_REASONS or seed > MAX_SEED:
        raise MalformedError("OUT_OF_BOUNDS", "a text's end or seed is not one that is known")
    if logprobs is None:
        return Completion(text, end, read, written, seed)
    if not isinstance(logprobs, list) or len(logprobs) != written:
        raise MalformedError("WRONG_TYPE", "there is not one log-probability per token")
    return Completion(text, end, read, written, seed, tuple(map(_logprob, logprobs)))


def _logprob(item: object) -> TokenLogprob:
    if not isinstance(item, list) or len(item) != 3 or not isinstance(item[2], list):
        raise MalformedError("WRONG_TYPE", "a log-probability is not of its form")
    if len(item[2]) > MAX_ALTERNATIVES:
        raise MalformedError("OUT_OF_BOUNDS", "a token has too many alternatives")
    return TokenLogprob(*_token(item[:2]), tuple(map(_token, item[2])))


def _token(pair: object) -> tuple[bytes, float]:
    if not isinstance(pair, list) or [type(part) for part in pair] != [bytes, float]:
        raise MalformedError("WRONG_TYPE", "a log-probability is not of its form")
    if len(pair[0]) > MAX_TOKEN_BYTES or not pair[1] <= 0.0:  # also not NaN
        raise MalformedError("OUT_OF_BOUNDS", "a token or its log-probability is out of bounds")
    return pair[0], pair[1]
