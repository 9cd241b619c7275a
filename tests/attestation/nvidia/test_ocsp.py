"""OCSP answers with exactly one thing wrong, and what good and bad news mean."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509 import ocsp
from cryptography.x509.oid import ExtendedKeyUsageOID

from ephemeralml.attestation.nvidia import NvidiaDetails
from ephemeralml.attestation.nvidia.ocsp import MAX_ANSWER_BYTES, check_answer, check_revocation
from ephemeralml.attestation.nvidia.verify import verify
from ephemeralml.wire.encoding import sha256
from ephemeralml.wire.errors import Error, MalformedError

from .forge import (
    DAY,
    NOW,
    Cert,
    OcspParts,
    Party,
    answers,
    device,
    endorsements,
    issue,
    links,
    make_evidence,
    make_ocsp,
    other_device,
    responder,
    rim_signers,
)

REVOKED = ocsp.OCSPCertStatus.REVOKED
HOLD = x509.ReasonFlags.certificate_hold


def boot() -> tuple[Party, Party]:
    """The boot ROM's certificate and its issuer."""
    return device()[3], device()[2]


def asked(*given: bytes, now: int = NOW) -> object:
    subject, issuer = boot()
    return check_revocation(subject.certificate, issuer.certificate, given, now)


def refused(*given: bytes, now: int = NOW) -> str:
    with pytest.raises(Error) as caught:
        asked(*given, now=now)
    return caught.value.code


def says(**changes: object) -> bytes:
    return make_ocsp(*boot(), OcspParts(**changes))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "make",
    [
        says,
        lambda: says(algorithm=hashes.SHA1()),  # noqa: S303 - only names a certificate
        lambda: says(algorithm=hashes.SHA384()),
        lambda: says(digest=hashes.SHA256()),
        lambda: says(next_update=None),
        lambda: says(this_update=NOW + 299),
        lambda: says(responder=responder(device()[2])),
        lambda: says(responder=device()[2], listed=(device()[2],)),
        lambda: says(
            digest=hashes.SHA256(),
            responder=issue(
                Cert("r", ca=False, rsa=True, extensions=(_purpose(ExtendedKeyUsageOID.OCSP_SIGNING),)),
                device()[2],
            ),
        ),
    ],
)
def test_good_news_is_good(make: Callable[[], bytes]) -> None:
    assert asked(make()) is not None


def _purpose(oid: x509.ObjectIdentifier) -> x509.ExtendedKeyUsage:
    return x509.ExtendedKeyUsage([oid])


def test_news_about_others_is_no_news() -> None:
    assert asked() is None
    assert asked(make_ocsp(other_device()[3], other_device()[2])) is None


@pytest.mark.parametrize(("name", "key"), [(False, False), (True, False), (False, True)])
def test_the_same_number_under_another_issuer_is_another_certificate(name: bool, key: bool) -> None:
    subject = x509.load_der_x509_certificate(boot()[0].certificate)
    issuer = x509.load_der_x509_certificate(boot()[1].certificate)
    point = issuer.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    builder = ocsp.OCSPResponseBuilder().add_response_by_hash(
        issuer_name_hash=sha256(issuer.subject.public_bytes()) if name else bytes(32),
        issuer_key_hash=sha256(point) if key else bytes(32),
        serial_number=subject.serial_number,
        algorithm=hashes.SHA256(),
        cert_status=ocsp.OCSPCertStatus.GOOD,
        this_update=subject.not_valid_before_utc,
        next_update=subject.not_valid_after_utc,
        revocation_time=None,
        revocation_reason=None,
    )
    named = builder.responder_id(ocsp.OCSPResponderEncoding.HASH, issuer)
    assert asked(named.sign(device()[2].key, hashes.SHA384()).public_bytes(Encoding.DER)) is None


def stranger() -> Party:
    return issue(Cert("stranger", ca=False, extensions=(_purpose(ExtendedKeyUsageOID.OCSP_SIGNING),)))


