"""What a TDX quote is judged with: Intel's root, TCB infos, enclave identities, revocation lists.

Every file is signed under Intel's root and checked where it is used; who carried it does not matter.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final, TypeVar

from ...wire.errors import MalformedError
from ..nitro.endorsements import check_fingerprints
from ..strict_json import read_json_object
from .certificates import read_list
from .collateral import QeIdentity, TcbInfo, read_qe_identity, read_tcb_info
from .pem import read_pem_chain
from .signed import Signed, bad_collateral, split_body

# SHA-256 of the DER of "Intel SGX Root CA", valid 2018-05-21 to 2049-12-31
# (certificates.trustedservices.intel.com/Intel_SGX_Provisioning_Certification_RootCA.cer).
INTEL_SGX_ROOT: Final = bytes.fromhex("44a0196b2b99f889b8e149e95b807a350e7424964399e885a7cbb8ccfab674d3")

MAX_FILES: Final = 64
MAX_LIST_BYTES: Final = 262_144  # recorded lists: 0.3 to 3.4 KB
TCB_INFO_FILE: Final = re.compile(r"tcb_info[A-Za-z0-9_.-]{0,64}\.json")
QE_IDENTITY_FILE: Final = re.compile(r"qe_identity[A-Za-z0-9_.-]{0,64}\.json")
PCK_CRL_FILE: Final = re.compile(r"pck_crl[A-Za-z0-9_.-]{0,64}\.der")
ROOT_CRL_FILE: Final = re.compile(r"root_ca_crl[A-Za-z0-9_.-]{0,64}\.der")
COLLATERAL_FILE: Final = re.compile(r"(?:[A-Za-z0-9_.-]{1,64}_)?collateral[A-Za-z0-9_.-]{0,64}\.json")
SIGNING_CHAIN_FILE: Final = "tcb_signing_chain.pem"
_HEX: Final = re.compile(r"(?:[0-9a-fA-F]{2})*")
_ItemT = TypeVar("_ItemT")


@dataclass(frozen=True, slots=True)
class TdxEndorsements:
    """Trust anchors and collateral, in the order in which it is tried.

    :param roots: SHA-256 fingerprints of root certificates, 32 bytes each.
    :param pck_crls: of the CAs of PCK certificates, DER. :param root_crls: of the root, DER.
    :raises ConfigurationError: ``BAD_FINGERPRINT``.
    """

    roots: tuple[bytes, ...] = (INTEL_SGX_ROOT,)
    tcb_infos: tuple[TcbInfo, ...] = field(default=(), repr=False)
    qe_identities: tuple[QeIdentity, ...] = field(default=(), repr=False)
    pck_crls: tuple[bytes, ...] = field(default=(), repr=False)
    root_crls: tuple[bytes, ...] = field(default=(), repr=False)

    def __post_init__(self) -> None:
        check_fingerprints(self.roots)

    def with_files(self, files: Mapping[str, bytes]) -> TdxEndorsements:
        """Return these completed by files from elsewhere; what is here already is tried first.

        :param files: by flat name, the forms of spec/tdx.md: ``collateral*.json`` or ``*_collateral*.json``
            (everything for one quote), ``tcb_info*.json``, ``qe_identity*.json``,
            ``tcb_signing_chain.pem``, ``pck_crl*.der``, ``root_ca_crl*.der``.
            Other names are let be: what is needed and not there is missed by verification.
        :raises MalformedError: ``OUT_OF_BOUNDS``, ``BAD_COLLATERAL``, ``BAD_CERTIFICATE``, ``BAD_CRL``, or as
            :func:`~..strict_json.read_json`.
        """
        if len(files) > MAX_FILES:
            raise MalformedError("OUT_OF_BOUNDS", f"there are more than {MAX_FILES} files of collateral")
        chain = files.get(SIGNING_CHAIN_FILE)
        signers = () if chain is None else read_pem_chain(chain, length=2)
        found = self
        for name, data in files.items():
            found = found._with(_read_file(name, data, signers))
        return found

    def _with(self, other: TdxEndorsements) -> TdxEndorsements:
        return replace(
            self,
            tcb_infos=_joined(self.tcb_infos, other.tcb_infos),
            qe_identities=_joined(self.qe_identities, other.qe_identities),
            pck_crls=_joined(self.pck_crls, other.pck_crls),
            root_crls=_joined(self.root_crls, other.root_crls),
        )


def from_files(files: Mapping[str, bytes]) -> TdxEndorsements:
    """Return Intel's pinned root with collateral from files.

    :raises MalformedError: as :meth:`TdxEndorsements.with_files`.
    """
    return TdxEndorsements().with_files(files)


def _joined(mine: tuple[_ItemT, ...], theirs: Iterable[_ItemT]) -> tuple[_ItemT, ...]:
    return (*mine, *(one for one in theirs if one not in mine))


def _read_file(name: str, data: bytes, chain: tuple[bytes, ...]) -> TdxEndorsements:
    if TCB_INFO_FILE.fullmatch(name):
        return TdxEndorsements(tcb_infos=(read_tcb_info(split_body(data, "tcbInfo", chain)),))
    if QE_IDENTITY_FILE.fullmatch(name):
        identity = read_qe_identity(split_body(data, "enclaveIdentity", chain))
        return TdxEndorsements(qe_identities=(identity,))
    if PCK_CRL_FILE.fullmatch(name):
        return TdxEndorsements(pck_crls=(_list(data),))
    if ROOT_CRL_FILE.fullmatch(name):
        return TdxEndorsements(root_crls=(_list(data),))
    if COLLATERAL_FILE.fullmatch(name):
        return _read_collateral(data)
    return TdxEndorsements()


def _read_collateral(data: bytes) -> TdxEndorsements:
    """Read all collateral for a quote in one JSON file, in the form of dcap-qvl's QuoteCollateralV3."""
    values = read_json_object(data, max_bytes=2 * MAX_LIST_BYTES)

    def text(name: str) -> str:
        value = values.get(name)
        if not isinstance(value, str):
            raise bad_collateral()
        return value

    def octets(name: str) -> bytes:
        if _HEX.fullmatch(text(name)) is None:
            raise bad_collateral()
        return bytes.fromhex(text(name))

    def signed(name: str) -> Signed:
        signature = octets(f"{name}_signature")
        if len(signature) != 64:
            raise bad_collateral()
        chain = read_pem_chain(text(f"{name}_issuer_chain").encode(), length=2)
        return Signed(text(name).encode(), signature, chain)

    return TdxEndorsements(
        tcb_infos=(read_tcb_info(signed("tcb_info")),),
        qe_identities=(read_qe_identity(signed("qe_identity")),),
        pck_crls=(_list(octets("pck_crl")),),
        root_crls=(_list(octets("root_ca_crl")),),
    )


def _list(data: bytes) -> bytes:
    """Return a revocation list that can be read."""
    if len(data) > MAX_LIST_BYTES:
        raise MalformedError("TOO_LARGE", f"a revocation list has more than {MAX_LIST_BYTES} bytes")
    read_list(data)
    return data
