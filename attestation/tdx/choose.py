"""Chooses the collateral that is for a quote and in time, and checks who signed it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Protocol, TypeVar

from ...wire.errors import EndorsementsError, VerificationError
from .certificates import (
    MAX_REMEMBERED,
    RevocationList,
    check_chain,
    check_list_signed,
    check_root,
    read_certificate,
    read_list,
    signed_by,
)
from .collateral import QeIdentity, TcbInfo
from .endorsements import TdxEndorsements
from .pck import PckPlatform
from .signed import Signed

# Intel, "SGX PCK Certificate and CRL Profile Specification", section 1.3: names in the PKI.
TCB_SIGNER = "Intel SGX TCB Signing"


class Dated(Protocol):
    """Anything that is valid from one time to another, Unix seconds."""

    @property
    def issued_at(self) -> int:
        """When it begins."""
        ...

    @property
    def next_update(self) -> int:
        """When it ends."""
        ...


DatedT = TypeVar("DatedT", bound=Dated)


@dataclass(frozen=True, slots=True)
class Lists:
    """The revocation lists that are in time: of the PCK certificate's CA, and of the root."""

    pck: RevocationList
    root: RevocationList


def choose_lists(endorsements: TdxEndorsements, ca: bytes, root: bytes, now: int) -> Lists:
    """Return the lists of a PCK certificate's CA and of the root.

    :param ca: :param root: DER.
    :raises EndorsementsError: ``NO_COLLATERAL``, ``COLLATERAL_EXPIRED`` or ``COLLATERAL_NOT_YET_VALID``.
    :raises VerificationError: ``CRL_SIG_FAILED``.
    """
    return Lists(_list_of(endorsements.pck_crls, ca, now), _list_of(endorsements.root_crls, root, now))


def _list_of(lists: Iterable[bytes], issuer: bytes, now: int) -> RevocationList:
    name = read_certificate(issuer).subject
    fitting = [one for one in map(read_list, lists) if one.issuer == name]
    chosen = in_time(fitting, now, "revocation list of a CA")
    check_list_signed(issuer, chosen.der)
    # What any genuine list at hand revokes is revoked, whenever that list was made: the time that a quote
    # is judged at is its sender's word, and must not choose an older list.
    others = [one.serials for one in fitting if one is not chosen and _is_signed(issuer, one)]
    return replace(chosen, serials=chosen.serials.union(*others))


def _is_signed(issuer: bytes, one: RevocationList) -> bool:
    try:
        check_list_signed(issuer, one.der)
    except VerificationError:
        return False
    return True


def choose_tcb_info(endorsements: TdxEndorsements, platform: PckPlatform, now: int) -> TcbInfo:
    """Return the TCB info of a platform's kind.

    :raises EndorsementsError: ``NO_COLLATERAL``, ``COLLATERAL_MISMATCH`` (there are others only),
        ``COLLATERAL_EXPIRED`` or ``COLLATERAL_NOT_YET_VALID``.
    """
    if not endorsements.tcb_infos:
        raise _missing("TCB info")
    fitting = [
        one for one in endorsements.tcb_infos if one.fmspc == platform.fmspc and one.pce_id == platform.pce_id
    ]
    if not fitting:
        raise EndorsementsError("COLLATERAL_MISMATCH", "the TCB infos at hand are for other platforms")
    return in_time(fitting, now, "TCB info")


def choose_qe_identity(endorsements: TdxEndorsements, now: int) -> QeIdentity:
    """Return the identity of the quoting enclave.

    :raises EndorsementsError: ``NO_COLLATERAL``, ``COLLATERAL_EXPIRED`` or ``COLLATERAL_NOT_YET_VALID``.
    """
    return in_time(endorsements.qe_identities, now, "enclave identity")


def in_time(candidates: Iterable[DatedT], now: int, what: str) -> DatedT:
    """Return the newest that is valid; else say what is wrong with the first."""
    several = tuple(candidates)
    valid = [one for one in several if one.issued_at <= now <= one.next_update]
    if valid:
        return max(valid, key=lambda one: one.issued_at)
    if not several:
        raise _missing(what)
    if now < several[0].issued_at:
        raise EndorsementsError("COLLATERAL_NOT_YET_VALID", f"the {what} is of a later time")
    raise EndorsementsError("COLLATERAL_EXPIRED", f"the {what} has expired: fetch it again")


def check_signed(signed: Signed, root: bytes, revoked: RevocationList, now: int) -> None:
    """Check that Intel's TCB signer signed a text.

    :param root: fingerprint of the root that the quote ends at: the list is that root's.
    :param revoked: its revocation list.
    :raises EndorsementsError: ``NO_COLLATERAL``: no chain came along.
    :raises MalformedError: ``BAD_CERTIFICATE``.
    :raises VerificationError: ``UNKNOWN_ROOT``, ``COLLATERAL_SIGNER``, ``CERTIFICATE_REVOKED``,
        ``COLLATERAL_SIG_FAILED``, or as :func:`.certificates.check_chain`.
    """
    if not signed.chain:
        raise _missing("signing chain of the TCB info or enclave identity")
    check_root(signed.chain[-1], (root,))
    check_chain(signed.chain, now)
    signer = read_certificate(signed.chain[0])
    if signer.common_name != TCB_SIGNER:
        raise VerificationError("COLLATERAL_SIGNER", "collateral is signed by a certificate for other things")
    if signer.serial in revoked.serials:
        raise VerificationError("CERTIFICATE_REVOKED", "the certificate that signs collateral is revoked")
    _check_text(signed.chain[0], signed.signature, signed.text)


@lru_cache(MAX_REMEMBERED)
def _check_text(signer: bytes, signature: bytes, text: bytes) -> None:
    """Check a signature; a fact of these bytes alone, and the same text judges many quotes."""
    if not signed_by(read_certificate(signer).public_key, signature, text):
        raise VerificationError(
            "COLLATERAL_SIG_FAILED", "the signature of a TCB info or identity does not verify"
        )


def _missing(what: str) -> EndorsementsError:
    return EndorsementsError("NO_COLLATERAL", f"there is no {what} for the quote: fetch it or give its file")
