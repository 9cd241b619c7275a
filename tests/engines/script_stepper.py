"""A library of a few lines: says what a script says, one byte per token and step, no model needed."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence

from ephemeralml.wire.errors import EngineError
from ephemeralml.wire.job import Turn
from ephemeralml.workers.engines.base import check_text
from ephemeralml.workers.engines.generate import Decoder, GenerateRequest, Reader, Step, Token
from ephemeralml.workers.engines.llama_cpp import BytesDecoder

END = 256


def answer(prompt: str) -> str:
    return f"You said: {prompt}. Grüße, 世界!"


class ByteReader:
    """Tokens are bytes of UTF-8."""

    ends = frozenset({END})

    def encode(self, prompt: str | Sequence[object]) -> list[int]:
        if not isinstance(prompt, str):
            prompt = "|".join(turn.content for turn in prompt if isinstance(turn, Turn))
        if prompt == "poison":
            raise EngineError("ENGINE_BAD_INPUT", "asked to")
        check_text(prompt, 1 << 20, "a prompt")
        return list(prompt.encode())

    def decoder(self) -> Decoder:
        return BytesDecoder(self.token_bytes)

    def token_bytes(self, token: int) -> bytes:
        return b"" if token == END else bytes([token])


class ScriptStepper:
    """Gives each sequence the next byte of its script at each step.

    :param hold: no step is done while it is cleared. :param allowed: steps that may be done; None: all.
    """

    name = backend = "script"
    precision = "f32"
    version = "1"
    notice = ""

    def __init__(
        self, script: Callable[[str], str] = answer, *, max_tokens: int = 4096, max_sequences: int = 64
    ) -> None:
        self.script, self.max_tokens, self.max_sequences = script, max_tokens, max_sequences
        self.reader: Reader = ByteReader()
        self.running: dict[int, list[int]] = {}
        self.hold = threading.Event()
        self.hold.set()
        self.changed = threading.Condition()
        self.allowed: int | None = None
        self.fail_step: Exception | None = None
        self.fail_add: Exception | None = None
        self.most = 0
        self.dropped: list[int] = []
        self.closed = False

    def add(self, key: int, prompt: Sequence[int], request: GenerateRequest, max_new: int) -> None:
        if self.fail_add is not None:
            raise self.fail_add
        said = self.script(bytes(prompt).decode())
        self.running[key] = [*said.encode(), END]

    def step(self) -> list[Step]:
        self.hold.wait(30)
        with self.changed:
            self.changed.wait_for(lambda: self.allowed is None or self.allowed > 0, 30)
        if self.fail_step is not None:
            failure, self.fail_step = self.fail_step, None
            raise failure
        self.most = max(self.most, len(self.running))
        steps = []
        for key, left in self.running.items():
            if left and left[0] == ord("~"):  # a sequence that the library gives up
                steps.append(Step(key, failed=True))
            elif left:
                steps.append(Step(key, (Token(left.pop(0), -1.0, ((65, -1.0),)),)))
        if self.allowed is not None:
            self.allow(self.allowed - 1)
        return steps

    def allow(self, steps: int | None) -> None:
        """Let so many steps be done from now on."""
        with self.changed:
            self.allowed = steps
            self.changed.notify_all()

    def until(self, condition: Callable[[], bool]) -> None:
        """Wait until something holds."""
        deadline = time.monotonic() + 30
        while not condition() and time.monotonic() < deadline:
            time.sleep(0.001)
        assert condition()

    def drop(self, key: int) -> None:
        self.dropped.append(key)
        self.running.pop(key, None)

    def close(self) -> None:
        self.closed = True