ANSWERS: list[tuple[str, Callable[[], bytes], str]] = [
    ("revoked", lambda: says(status=REVOKED), "CERTIFICATE_REVOKED"),
    (
        "a key that leaked",
        lambda: says(status=REVOKED, reason=x509.ReasonFlags.key_compromise),
        "CERTIFICATE_REVOKED",
    ),
    ("on hold", lambda: says(status=REVOKED, reason=HOLD), "CERTIFICATE_ON_HOLD"),
    ("unknown", lambda: says(status=ocsp.OCSPCertStatus.UNKNOWN), "CERTIFICATE_UNKNOWN"),
    ("expired", lambda: says(next_update=NOW - 1), "COLLATERAL_EXPIRED"),
    (
        "of yesterday, without an end",
        lambda: says(this_update=NOW - DAY - 1, next_update=None),
        "COLLATERAL_EXPIRED",
    ),
    ("of tomorrow", lambda: says(this_update=NOW + 301), "COLLATERAL_NOT_YET_VALID"),
    (
        "revoked, and expired",
        lambda: says(status=REVOKED, this_update=NOW - 9 * DAY, next_update=NOW - 8 * DAY),
        "CERTIFICATE_REVOKED",
    ),
    ("by the certificate itself", lambda: says(responder=device()[3]), "OCSP_SIG_FAILED"),
    ("by a stranger", lambda: says(responder=stranger()), "OCSP_SIG_FAILED"),
    ("by the issuer's issuer", lambda: says(responder=device()[1]), "OCSP_SIG_FAILED"),
    (
        "by one whom the issuer made for something else",
        lambda: says(
            responder=responder(
                device()[2], Cert("r", ca=False, extensions=(_purpose(ExtendedKeyUsageOID.SERVER_AUTH),))
            )
        ),
        "OCSP_SIG_FAILED",
    ),
    (
        "by one made for nothing",
        lambda: says(responder=responder(device()[2], Cert("r", ca=False))),
        "OCSP_SIG_FAILED",
    ),
    (
        "by a responder that has expired",
        lambda: says(
            responder=responder(
                device()[2],
                Cert(
                    "r",
                    ca=False,
                    window=(NOW - DAY, NOW - 1),
                    extensions=(_purpose(ExtendedKeyUsageOID.OCSP_SIGNING),),
                ),
            )
        ),
        "OCSP_SIG_FAILED",
    ),
    (
        "under another responder's certificate",
        lambda: says(responder=device()[2], listed=(responder(device()[2]),)),
        "OCSP_SIG_FAILED",
    ),
]


@pytest.mark.parametrize(("make", "code"), [row[1:] for row in ANSWERS], ids=[row[0] for row in ANSWERS])
def test_an_answer_that_is_bad_is_refused(make: Callable[[], bytes], code: str) -> None:
    assert refused(make()) == code


def test_a_changed_answer_is_refused() -> None:
    data = says()
    place = data.index(b"20231114") + 6  # a day of its times
    changed = data[:place] + b"15" + data[place + 2 :]
    assert refused(changed) == "OCSP_SIG_FAILED"


def test_an_answer_by_an_unknown_algorithm_is_refused() -> None:
    data = says()
    sha384, other = bytes.fromhex("06082a8648ce3d040303"), bytes.fromhex("06082a8648ce3d047303")
    assert data.count(sha384) == 1
    assert refused(data.replace(sha384, other)) == "OCSP_SIG_FAILED"


def test_bad_news_is_not_outweighed_by_good() -> None:
    good, bad = says(), says(status=REVOKED)
    assert refused(good, bad) == refused(bad, good) == "CERTIFICATE_REVOKED"


def test_of_several_good_answers_the_current_one_counts() -> None:
    old = says(next_update=NOW - 1)
    assert asked(old, says()) is not None
    assert asked(says(), old) is not None


@pytest.mark.parametrize("data", [b"", b"0", b"\x30\x03\x0a\x01\x06", b"0" * (MAX_ANSWER_BYTES + 1)])
def test_what_is_no_answer_is_refused(data: bytes) -> None:
    with pytest.raises(MalformedError, match="BAD_OCSP"):
        check_answer(data)
    assert refused(data) == "BAD_OCSP"


def judge(given: Sequence[bytes]) -> bool:
    verified = verify(make_evidence(), endorsements(ocsp=tuple(given)), NOW)
    checked = NvidiaDetails.of(verified).devices[0].revocation_checked
    assert checked == ("OCSP_NOT_CHECKED" not in {code for code, _ in verified.findings})
    return checked


@pytest.mark.parametrize("missing", range(6))
def test_every_certificate_must_be_answered_for(missing: int) -> None:
    assert len(answers()) == 6  # boot ROM, provisioner, identity; signer and two above it
    assert judge(answers())
    assert not judge([one for place, one in enumerate(answers()) if place != missing])


@pytest.mark.parametrize("place", range(6))
def test_one_revoked_certificate_refuses_all(place: int) -> None:
    pair = [*links(device()[:-1]), *links(rim_signers())][place]
    bad = make_ocsp(*pair, OcspParts(status=REVOKED, reason=HOLD))
    with pytest.raises(Error, match="CERTIFICATE_ON_HOLD"):
        judge([*answers(), bad])


def test_validity_ends_with_the_first_answer() -> None:
    verified = verify(make_evidence(), endorsements(), NOW)
    assert (verified.not_before, verified.not_after) == (NOW - 3600, NOW + DAY)


def test_an_issuer_with_an_rsa_key_is_recognised() -> None:
    issuer = issue(Cert("rsa issuer", rsa=True))
    subject = issue(Cert("below", ca=False), issuer)
    data = make_ocsp(subject, issuer, OcspParts(digest=hashes.SHA256()))
    assert check_revocation(subject.certificate, issuer.certificate, [data], NOW) is not None


def test_keys_of_another_kind_do_not_match() -> None:
    other = issue(Cert("other", curve=ec.SECP256R1()))
    subject = issue(Cert("below", ca=False), other)
    data = make_ocsp(subject, other, OcspParts(digest=hashes.SHA256()))
    assert check_revocation(subject.certificate, other.certificate, [data], NOW) is not None
    with pytest.raises(MalformedError, match="BAD_CERTIFICATE"):
        check_revocation(b"0", other.certificate, [data], NOW)
