"""Reads and verifies NVIDIA's reference integrity manifests (RIM).

A manifest is a SWID tag (ISO/IEC 19770-2) in XML, after the TCG's RIM Information Model, with an
enveloped XML signature whose key comes with a chain up to "NVIDIA CoRIM signing Root CA". The form
is the one that NVIDIA writes and no other: one signature, directly under the root element; one
reference, to the whole document; inclusive canonicalisation 1.1; SHA-384; ECDSA with P-384.

XML is dangerous to read: documents are bounded, and refused before they reach a parser if they have
a declaration (no DTD, so no entities), a comment, a processing instruction or another encoding than
UTF-8. The certificate chain is walked by this package's own code; signxml only checks the signature,
with the key that the walk gave. Only what the signature covers is read afterwards.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from cryptography import x509

from ...wire.errors import (
    ConfigurationError,
    EndorsementsError,
    MalformedError,
    VerificationError,
)
from ..nitro.chain import VerifiedChain, verify_chain

if TYPE_CHECKING:
    from lxml.etree import _Element  # type: ignore[import-untyped]

MAX_MANIFEST_BYTES: Final = 131_072
MAX_MEASUREMENTS: Final = 64
MAX_ALTERNATIVES: Final = 16
MIN_CERTIFICATES, MAX_CERTIFICATES = 2, 6

_SWID: Final = "{http://standards.iso.org/iso/19770/-2/2015/schema.xsd}"
_DSIG: Final = "{http://www.w3.org/2000/09/xmldsig#}"
_SHA384: Final = "{http://www.w3.org/2001/04/xmlenc#sha384}"
_C14N: Final = "http://www.w3.org/2006/12/xml-c14n11"
_ENVELOPED: Final = "http://www.w3.org/2000/09/xmldsig#enveloped-signature"
_DIGEST: Final = re.compile(r"[0-9a-fA-F]{96}")
_NUMBER: Final = re.compile(r"[0-9]{1,3}")
_PROLOGUE: Final = re.compile(rb"""\A<\?xml version="1\.0"( encoding="(UTF|utf)-8")?\s?\?>""")


@dataclass(frozen=True, slots=True)
class Manifest:
    """A manifest that NVIDIA signed.

    :param version: of the driver or VBIOS that it describes. :param product: e.g. ``"GH100"``.
    :param measurements: acceptable SHA-384 digests by index; inactive ones are left out.
    :param chain: DER, root first: for OCSP. :param not_before: :param not_after: Unix seconds.
    """

    version: str
    product: str
    measurements: Mapping[int, tuple[bytes, ...]] = field(repr=False)
    chain: tuple[bytes, ...] = field(repr=False)
    not_before: int
    not_after: int


def check_manifest(data: bytes) -> bytes:
    """Return a manifest that may be given to a parser.

    :raises MalformedError: ``BAD_RIM``.
    """
    if len(data) > MAX_MANIFEST_BYTES:
        raise _bad("too long")
    prologue = _PROLOGUE.match(data)
    body = data if prologue is None else data[prologue.end() :]
    if b"<!" in body or b"<?" in body or b"\0" in body:
        raise _bad("not plain XML: it has declarations, comments or instructions")
    try:
        body.decode("utf-8")
    except UnicodeDecodeError:
        raise _bad("not UTF-8") from None
    return data


def verify_manifest(data: bytes, roots: tuple[bytes, ...], now: int) -> Manifest:
    """Verify a manifest at a time.

    1. it keeps to its form, and so does its signature;
    2. the signer's certificate chains to a pinned root, all valid at ``now``;
    3. that key signed the whole document;
    4. what the signature covers is read, and nothing else.

    :param now: Unix seconds.
    :raises ConfigurationError: ``EXTRA_MISSING``.
    :raises MalformedError: ``BAD_RIM`` or ``BAD_CERTIFICATE``.
    :raises VerificationError: ``RIM_SIG_FAILED``, or as :func:`~..nitro.chain.verify_chain`.
    :raises EndorsementsError: ``NO_ROOTS``, ``COLLATERAL_EXPIRED`` or ``COLLATERAL_NOT_YET_VALID``.
    """
    chain = certificates_of(data)  # 1
    walked = _walk(chain, roots, now)  # 2
    version, product, measurements = _signed_content(data, chain[-1])  # 3, 4
    return Manifest(version, product, measurements, chain, walked.not_before, walked.not_after)


def _walk(chain: tuple[bytes, ...], roots: tuple[bytes, ...], now: int) -> VerifiedChain:
    try:
        return verify_chain(chain[:-1], chain[-1], roots, now)
    except VerificationError as error:
        # A manifest that has run out says nothing about the device: it could not be judged.
        match error.code:
            case "CERTIFICATE_EXPIRED":
                raise EndorsementsError("COLLATERAL_EXPIRED", "a manifest's signer has expired") from None
            case "CERTIFICATE_NOT_YET_VALID":
                detail = "a manifest's signer is not valid yet"
                raise EndorsementsError("COLLATERAL_NOT_YET_VALID", detail) from None
        raise


def certificates_of(data: bytes) -> tuple[bytes, ...]:
    """Return the certificates beside a manifest's signature, DER, root first; unverified.

    :raises MalformedError: ``BAD_RIM``. :raises ConfigurationError: ``EXTRA_MISSING``.
    """
    signature = _one(_parse(check_manifest(data)), f"{_DSIG}Signature")
    _check_profile(signature)
    holder = _one(_one(signature, f"{_DSIG}KeyInfo"), f"{_DSIG}X509Data")
    certificates = [_octets(element) for element in holder]
    if not MIN_CERTIFICATES <= len(certificates) <= MAX_CERTIFICATES:
        raise _bad("without a chain of two to six certificates")
    return tuple(reversed(certificates))


def _check_profile(signature: _Element) -> None:
    """Hold a signature to the one profile that NVIDIA uses, before anything in it is followed."""
    if [element.tag for element in signature] != [
        f"{_DSIG}SignedInfo",
        f"{_DSIG}SignatureValue",
        f"{_DSIG}KeyInfo",
    ]:
        raise _bad("with a signature of another profile")
    info = signature[0]
    names = [(element.tag.removeprefix(_DSIG), dict(element.attrib)) for element in info.iter()]
    if names != [
        ("SignedInfo", {}),
        ("CanonicalizationMethod", {"Algorithm": _C14N}),
        ("SignatureMethod", {"Algorithm": "http://www.w3.org/2001/04/xmldsig-more#ecdsa-sha384"}),
        ("Reference", {"URI": ""}),
        ("Transforms", {}),
        ("Transform", {"Algorithm": _ENVELOPED}),
        ("Transform", {"Algorithm": _C14N}),
        ("DigestMethod", {"Algorithm": "http://www.w3.org/2001/04/xmldsig-more#sha384"}),
        ("DigestValue", {}),
    ]:
        raise _bad("with a signature of another profile")


def _octets(element: _Element) -> bytes:
    if element.tag != f"{_DSIG}X509Certificate" or len(element) or not element.text:
        raise _bad("with something else than certificates beside its signature")
    try:
        return base64.b64decode("".join(element.text.split()), validate=True)
    except (binascii.Error, ValueError):
        raise _bad("with a certificate that is not base64") from None


@lru_cache(32)
def _signed_content(data: bytes, signer: bytes) -> tuple[str, str, dict[int, tuple[bytes, ...]]]:
    """Check the signature with a certificate's key and read what it covers.

    Both are facts of these bytes alone, and take most of a verification's time: they are remembered,
    for manifests whose chain is pinned. A failure is not.
    """
    try:
        from signxml.algorithms import DigestAlgorithm, SignatureMethod
        from signxml.verifier import SignatureConfiguration, XMLVerifier
    except ImportError:
        raise extra_missing() from None

    certificate = x509.load_der_x509_certificate(signer)
    rules = SignatureConfiguration(
        require_x509=True,
        location="./",
        expect_references=1,
        signature_methods=frozenset({SignatureMethod.ECDSA_SHA384}),
        digest_algorithms=frozenset({DigestAlgorithm.SHA384}),
        # Whether the certificate is valid was judged on the walk, at the caller's time.
        verification_time=certificate.not_valid_before_utc.astimezone(UTC),
    )
    try:
        found = XMLVerifier().verify(data, x509_cert=certificate, expect_config=rules, parser=_parser())
        results = found if isinstance(found, list) else [found]
        signed = results[0].signed_xml
    except Exception:  # signxml, lxml, cryptography and base64 each have their own kinds
        raise VerificationError("RIM_SIG_FAILED", "a manifest's signature does not match") from None
    if len(results) != 1 or signed is None:
        raise VerificationError("RIM_SIG_FAILED", "a manifest's signature covers something else")
    return _content(signed)


def _content(root: _Element) -> tuple[str, str, dict[int, tuple[bytes, ...]]]:
    if root.tag != f"{_SWID}SoftwareIdentity":
        raise _bad("no SWID tag")
    meta = _one(root, f"{_SWID}Meta")
    version, product = meta.get("colloquialVersion", ""), meta.get("product", "")
    payload = _one(root, f"{_SWID}Payload")
    measurements: dict[int, tuple[bytes, ...]] = {}
    seen: set[int] = set()
    for resource in payload:
        index, digests = _resource(resource)
        if index in seen:
            raise _bad("with a measurement twice")
        seen.add(index)
        if digests:
            measurements[index] = digests
    if not version or not product or not measurements:
        raise _bad("without a version, a product or measurements")
    return version, product, measurements


def _resource(element: _Element) -> tuple[int, tuple[bytes, ...]]:
    """Read one measurement; none of its digests where it is not active.

    Other kinds, e.g. minimum security versions ("Opaque Data RIM Attributes"), ask for something that is
    not compared here: leaving them aside would call a device good that the vendor does not.
    """
    index, count = element.get("index", ""), element.get("alternatives", "")
    active = element.get("active")
    if (
        element.tag != f"{_SWID}Resource"
        or element.get("type") != "Measurement"
        or element.get("size") != "48"
        or active not in ("True", "False")
        or not (_NUMBER.fullmatch(index) and _NUMBER.fullmatch(count))
        or int(index) >= MAX_MEASUREMENTS
        or not 1 <= int(count) <= MAX_ALTERNATIVES
    ):
        raise EndorsementsError("RIM_UNSUPPORTED", "a manifest asks for something that is not compared here")
    digests = [element.get(f"{_SHA384}Hash{number}", "") for number in range(int(count))]
    extra = [name for name in element.attrib if str(name).startswith(_SHA384)]
    if len(extra) != len(digests) or not all(_DIGEST.fullmatch(digest) for digest in digests):
        raise _bad("with a measurement that is no SHA-384 digest")
    return int(index), tuple(map(bytes.fromhex, digests)) if active == "True" else ()


def _one(parent: _Element, tag: str) -> _Element:
    found = [element for element in parent if element.tag == tag]
    if len(found) != 1:
        raise _bad("without one of its parts, or with two of them")
    return found[0]


def _parser() -> object:
    try:
        from lxml.etree import XMLParser
    except ImportError:
        raise extra_missing() from None
    return XMLParser(
        resolve_entities=False, no_network=True, load_dtd=False, dtd_validation=False, huge_tree=False
    )


def _parse(data: bytes) -> _Element:
    parser = _parser()
    from lxml.etree import LxmlError, fromstring

    try:
        root = fromstring(data, parser)
    except (LxmlError, ValueError):
        raise _bad("not XML") from None
    if sum(1 for _ in root.iter(f"{_DSIG}Signature")) != 1:
        raise _bad("without a signature, or with two")
    return root


def extra_missing() -> ConfigurationError:
    """Return the error that names the extra."""
    return ConfigurationError("EXTRA_MISSING", "manifests need an extra: pip install 'ephemeralml[nvidia]'")


def _bad(what: str) -> MalformedError:
    return MalformedError("BAD_RIM", f"a reference manifest is {what}")
