"""The policy that a worker lives under: signed where it counts, and held at every message.

A worker asks before each message which policy is in force. One that changed is held
against the worker's own evidence at once; one that has ended, or that no longer wants
this worker, ends it: its messages go back, and it stops with a stable exit code.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from ..attestation.policy_memory import PolicyMemory
from ..attestation.policy_source import PolicySource, open_policy
from ..wire.errors import ConfigurationError, DeliveryError, Error
from ..wire.exit_codes import MISUSE, exit_code
from .identity import WorkerIdentity
from .settings import WorkerSettings

WATCH_SECONDS: Final = 1.0
"""How often a worker without messages looks at its policy."""


def worker_policy(settings: WorkerSettings, now: float, say: Callable[[str], None]) -> PolicySource:
    """Return where this worker's policy comes from.

    :param now: Unix seconds. :param say: prints one line when a bundle is taken or refused.
    :raises ConfigurationError: ``POLICY_NOT_SIGNED``: an unsigned policy outside of simulation. As
        :func:`~ephemeralml.attestation.policy_source.open_policy`.
    :raises Error: the policy cannot be used.
    """
    source = open_policy(
        settings.policy,
        policy_root=None if settings.policy_root is None else bytes.fromhex(settings.policy_root),
        now=now,
        notify=lambda event: say(f"policy: {event}"),
        memory=None if settings.policy_memory is None else PolicyMemory(settings.policy_memory),
        poll_s=settings.policy_poll_seconds,
    )
    simulated = str(settings.platform) == "simulated"
    if not (source.in_force(now).signed or simulated or settings.dangerous_unsigned_policy):
        raise ConfigurationError(
            "POLICY_NOT_SIGNED",
            "a worker in a real TEE needs a signed policy bundle and EPHEMERALML_WORKER_POLICY_ROOT",
        )
    return source


@dataclass
class PolicyWatch:
    """Holds a running worker to the policy in force. Safe for threads.

    :param reconsider: returns the worker's identity under the policy in force, or raises why there is none.
    :param use: is given that identity. :param end: stops the worker with an exit code; called once.
    :param say: prints why.
    """

    reconsider: Callable[[], WorkerIdentity]
    use: Callable[[WorkerIdentity], None]
    end: Callable[[int], None]
    say: Callable[[str], None]
    ended: bool = False
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def step(self) -> bool:
        """Take the policy in force; return whether the worker may answer under it."""
        with self._lock:
            if self.ended:
                return False
            try:
                self.use(self.reconsider())
            except Error as error:
                return self._end(str(error), exit_code(error))
            except Exception as error:  # its text may hold anything; nothing is answered without a policy
                return self._end(f"an unexpected {type(error).__name__}", MISUSE)
            return True

    def _end(self, why: str, code: int) -> bool:
        self.ended = True
        self.say(f"policy: {why}; no more messages are taken")
        self.end(code)
        return False

    def admit(self) -> None:
        """Let a message in.

        :raises DeliveryError: ``POLICY_ENDED``, retriable: the message belongs to another worker.
        """
        if not self.step():
            raise DeliveryError("POLICY_ENDED", "the policy lets this worker answer no more messages")

    def watch(self, stopping: threading.Event) -> None:
        """Step until the worker ends or stops: an idle worker must not announce itself any longer."""
        while self.step() and not stopping.wait(WATCH_SECONDS):
            pass
