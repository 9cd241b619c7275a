"""A folder of policy bundles: an append-only history, and a pointer to the one in force.

::

    000001.bundle  000002.bundle  …    never changed, never removed
    active                             serial and SHA-256 of the bundle in force
    lock                               held while a bundle is activated

Nobody has to trust the folder: every bundle is verified under the configured root
whenever it is read, and the pointer cannot go back unnoticed, because the history
holds what is newer. Whoever replaces the whole folder by an old copy is found by
those who remember (:mod:`.policy_memory`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ..wire.errors import AppraisalError, ConfigurationError, Error
from .policy_bundle import (
    MAX_BUNDLE_BYTES,
    PolicyBundle,
    check_succession,
    open_policy_bundle,
    verify_policy_bundle,
)
from .policy_files import locked, read_bounded, write_whole

ACTIVE: Final = "active"
_FILE: Final = re.compile(r"([0-9]{6,20})\.bundle")
_POINTER: Final = re.compile(rb"([0-9]{6,20}) ([0-9a-f]{64})\n")
_POINTER_BYTES: Final = 128


@dataclass(frozen=True, slots=True)
class HistoryEntry:
    """One file of the history: the bundle, or the code of what is wrong with it."""

    serial: int
    bundle: PolicyBundle | None
    code: str = ""


@dataclass(frozen=True)
class PolicyStore:
    """One line of versions in a folder, under one policy root.

    :param policy_root: the root's raw Ed25519 public key, 32 bytes.
    """

    folder: Path
    policy_root: bytes

    def active(self) -> PolicyBundle:
        """Return the bundle in force; its time is not checked here.

        :raises ConfigurationError: ``POLICY_STORE_EMPTY``, ``POLICY_STORE_BROKEN`` or ``POLICY_UNREADABLE``.
        :raises AppraisalError: ``POLICY_DOWNGRADE``: the history holds a newer bundle of the root's.
        :raises Error: the bundle does not verify.
        """
        bundle = self._pointed_at()
        if bundle is None:
            raise ConfigurationError("POLICY_STORE_EMPTY", "no bundle was activated in this policy store yet")
        newest = self.newest()
        if newest is not None and newest.statement.serial > bundle.statement.serial:
            raise AppraisalError(
                "POLICY_DOWNGRADE",
                f"the store points at {bundle.label}, but holds a newer bundle: activate that one again",
            )
        return bundle

    def newest(self) -> PolicyBundle | None:
        """Return the history's newest bundle of the root's, which the next one must name; None: no history.

        :raises ConfigurationError: ``POLICY_UNREADABLE``.
        """
        for serial in reversed(self._serials()):
            bundle = self._entry(serial).bundle
            if bundle is not None:
                return bundle
        return None

    def activate(self, data: bytes, now: int) -> PolicyBundle:
        """Add a bundle to the history and put it in force; again for the one in force changes nothing.

        Two processes at once: one wins, the other's bundle no longer follows the newest.

        :param now: Unix seconds.
        :raises AppraisalError: ``POLICY_EXPIRED``, ``POLICY_NOT_YET_VALID``, or the codes of
            :func:`.policy_bundle.check_succession`, or ``POLICY_ROLLBACK_MISMATCH``.
        :raises ConfigurationError: ``POLICY_STORE_UNWRITABLE``. :raises Error: it does not verify.
        """
        bundle = verify_policy_bundle(data, self.policy_root, now)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with locked(self.folder / "lock"):
                # Not the one in force: a pointer can be put back, the history cannot be forged.
                held = self.newest()
                if held is not None:
                    check_succession(bundle, held.position, unbroken=True)
                self._check_rollback(bundle)
                self._append(bundle)
                self._point_at(bundle)
        except OSError as error:
            raise ConfigurationError(
                "POLICY_STORE_UNWRITABLE", f"cannot write the policy store: {error.strerror}"
            ) from None
        return bundle

    def history(self) -> tuple[HistoryEntry, ...]:
        """Return every file of the history, oldest first, each verified and held to the one before it."""
        entries: list[HistoryEntry] = []
        last: PolicyBundle | None = None
        for serial in self._serials():
            entry = self._entry(serial)
            if entry.bundle is not None and last is not None:
                try:
                    check_succession(entry.bundle, last.position)
                except AppraisalError as error:
                    entry = HistoryEntry(serial, None, error.code)
            last = entry.bundle or last
            entries.append(entry)
        return tuple(entries)

    def bundle(self, serial: int) -> PolicyBundle:
        """Return a bundle of the history.

        :raises ConfigurationError: ``POLICY_UNKNOWN_SERIAL``. :raises Error: it does not verify.
        """
        if serial not in self._serials():
            raise ConfigurationError("POLICY_UNKNOWN_SERIAL", f"the history has no serial {serial}")
        return self._read(serial)

    # ---------------------------------------------------------------- files

    def _path(self, serial: int) -> Path:
        return self.folder / f"{serial:06d}.bundle"

    def _serials(self) -> list[int]:
        try:
            names = [path.name for path in self.folder.iterdir()]
        except OSError as error:
            raise _unreadable(error) from None
        found = [(int(match[1]), name) for name in names if (match := _FILE.fullmatch(name))]
        return sorted(serial for serial, name in found if name == self._path(serial).name)

    def _read(self, serial: int) -> PolicyBundle:
        try:
            data = read_bounded(self._path(serial), MAX_BUNDLE_BYTES)
        except OSError as error:
            raise _unreadable(error) from None
        bundle = open_policy_bundle(data, self.policy_root)
        if bundle.statement.serial != serial:
            raise ConfigurationError("POLICY_STORE_BROKEN", "a bundle stands under another serial's name")
        return bundle

    def _entry(self, serial: int) -> HistoryEntry:
        try:
            return HistoryEntry(serial, self._read(serial))
        except Error as error:
            return HistoryEntry(serial, None, error.code)

    def _pointed_at(self) -> PolicyBundle | None:
        try:
            pointer = read_bounded(self.folder / ACTIVE, _POINTER_BYTES)
        except FileNotFoundError:
            return None
        except OSError as error:
            raise _unreadable(error) from None
        match = _POINTER.fullmatch(pointer)
        if match is None:
            raise ConfigurationError("POLICY_STORE_BROKEN", "the store's pointer is not of its form")
        bundle = self._read(int(match[1]))
        if bundle.position.digest.hex().encode() != match[2]:
            raise ConfigurationError("POLICY_STORE_BROKEN", "the bundle is not the one that was activated")
        return bundle

    def _check_rollback(self, bundle: PolicyBundle) -> None:
        serial = bundle.statement.rollback_of
        if serial is None or serial not in self._serials():
            return
        if self._read(serial).statement.policy != bundle.statement.policy:
            raise AppraisalError(
                "POLICY_ROLLBACK_MISMATCH", f"{bundle.label} does not carry the policy of serial {serial}"
            )

    def _append(self, bundle: PolicyBundle) -> None:
        path = self._path(bundle.statement.serial)
        try:
            write_whole(path, bundle.data, replace=False)
        except FileExistsError:
            # Left by an activation that was killed before its last step; the same bytes may go on.
            if read_bounded(path, MAX_BUNDLE_BYTES) != bundle.data:
                raise AppraisalError(
                    "POLICY_FORKED", f"the history holds another bundle of {bundle.label}"
                ) from None

    def _point_at(self, bundle: PolicyBundle) -> None:
        position = bundle.position
        write_whole(self.folder / ACTIVE, f"{position.serial:06d} {position.digest.hex()}\n".encode())


def _unreadable(error: OSError) -> ConfigurationError:
    return ConfigurationError("POLICY_UNREADABLE", f"cannot read the policy: {error.strerror}")
