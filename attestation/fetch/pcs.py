"""Fetches what TDX quotes are judged with, from Intel's service or a cache of it (PCCS).

Addresses and forms: Intel, "PCS API v4" (api.portal.trustedservices.intel.com), and "Design Guide for Intel
SGX PCCS" for the revocation list of the root, which Intel itself serves elsewhere. Everything fetched is
signed, and verified where it is used; what is read here is only checked for its form.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal
from urllib.parse import unquote

from ...wire.errors import EndorsementsError, Error, FetchError, MalformedError
from ..tdx.certificates import read_certificate
from ..tdx.endorsements import MAX_LIST_BYTES, TdxEndorsements
from ..tdx.parse import parse
from ..tdx.pck import read_platform
from ..tdx.pem import read_pem_chain, write_pem_chain
from ..tdx.signed import MAX_JSON_BYTES, split_body
from .http import DEFAULT_TIMEOUT_S, Fetched, fetch

Update = Literal["standard", "early"]
DEFAULT_MAX_AGE_S: Final = 86_400
_MAX_FILE_BYTES: Final = 2 * MAX_LIST_BYTES
_HEX: Final = re.compile(rb"\s*(?:[0-9a-fA-F]{2})+\s*")
# Version 4 names the header anew for TDX; caches still send the older name.
_TCB_CHAINS: Final = ("tcb-info-issuer-chain", "sgx-tcb-info-issuer-chain")
_QE_CHAINS: Final = ("sgx-enclave-identity-issuer-chain",)


@dataclass(frozen=True, slots=True)
class PcsService:
    """Where collateral comes from.

    :param root_crl_url: of the root's revocation list.
    :param update: ``"early"``: TCB infos as soon as a vulnerability is public, ``"standard"``: when
        platforms had time to be patched.
    :param timeout_s: for each request, in seconds.
    """

    base_url: str = "https://api.trustedservices.intel.com"
    root_crl_url: str = "https://certificates.trustedservices.intel.com/IntelSGXRootCA.der"
    update: Update = "standard"
    timeout_s: float = DEFAULT_TIMEOUT_S

    @classmethod
    def pccs(
        cls, base_url: str, *, update: Update = "standard", timeout_s: float = DEFAULT_TIMEOUT_S
    ) -> PcsService:
        """Return a cache of Intel's service, which has all of it under one address."""
        return cls(base_url, f"{base_url}/sgx/certification/v4/rootcacrl", update, timeout_s)

    def collateral(self, quote: bytes) -> bytes:
        """Return everything that a quote is judged with, as one file ``collateral*.json``.

        :raises FetchError: as :func:`.http.fetch`, or ``FETCH_REFUSED``: a status other than 200.
        :raises MalformedError: as :func:`~..tdx.parse.parse` and
            :meth:`~..tdx.endorsements.TdxEndorsements.with_files`.
        :raises VerificationError: ``CERTIFICATE_PROFILE``.
        :raises EndorsementsError: ``COLLATERAL_MISMATCH``: the service answered for another platform.
        """
        asked = Asked.of(quote)
        info = self._ask(f"/tdx/certification/v4/tcb?fmspc={asked.fmspc.upper()}&update={self.update}")
        identity = self._ask(f"/tdx/certification/v4/qe/identity?update={self.update}")
        crl = self._ask(f"/sgx/certification/v4/pckcrl?ca={asked.ca}&encoding=der", MAX_LIST_BYTES)
        root_crl = self._get(self.root_crl_url, MAX_LIST_BYTES)
        values = {
            "pck_crl_issuer_chain": write_pem_chain(asked.issuers),
            "pck_crl": _list(crl.body).hex(),
            "root_ca_crl": _list(root_crl.body).hex(),
            **_signed("tcb_info", "tcbInfo", info, _TCB_CHAINS),
            **_signed("qe_identity", "enclaveIdentity", identity, _QE_CHAINS),
        }
        data = json.dumps(values, separators=(",", ":")).encode()
        check_collateral(data, asked)
        return data

    def _ask(self, path: str, max_bytes: int = MAX_JSON_BYTES) -> Fetched:
        return self._get(self.base_url + path, max_bytes)

    def _get(self, url: str, max_bytes: int) -> Fetched:
        # Caches answer with lists in hexadecimal, which are twice as long.
        answer = fetch(url, max_bytes=2 * max_bytes + 2, timeout_s=self.timeout_s)
        if answer.status != 200:
            raise FetchError("FETCH_REFUSED", f"the service of TDX collateral answers {answer.status}")
        return answer


