"""Which policy is in force right now: a fixed one, or a signed bundle that is read again while in use.

Everything that judges asks its source again for each judgement. A source that
finds a bad new bundle keeps the last good one and says so; it does not keep one
whose time is over.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Protocol

from ..wire.encoding import sha256
from ..wire.errors import ConfigurationError, Error
from .policy import MAX_POLICY_BYTES, TrustPolicy, load_policy
from .policy_bundle import (
    MAX_BUNDLE_BYTES,
    PolicyBundle,
    check_in_time,
    check_succession,
    verify_policy_bundle,
)
from .policy_files import read_bounded
from .policy_memory import PolicyMemory
from .policy_store import PolicyStore

DEFAULT_POLL_S: Final = 5.0
_COSE_SIGN1: Final = b"\xd2"  # tag 18; no JSON text begins so


@dataclass(frozen=True, slots=True)
class PolicyInForce:
    """The policy that holds at one time.

    :param label: what receipts state as their ``policy_version``: the bundle's ``name#serial``, or the
        unsigned policy's own version.
    :param expires: its first second out of use, Unix seconds; None for an unsigned policy, which has none.
    """

    policy: TrustPolicy
    label: str
    signed: bool
    expires: int | None = None


@dataclass(frozen=True, slots=True)
class PolicyEvent:
    """Something that an operator should read.

    :param code: ``POLICY_ACTIVATED``, or why a new bundle was not taken.
    """

    code: str
    message: str

    def __str__(self) -> str:
        return f"{self.code}: {self.message}"


Notify = Callable[[PolicyEvent], None]


class PolicySource(Protocol):
    """Where judgement gets its policy from."""

    def in_force(self, now: float) -> PolicyInForce:
        """Return what holds at a time.

        :param now: Unix seconds.
        :raises AppraisalError: ``POLICY_EXPIRED`` or ``POLICY_NOT_YET_VALID``: nothing may be judged.
        """
        ...

    def current(self, now: float) -> TrustPolicy:
        """Return the policy of :meth:`in_force`; raises the same."""
        ...


@dataclass(frozen=True)
class StaticPolicy:
    """One policy for as long as the process lives: unsigned, without an end, and it says so."""

    policy: TrustPolicy

    def in_force(self, now: float) -> PolicyInForce:
        """See :class:`PolicySource`; never raises."""
        return PolicyInForce(self.policy, self.policy.version, signed=False)

    def current(self, now: float) -> TrustPolicy:
        """Return the policy."""
        return self.policy


@dataclass
class BundlePolicy:
    """A signed bundle that is read again while in use. Safe for threads.

    :param read: returns the bytes that the deliverer offers now (untrusted).
    :param policy_root: the root's raw Ed25519 public key, 32 bytes.
    :param now: Unix seconds, for the first reading.
    :param notify: hears each change, and each new reason why an offered bundle is not taken; it must
        not ask this source.
    :param memory: refuses what is older than any process here has seen; None: this process only.
    :param poll_s: read at most this often, in seconds.
    :raises Error: the first bundle must be good; see :func:`.policy_bundle.verify_policy_bundle` and
        :func:`.policy_bundle.check_succession`.
    """

    read: Callable[[], bytes]
    policy_root: bytes
    now: float
    notify: Notify = lambda _: None
    memory: PolicyMemory | None = None
    poll_s: float = DEFAULT_POLL_S
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False, repr=False)

    def __post_init__(self) -> None:
        self._checked_at = self.now
        self._offered: bytes | None = None
        self._said = ""
        data = self.read()
        self._held = verify_policy_bundle(data, self.policy_root, int(self.now))
        self._check_remembered(self._held)
        self._offered = sha256(data)
        self._remember()

    def in_force(self, now: float) -> PolicyInForce:
        """See :class:`PolicySource`; reads the bundle again when it is time to."""
        with self._lock:
            # A clock that was put back must not stop the reading.
            if not 0 <= now - self._checked_at < self.poll_s:
                self._checked_at = now
                self._read_again(int(now))
            held = self._held
        check_in_time(held, int(now))
        return PolicyInForce(held.policy, held.label, signed=True, expires=held.statement.expires)

    def current(self, now: float) -> TrustPolicy:
        """See :class:`PolicySource`."""
        return self.in_force(now).policy

    # ---------------------------------------------------------------- reload

    def _read_again(self, now: int) -> None:
        """Take a good new bundle; keep the held one and say why, where it is not."""
        try:
            data = self.read()
            # By content: a time stamp may stay the same over two writes.
            if sha256(data) == self._offered:
                return
            bundle = verify_policy_bundle(data, self.policy_root, now)
            check_succession(bundle, self._held.position)
            self._check_remembered(bundle)
        except Error as error:
            self._refuse(error)
            return
        self._offered, self._said = sha256(data), ""
        if bundle.position == self._held.position:
            return  # a bad offer was taken back
        before, self._held = self._held, bundle
        self._say(PolicyEvent("POLICY_ACTIVATED", f"{bundle.label} is in force after {before.label}"))
        self._remember()

    def _refuse(self, error: Error) -> None:
        """Say it once. The offer is read again each time: it may be half written, or begin later."""
        self._offered = None
        event = PolicyEvent(error.code, f"{error.message}; {self._held.label} stays in force")
        if event.code != self._said:
            self._said = event.code
            self._say(event)

    def _say(self, event: PolicyEvent) -> None:
        self.notify(event)

    # ---------------------------------------------------------------- memory

    def _check_remembered(self, bundle: PolicyBundle) -> None:
        seen = self.memory.recall(self.policy_root) if self.memory is not None else None
        if seen is not None:
            check_succession(bundle, seen)

    def _remember(self) -> None:
        """A memory that cannot be written weakens the next process, not this one: said, not fatal."""
        if self.memory is None:
            return
        try:
            self.memory.remember(self.policy_root, self._held.position)
        except ConfigurationError as error:
            self._say(PolicyEvent(error.code, error.message))


def offered_by(path: Path, policy_root: bytes) -> Callable[[], bytes]:
    """Return what reads the bundle that a file or a policy store offers now.

    :raises Error: (when called) as :meth:`.policy_store.PolicyStore.active`, or ``POLICY_UNREADABLE``.
    """

    def read() -> bytes:
        if path.is_dir():
            return PolicyStore(path, policy_root).active().data
        return _read(path, MAX_BUNDLE_BYTES)

    return read


def open_policy(
    path: Path,
    *,
    policy_root: bytes | None,
    now: float,
    notify: Notify = lambda _: None,
    memory: PolicyMemory | None = None,
    poll_s: float = DEFAULT_POLL_S,
) -> PolicySource:
    """Return the source of a policy: a JSON file, a bundle, or the folder of a policy store.

    Who names a root gets signed policies only: otherwise whoever writes the file could leave the
    signature off.

    :param policy_root: raw Ed25519 public key, 32 bytes; None: only an unsigned policy can be read.
    :param now: Unix seconds. :param notify: :param memory: :param poll_s: as for :class:`BundlePolicy`.
    :raises ConfigurationError: ``NO_POLICY_ROOT``, ``POLICY_NOT_SIGNED``, ``POLICY_UNREADABLE``.
    :raises Error: why the policy is not used.
    """
    if is_signed(path):
        root = _needed(policy_root)
        return BundlePolicy(offered_by(path, root), root, now, notify, memory, poll_s)
    return StaticPolicy(_unsigned(path, policy_root))


def policy_at(path: Path, *, policy_root: bytes | None, at: int) -> TrustPolicy:
    """Return the policy to judge by at a past time: an archived bundle is good at its own time.

    :param at: Unix seconds.
    :raises Error: as :func:`open_policy`.
    """
    if not is_signed(path):
        return _unsigned(path, policy_root)
    root = _needed(policy_root)
    return verify_policy_bundle(offered_by(path, root)(), root, at).policy


def is_signed(path: Path) -> bool:
    """Return whether this is a policy store or claims to be a bundle, rather than JSON.

    :raises ConfigurationError: ``POLICY_UNREADABLE``.
    """
    if path.is_dir():
        return True
    return _read(path, 1)[:1] == _COSE_SIGN1


def _unsigned(path: Path, policy_root: bytes | None) -> TrustPolicy:
    if policy_root is not None:
        raise ConfigurationError(
            "POLICY_NOT_SIGNED", "a policy root is configured, and this policy is no signed bundle"
        )
    return load_policy(_read(path, MAX_POLICY_BYTES))


def _needed(policy_root: bytes | None) -> bytes:
    if policy_root is None:
        raise ConfigurationError(
            "NO_POLICY_ROOT", "a signed policy needs the policy root that it is verified under"
        )
    return policy_root


def _read(path: Path, limit: int) -> bytes:
    try:
        return read_bounded(path, limit)
    except OSError as error:
        raise ConfigurationError("POLICY_UNREADABLE", f"cannot read the policy: {error.strerror}") from None
