"""The simulated TEE: Nitro's format, a root of one's own, and no way to pass for the real one."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from ephemeralml.attestation import (
    DevelopmentRoot,
    Endorsements,
    SimulatedAttester,
    development_pcrs,
    verify_evidence,
)
from ephemeralml.attestation.attest import Attester
from ephemeralml.attestation.evidence import VerifiedEvidence
from ephemeralml.attestation.nitro import AWS_NITRO_ROOT_G1, NitroDetails, NitroEndorsements
from ephemeralml.attestation.nitro.parse import parse
from ephemeralml.attestation.nitro.verify import verify as verify_nitro
from ephemeralml.attestation.simulated import SimulatedEndorsements
from ephemeralml.attestation.simulated.root import CERTIFICATES_FILE, KEY_FILE
from ephemeralml.attestation.simulated.verify import verify
from ephemeralml.wire.errors import ConfigurationError, EndorsementsError, MalformedError, VerificationError

NOW = 1_700_000_000
PCRS = development_pcrs("worker")


@pytest.fixture(scope="module")
def root() -> DevelopmentRoot:
    return DevelopmentRoot.create(now=NOW)


def attester(root: DevelopmentRoot, at: float = NOW) -> SimulatedAttester:
    return SimulatedAttester(root, PCRS, now=lambda: at)


def check(root: DevelopmentRoot, document: bytes, now: int = NOW) -> VerifiedEvidence:
    return verify(document, SimulatedEndorsements((root.fingerprint,)), now)


def test_a_document_carries_what_was_asked_and_measured(root: DevelopmentRoot) -> None:
    made: Attester = attester(root)
    verified = check(root, made.attest(public_key=b"p" * 32, user_data=b"u", nonce=b"n"))
    details = NitroDetails.of(verified)
    assert (details.public_key, details.user_data, details.nonce) == (b"p" * 32, b"u", b"n")
    assert verified.measurements == made.measurements()
    assert {index: NitroDetails.of(verified).registers[index] for index in PCRS} == PCRS
    assert set(NitroDetails.of(verified).registers) == set(range(16))
    assert (verified.platform, verified.simulated, verified.debug) == ("simulated", True, False)
    assert verified.issued_at == NOW
    assert verified.root_fingerprint == root.fingerprint


def test_what_was_not_asked_is_absent(root: DevelopmentRoot) -> None:
    verified = check(root, attester(root).attest())
    details = NitroDetails.of(verified)
    assert (details.public_key, details.user_data, details.nonce) == (None, None, None)


def test_every_document_is_new(root: DevelopmentRoot) -> None:
    made = attester(root)
    one, two = parse(made.attest()), parse(made.attest())
    assert one.certificate != two.certificate
    assert one.module_id == two.module_id


def test_all_1024_bytes_of_each_value_fit(root: DevelopmentRoot) -> None:
    document = attester(root).attest(public_key=b"p" * 1024, user_data=b"u" * 1024, nonce=b"n" * 1024)
    assert check(root, document).details.binds_nonce(b"n" * 1024)


@pytest.mark.parametrize("field", ["public_key", "user_data", "nonce"])
def test_a_value_too_long_is_refused(root: DevelopmentRoot, field: str) -> None:
    with pytest.raises(MalformedError, match="OUT_OF_BOUNDS"):
        attester(root).attest(**{field: bytes(1025)})


@pytest.mark.parametrize("pcrs", [{32: bytes(48)}, {-1: bytes(48)}, {0: bytes(47)}, {0: b""}])
def test_bad_registers_are_refused(root: DevelopmentRoot, pcrs: dict[int, bytes]) -> None:
    with pytest.raises(ConfigurationError, match="BAD_PCR"):
        SimulatedAttester(root, pcrs)


def test_registers_that_are_not_given_are_zero_as_in_a_debug_enclave(root: DevelopmentRoot) -> None:
    assert check(root, SimulatedAttester(root, {}, now=lambda: NOW).attest()).debug


def test_development_registers_stand_for_a_name() -> None:
    assert development_pcrs("worker") == PCRS
    assert development_pcrs("another")[0] != PCRS[0]
    assert len(set(PCRS.values())) == 3


def test_a_document_lives_three_hours(root: DevelopmentRoot) -> None:
    document = attester(root).attest()
    check(root, document, NOW - 300)
    check(root, document, NOW + 3 * 3600)
    for now in (NOW - 301, NOW + 3 * 3600 + 1):
        with pytest.raises(VerificationError):
            check(root, document, now)


def test_a_root_expires() -> None:
    root = DevelopmentRoot.create(now=NOW, lifetime_s=60)
    with pytest.raises(VerificationError, match="CERTIFICATE_EXPIRED"):
        check(root, attester(root, NOW + 61).attest(), NOW + 61)


def test_it_is_no_nitro_document(root: DevelopmentRoot) -> None:
    document = attester(root).attest()
    with pytest.raises(VerificationError, match="UNKNOWN_ROOT"):
        verify_nitro(document, NitroEndorsements(), NOW)
    with pytest.raises(VerificationError, match="UNKNOWN_ROOT"):
        verify_evidence("nitro", document, simulated_only(root), NOW)


def simulated_only(root: DevelopmentRoot) -> Endorsements:
    return Endorsements(simulated=SimulatedEndorsements((root.fingerprint,)))


def test_the_platforms_do_not_share_their_roots(root: DevelopmentRoot) -> None:
    document = attester(root).attest()
    assert verify_evidence("simulated", document, simulated_only(root), NOW).simulated
    roots = NitroEndorsements((root.fingerprint,))
    with pytest.raises(EndorsementsError, match="NO_ROOTS"):
        verify_evidence("simulated", document, Endorsements(nitro=roots), NOW)


def test_default_endorsements_refuse_it(root: DevelopmentRoot) -> None:
    with pytest.raises(EndorsementsError, match="NO_ROOTS"):
        verify_evidence("simulated", attester(root).attest(), Endorsements(), NOW)


def test_another_development_root_refuses_it(root: DevelopmentRoot) -> None:
    with pytest.raises(VerificationError, match="UNKNOWN_ROOT"):
        check(DevelopmentRoot.create(now=NOW), attester(root).attest())


@pytest.mark.parametrize("platform", ["", "sev-snp", "NITRO", "simulated "])
def test_an_unknown_platform_cannot_be_judged(root: DevelopmentRoot, platform: str) -> None:
    with pytest.raises(EndorsementsError, match="UNKNOWN_PLATFORM"):
        verify_evidence(platform, attester(root).attest(), Endorsements(), NOW)


def test_the_vendors_root_is_no_development_root() -> None:
    with pytest.raises(ConfigurationError, match="BAD_FINGERPRINT"):
        SimulatedEndorsements((AWS_NITRO_ROOT_G1,))


# ------------------------------------------------------------------ save, load


def test_a_saved_root_is_the_same_root(root: DevelopmentRoot, tmp_path: Path) -> None:
    root.save(tmp_path / "new" / "root")
    loaded = DevelopmentRoot.load(tmp_path / "new" / "root")
    assert loaded.fingerprint == root.fingerprint
    assert loaded.certificates == root.certificates
    check(root, attester(loaded).attest())


def test_the_key_is_private_whatever_the_umask(root: DevelopmentRoot, tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        root.save(tmp_path)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / KEY_FILE).stat().st_mode) == 0o600


def test_a_saved_root_is_never_overwritten(root: DevelopmentRoot, tmp_path: Path) -> None:
    root.save(tmp_path)
    with pytest.raises(ConfigurationError, match="DEVELOPMENT_ROOT_EXISTS"):
        DevelopmentRoot.create(now=NOW).save(tmp_path)
    assert DevelopmentRoot.load(tmp_path).fingerprint == root.fingerprint


def test_an_exposed_key_is_not_used(root: DevelopmentRoot, tmp_path: Path) -> None:
    root.save(tmp_path)
    (tmp_path / KEY_FILE).chmod(0o644)
    with pytest.raises(ConfigurationError, match="DEVELOPMENT_ROOT_EXPOSED"):
        DevelopmentRoot.load(tmp_path)


def test_a_missing_root_is_one_line_without_its_path(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="DEVELOPMENT_ROOT_UNREADABLE") as caught:
        DevelopmentRoot.load(tmp_path / "nothing")
    assert str(tmp_path) not in str(caught.value)


def test_a_folder_that_cannot_be_made_is_one_line(root: DevelopmentRoot, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError, match="DEVELOPMENT_ROOT_UNWRITABLE"):
        root.save(tmp_path / "file" / "below")


@pytest.mark.parametrize("name", [KEY_FILE, CERTIFICATES_FILE])
@pytest.mark.parametrize("content", [b"", b"-----BEGIN CERTIFICATE-----\n", b"\xff\0"])
def test_a_broken_root_is_refused(root: DevelopmentRoot, tmp_path: Path, name: str, content: bytes) -> None:
    root.save(tmp_path)
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ConfigurationError, match="DEVELOPMENT_ROOT_MALFORMED"):
        DevelopmentRoot.load(tmp_path)


def test_a_key_of_another_root_is_refused(root: DevelopmentRoot, tmp_path: Path) -> None:
    root.save(tmp_path / "one")
    DevelopmentRoot.create(now=NOW).save(tmp_path / "two")
    (tmp_path / "one" / KEY_FILE).write_bytes((tmp_path / "two" / KEY_FILE).read_bytes())
    with pytest.raises(ConfigurationError, match="DEVELOPMENT_ROOT_MALFORMED"):
        DevelopmentRoot.load(tmp_path / "one")


def test_no_repr_shows_the_key(root: DevelopmentRoot) -> None:
    key = root.issuing_key.private_bytes(Encoding.DER, PrivateFormat.PKCS8, NoEncryption())
    assert "issuing_key" not in repr(root)
    assert repr(key) not in repr(root)
