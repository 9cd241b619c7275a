"""Fetches what NVIDIA evidence is judged with: manifests, OCSP answers, the service's keys and answers.

Addresses and forms: NVIDIA RIM Service API, OCSP over HTTP (RFC 6960, appendix A.1) and NRAS API
(docs.nvidia.com/attestation). Everything fetched is signed, and verified where it is used; what is
read here from the cache is only checked for its form, like what comes from the network.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import json
import os
import tempfile
from collections.abc import Callable, Mapping, Set
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Final, Literal
from urllib.parse import quote

from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import ocsp

from ...wire.encoding import sha256
from ...wire.errors import Error, FetchError, MalformedError
from ..nvidia.identity import read_identity
from ..nvidia.jwks import MAX_JWKS_BYTES, read_jwks
from ..nvidia.manifests import manifest_names
from ..nvidia.ocsp import MAX_ANSWER_BYTES as MAX_OCSP_BYTES
from ..nvidia.ocsp import check_answer, check_revocation
from ..nvidia.parse import Device, DeviceEvidence, encode_answer, parse
from ..nvidia.rim import MAX_MANIFEST_BYTES, certificates_of, check_manifest
from ..strict_json import read_json_object
from .http import DEFAULT_TIMEOUT_S, fetch

JWKS_NAME: Final = "nras.jwks.json"
_MAX_RIM_ANSWER: Final = 2 * MAX_MANIFEST_BYTES
_MAX_NRAS_ANSWER: Final = 65_536


@dataclass(frozen=True, slots=True)
class NvidiaServices:
    """Where NVIDIA answers.

    :param service_key: sent as a bearer token to manifests and NRAS, where NVIDIA asks for one.
    :param timeout_s: for each request, in seconds.
    """

    rim_url: str = "https://rim.attestation.nvidia.com"
    ocsp_url: str = "https://ocsp.ndis.nvidia.com"
    nras_url: str = "https://nras.attestation.nvidia.com"
    service_key: str | None = None
    timeout_s: float = DEFAULT_TIMEOUT_S

    def manifest(self, name: str) -> bytes:
        """Return a reference manifest by its id.

        :raises FetchError: as :func:`.http.fetch`, or ``FETCH_REFUSED``. :raises MalformedError: ``BAD_RIM``.
        """
        body = self._ask(f"{self.rim_url}/v1/rim/{quote(name, safe='')}", _MAX_RIM_ANSWER)
        value = read_json_object(body, max_bytes=_MAX_RIM_ANSWER).get("rim")
        try:
            return check_manifest(base64.b64decode(value, validate=True) if isinstance(value, str) else b"\0")
        except (binascii.Error, ValueError):
            raise MalformedError("BAD_RIM", "the manifest service does not follow its format") from None

    def revocation(self, certificate: bytes, issuer: bytes) -> bytes:
        """Return the OCSP answer about a certificate, DER; without a nonce, so that it may be kept.

        :raises FetchError: as :meth:`manifest`. :raises MalformedError: ``BAD_OCSP`` or ``BAD_CERTIFICATE``.
        """
        try:
            pair = [x509.load_der_x509_certificate(one) for one in (certificate, issuer)]
            builder = ocsp.OCSPRequestBuilder().add_certificate(pair[0], pair[1], SHA256())
            body = builder.build().public_bytes(Encoding.DER)
        except Exception:  # hostile bytes raise ValueError, warnings and a dozen other kinds in the library
            raise MalformedError("BAD_CERTIFICATE", "a certificate cannot be read") from None
        headers = {"Content-Type": "application/ocsp-request"}
        return check_answer(self._ask(self.ocsp_url, MAX_OCSP_BYTES, body, headers, with_key=False))

    def keys(self) -> bytes:
        """Return NRAS's key set.

        :raises FetchError: as :meth:`manifest`. :raises MalformedError: ``BAD_JWKS``.
        """
        body = self._ask(f"{self.nras_url}/.well-known/jwks.json", MAX_JWKS_BYTES, with_key=False)
        read_jwks(body)
        return body

    def attest(self, evidence: bytes, *, version: Literal["v3", "v4"] = "v4") -> bytes:
        """Let NVIDIA's service judge reports; return its answer as evidence in the form that travels.

        :param evidence: reports, in the form that travels.
        :raises FetchError: as :meth:`manifest`. :raises MalformedError: as :func:`~..nvidia.parse.parse`.
        """
        read = parse(evidence)
        if not isinstance(read, DeviceEvidence) or read.kind != "gpu":
            raise MalformedError("BAD_EVIDENCE", "only GPUs' reports can be sent to the service")
        request: dict[str, object] = {
            "nonce": read.nonce.hex(),
            "arch": read.architecture,
            "evidence_list": [_entry(device) for device in read.devices],
        }
        if version == "v4":
            request["claims_version"] = "3.0"
        headers = {"Content-Type": "application/json"}
        url = f"{self.nras_url}/{version}/attest/gpu"
        return encode_answer(self._ask(url, _MAX_NRAS_ANSWER, json.dumps(request).encode(), headers))

    def _ask(
        self,
        url: str,
        max_bytes: int,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        *,
        with_key: bool = True,
    ) -> bytes:
        sent = dict(headers or {})
        if with_key and self.service_key is not None:
            sent["Authorization"] = f"Bearer {self.service_key}"
        answer = fetch(
            url,
            max_bytes=max_bytes,
            timeout_s=self.timeout_s,
            headers=sent,
            method="GET" if body is None else "POST",
            body=body,
        )
        if answer.status != 200:
            raise FetchError("FETCH_REFUSED", f"NVIDIA's service answers {answer.status}")
        return answer.body


def collect(
    evidence: bytes, folder: Path, now: int, services: NvidiaServices | None = None
) -> dict[str, bytes]:
    """Return all collateral that evidence needs, by file name: from the folder, and what is missing fetched.

    Manifests stay good under their name, OCSP answers until they run out, a key set while it has the key.

    :param evidence: in the form that travels. :param folder: made where it is not there.
    :param now: Unix seconds.
    :return: files for :meth:`~..nvidia.endorsements.NvidiaEndorsements.with_files`, or to carry along.
    :raises FetchError: :raises MalformedError: as the methods of :class:`NvidiaServices`.
    """
    asked = NvidiaServices() if services is None else services
    read = parse(evidence)
    if not isinstance(read, DeviceEvidence):
        names = {token.key_id for token in (read.answer.overall, *read.answer.devices.values())}
        return {JWKS_NAME: _keys(folder, names, asked)}
    files: dict[str, bytes] = {}
    chains: list[tuple[bytes, ...]] = [device.chain[1:] for device in read.devices]
    for device in read.devices:
        identity = read_identity(device.chain[0], device.chain[1])
        for name, _ in manifest_names(device.report.opaque, identity, read.architecture):
            path = folder / f"{name}.swidtag"
            if path.name not in files:
                data = _kept(path, check_manifest, partial(asked.manifest, name))
                files[path.name] = data
                chains.append(certificates_of(data)[::-1])
    for certificate, issuer in {link for chain in chains for link in pairwise(chain)}:
        path = folder / f"{sha256(certificate).hex()[:40]}.ocsp"
        files[path.name] = _kept(
            path,
            partial(_current, certificate, issuer, now),
            partial(asked.revocation, certificate, issuer),
        )
    return files


def _entry(device: Device) -> dict[str, str]:
    pem = b"".join(x509.load_der_x509_certificate(one).public_bytes(Encoding.PEM) for one in device.chain)
    return {
        "evidence": base64.b64encode(device.report_bytes).decode(),
        "certificate": base64.b64encode(pem).decode(),
    }


def _keys(folder: Path, key_ids: Set[str], services: NvidiaServices) -> bytes:
    """Return a key set with these keys and no more: the whole has 90 KB, an answer needs one."""

    def has_all(data: bytes) -> bytes:
        if not key_ids <= read_jwks(data).keys():
            raise MalformedError("BAD_JWKS", "the cached key set lacks a key")
        return data

    data = _kept(folder / JWKS_NAME, has_all, services.keys)
    entries = read_json_object(data, max_bytes=MAX_JWKS_BYTES)["keys"]
    wanted = [one for one in entries if isinstance(one, dict) and one.get("kid") in key_ids]  # type: ignore[attr-defined]
    return json.dumps({"keys": wanted}, separators=(",", ":")).encode() if wanted else data


def _current(certificate: bytes, issuer: bytes, now: int, data: bytes) -> bytes:
    """Return an answer that is about this certificate and holds now."""
    if check_revocation(certificate, issuer, (data,), now) is None:
        raise MalformedError("BAD_OCSP", "an answer about something else")
    return data


def _kept(path: Path, check: Callable[[bytes], bytes], load: Callable[[], bytes]) -> bytes:
    try:
        with path.open("rb") as file:
            return check(file.read(MAX_JWKS_BYTES + 1))
    except (OSError, Error):
        data = load()
    _write(path, data)
    return data


def _write(path: Path, data: bytes) -> None:
    """Replace the file whole; a cache that cannot be written is no reason to fail."""
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
            os.replace(temporary, path)
        except OSError:
            os.unlink(temporary)
            raise