@dataclass(frozen=True, slots=True)
class Asked:
    """What collateral is asked for.

    :param fmspc: hexadecimal. :param ca: which CA issued the PCK certificate.
    :param issuers: that CA and the root, DER, out of the quote.
    """

    fmspc: str
    ca: Literal["platform", "processor"]
    issuers: tuple[bytes, ...]

    @classmethod
    def of(cls, quote: bytes) -> Asked:
        """Return what a quote needs.

        :raises MalformedError: as :func:`~..tdx.parse.parse` and :func:`~..tdx.pck.read_platform`.
        :raises VerificationError: ``CERTIFICATE_PROFILE``.
        """
        chain = parse(quote).pck_chain
        is_processor = "Processor" in read_certificate(chain[1]).common_name
        return cls(
            fmspc=read_platform(chain[0]).fmspc.hex(),
            ca="processor" if is_processor else "platform",
            issuers=chain[1:],
        )

    @property
    def file_name(self) -> str:
        """Under which the collateral is kept."""
        return f"collateral_{self.fmspc}_{self.ca}.json"


def collect(
    quote: bytes,
    folder: Path,
    now: float,
    service: PcsService | None = None,
    *,
    max_age_s: float = DEFAULT_MAX_AGE_S,
) -> dict[str, bytes]:
    """Return all collateral that a quote needs, by file name: from the folder while young, else fetched.

    Where fetching fails, what the folder has serves for as long as Intel lets it: verification sees to that.

    :param folder: made where it is not there. :param now: Unix seconds.
    :param max_age_s: of a file that is not fetched again, in seconds.
    :return: files for :meth:`~..tdx.endorsements.TdxEndorsements.with_files`, or to carry along.
    :raises Error: as :meth:`PcsService.collateral`, when nothing is cached.
    """
    asked = Asked.of(quote)
    path = folder / asked.file_name
    kept = _kept(path, asked)
    if kept is None or not 0 <= now - kept[1] <= max_age_s:
        try:
            data = (PcsService() if service is None else service).collateral(quote)
        except (FetchError, EndorsementsError, MalformedError):
            if kept is None:
                raise
        else:
            _write(path, data, now)
            kept = (data, now)
    return {path.name: kept[0]}


def check_collateral(data: bytes, asked: Asked) -> None:
    """Check the form of collateral, and that it is for this platform.

    :raises MalformedError: :raises EndorsementsError: as :meth:`PcsService.collateral`.
    """
    found = TdxEndorsements().with_files({asked.file_name: data})
    if found.tcb_infos[0].fmspc.hex() != asked.fmspc:
        raise EndorsementsError("COLLATERAL_MISMATCH", "the TCB info is for other platforms")


def _signed(name: str, inner: str, answer: Fetched, headers: tuple[str, ...]) -> dict[str, str]:
    """Return text, signature and chain of an answer, whose header holds the chain percent-encoded."""
    encoded = next((answer.headers[one] for one in headers if one in answer.headers), "")
    chain = read_pem_chain(unquote(encoded, errors="replace").encode(), length=2)
    signed = split_body(answer.body, inner, chain)
    return {
        name: signed.text.decode(),
        f"{name}_signature": signed.signature.hex(),
        f"{name}_issuer_chain": write_pem_chain(chain),
    }


def _list(body: bytes) -> bytes:
    """Return a revocation list that came as DER or in hexadecimal."""
    return bytes.fromhex(body.decode("ascii")) if _HEX.fullmatch(body) else body


def _kept(path: Path, asked: Asked) -> tuple[bytes, float] | None:
    """Return collateral that can be read, and when it was fetched (Unix seconds)."""
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_FILE_BYTES + 1)
            fetched_at = os.fstat(file.fileno()).st_mtime
        check_collateral(data, asked)
    except (OSError, Error):
        return None
    return data, fetched_at


def _write(path: Path, data: bytes, now: float) -> None:
    """Replace the file whole; a cache that cannot be written is no reason to fail."""
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
            os.utime(temporary, (now, now))
            os.replace(temporary, path)
        except OSError:
            os.unlink(temporary)
            raise
