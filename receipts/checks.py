"""What a verification reports: every check of every layer, and what that adds up to."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Literal, NamedTuple

from .claims import Claims
from .rules import CLAIM_RULES, Fault

Status = Literal["passed", "failed", "skipped", "not_run"]
Level = Literal["none", "signature", "bound", "provenance"]

PARSE, CRYPTO, CLAIMS, POLICY, PROVENANCE = 1, 2, 3, 4, 5
LAYERS: Final = MappingProxyType(
    {PARSE: "parse", CRYPTO: "crypto", CLAIMS: "claims", POLICY: "policy", PROVENANCE: "provenance"}
)
CHECKS: Final = MappingProxyType(
    {
        PARSE: ("SIZE", "COSE", "UNPROTECTED", "ALG", "CTYPE", "PROTECTED", "PAYLOAD", "PROFILE"),
        CRYPTO: ("SIG",),
        CLAIMS: ("CLOSED", *(rule.check for rule in CLAIM_RULES)),
        POLICY: (
            "FUTURE",
            "FRESH",
            "NONCE",
            "MHASH",
            "MODEL_ID",
            "REQUEST",
            "RESPONSE",
            "ATTESTATION_DOC",
            "PLATFORM",
            "SECURITY_MODE",
            "REPLAY",
        ),
        PROVENANCE: ("EVIDENCE", "EVIDENCE_HASH", "MEASUREMENTS", "KEY_BINDING", "APPRAISAL"),
    }
)
# A receipt that passed these is about the client's own request, its answer and the model it asked for.
BOUND_BY: Final = ("MHASH", "REQUEST", "RESPONSE")


class Check(NamedTuple):
    """One check. ``code`` is empty unless it failed; ``detail`` never repeats the receipt's contents."""

    layer: int
    name: str
    code: str
    status: Status
    detail: str


_PASSED: Final = {
    (layer, name): Check(layer, name, "", "passed", "") for layer, names in CHECKS.items() for name in names
}
_NOT_RUN: Final = {
    (layer, name): Check(layer, name, "", "not_run", "an earlier check failed")
    for layer, names in CHECKS.items()
    for name in names
}
_ALL_PASSED: Final = {layer: tuple(_PASSED[layer, name] for name in names) for layer, names in CHECKS.items()}


def all_passed(layer: int) -> list[Check]:
    """Return the report of a layer in which every check passed."""
    return list(_ALL_PASSED[layer])


def passed(layer: int, name: str) -> Check:
    """Return the report of a check that passed."""
    return _PASSED[layer, name]


def skipped(layer: int, name: str, detail: str) -> Check:
    """Return the report of a check that nobody asked for."""
    return Check(layer, name, "", "skipped", detail)


def failed(layer: int, name: str, code: str, detail: str) -> Check:
    """Return the report of a check that failed."""
    return Check(layer, name, code, "failed", detail)


def judged(layer: int, name: str, fault: Fault) -> Check:
    """Return the report of a check by what it found."""
    return _PASSED[layer, name] if fault is None else Check(layer, name, fault[0], "failed", fault[1])


def rest(layer: int, done: list[Check]) -> list[Check]:
    """Return ``done`` and the layer's remaining checks, in order, as not run."""
    names = {check.name for check in done}
    return done + [_NOT_RUN[layer, name] for name in CHECKS[layer] if name not in names]


def any_failed(checks: list[Check]) -> bool:
    """Return whether a check of the list failed."""
    return any(check.status == "failed" for check in checks)


@dataclass(frozen=True, slots=True)
class Verification:
    """The judgement of one receipt, with every check that led to it.

    :param claims: the receipt's claims once its signature and every claim were accepted, else None.
    :param receipt_hash: SHA-256 of the receipt as given, 32 bytes.
    """

    checks: tuple[Check, ...]
    claims: Claims | None
    receipt_hash: bytes

    @property
    def passed(self) -> bool:
        """Whether no check failed and the first three layers and the policy layer ran."""
        return self.claims is not None and all(check.status in ("passed", "skipped") for check in self.checks)

    @property
    def verdict(self) -> Literal["sound", "unsound"]:
        """``sound`` or ``unsound``; read it together with :attr:`level` and :attr:`skipped`."""
        return "sound" if self.passed else "unsound"

    @property
    def codes(self) -> tuple[str, ...]:
        """The codes of all failed checks, in order."""
        return tuple(check.code for check in self.checks if check.status == "failed")

    @property
    def skipped(self) -> tuple[Check, ...]:
        """The checks that nobody asked for."""
        return tuple(check for check in self.checks if check.status == "skipped")

    @property
    def failed_layer(self) -> int | None:
        """The number of the first layer with a failed check, or None."""
        return next((check.layer for check in self.checks if check.status == "failed"), None)

    @property
    def bound(self) -> bool:
        """Whether a sound receipt was held against request hash, response hash and model hash."""
        return self.passed and self._all_passed(POLICY, BOUND_BY)

    @property
    def level(self) -> Level:
        """The assurance that a sound receipt reached; an unsound one reaches ``none``.

        ``signature``: a key that the caller names has signed it. ``bound``: and it is about the request,
        response and model that the caller holds. ``provenance``: that key was made in a TEE whose evidence
        is genuine and wanted; :attr:`bound` then tells whether the rest was checked too.
        """
        if not self.passed:
            return "none"
        if self._all_passed(PROVENANCE, CHECKS[PROVENANCE]):
            return "provenance"
        return "bound" if self.bound else "signature"

    def _all_passed(self, layer: int, names: tuple[str, ...]) -> bool:
        done = {check.name for check in self.checks if check.layer == layer and check.status == "passed"}
        return done.issuperset(names)
