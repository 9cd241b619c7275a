"""The thread that looks after keys: it obeys revocations, so nothing may end it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import pytest

from ephemeralml.wire.errors import DeliveryError
from ephemeralml.workers.tending import Tending


@dataclass
class Steps:
    """What happens at each step."""

    faults: list[Exception | None]

    def __call__(self) -> None:
        fault = self.faults.pop(0)
        if fault is not None:
            raise fault


@pytest.mark.parametrize(
    ("fault", "line"),
    [
        (DeliveryError("SOME_CODE", "why"), "keys: SOME_CODE: why; tried again"),
        (
            UnicodeDecodeError("utf-8", b"secret", 0, 1, "secret"),
            "keys: an unexpected UnicodeDecodeError; tried again",
        ),
    ],
)
def test_a_fault_is_said_once_and_tried_again(fault: Exception, line: str) -> None:
    said: list[str] = []
    tending = Tending(cast("Any", None), lambda: None, 1, 1, said.append)
    step: Callable[[], None] = Steps([fault, fault, None, fault])
    assert [tending.tried(step) for _ in range(4)] == [False, False, True, False]
    assert said == [line, line]
