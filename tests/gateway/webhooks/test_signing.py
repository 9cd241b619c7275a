"""Signatures: against the public library, the specification's own example, and every byte changed."""

from __future__ import annotations

import base64
import os
import time

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from ephemeralml.producer.gateway.webhooks.keys import Master, master_of_file, read_master, shown
from ephemeralml.producer.gateway.webhooks.signing import (
    ID,
    SIGNATURE,
    TIMESTAMP,
    Ed25519SigningKey,
    HmacKey,
    headers,
    read_verifying_key,
    verify,
)
from ephemeralml.wire.errors import ConfigurationError, VerificationError

NOW = 1_800_000_000
BODY = b'{"type":"webhook.test","data":{}}'
SHARED = HmacKey(bytes(range(32)))
SIGNING = Ed25519SigningKey(Ed25519PrivateKey.from_private_bytes(bytes(range(32))))
ID_1 = "msg_" + "0" * 32


def test_the_example_of_the_specification() -> None:
    # Standard Webhooks, libraries' shared test vector: id, timestamp, body and secret with this signature.
    key = HmacKey(base64.b64decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"))
    made = headers([key], "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}')
    assert made[SIGNATURE] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_the_public_library_takes_what_we_sign() -> None:
    made = headers([SHARED], ID_1, int(time.time()), BODY)
    assert Webhook(SHARED.text).verify(BODY, made) == {"type": "webhook.test", "data": {}}
    with pytest.raises(WebhookVerificationError):
        Webhook(HmacKey(os.urandom(32)).text).verify(BODY, made)


def test_we_take_what_the_public_library_signs() -> None:
    from datetime import UTC, datetime

    at = datetime.fromtimestamp(NOW, UTC)
    signature = Webhook(SHARED.text).sign(ID_1, at, BODY.decode())
    assert verify([SHARED], ID_1, str(NOW), signature, BODY, NOW).message_id == ID_1


def test_ed25519_is_of_the_specifications_form() -> None:
    made = headers([SIGNING], ID_1, NOW, BODY)
    version, _, value = made[SIGNATURE].partition(",")
    assert version == "v1a"
    raw = base64.b64decode(SIGNING.public.text.removeprefix("whpk_"))
    signed = f"{ID_1}.{NOW}.{BODY.decode()}".encode()
    Ed25519PublicKey.from_public_bytes(raw).verify(base64.b64decode(value), signed)


@pytest.mark.parametrize("key", [SHARED, SIGNING])
def test_receivers_take_their_key_and_no_other(key: HmacKey | Ed25519SigningKey) -> None:
    made = headers([key], ID_1, NOW, BODY)
    mine = read_verifying_key(shown(key))
    verify([mine], made[ID], made[TIMESTAMP], made[SIGNATURE], BODY, NOW)
    other = Master(os.urandom(32)).key("v1" if key is SHARED else "v1a", bytes(16), 1)
    with pytest.raises(VerificationError, match="WEBHOOK_SIGNATURE"):
        verify([read_verifying_key(shown(other))], made[ID], made[TIMESTAMP], made[SIGNATURE], BODY, NOW)


def test_rotation_either_key_verifies() -> None:
    old = HmacKey(os.urandom(32))
    made = headers([SHARED, old], ID_1, NOW, BODY)
    for key in (SHARED, old):
        verify([key], made[ID], made[TIMESTAMP], made[SIGNATURE], BODY, NOW)
        Webhook(key.text).verify(BODY, headers([SHARED, old], ID_1, int(time.time()), BODY))


@pytest.mark.parametrize("key", [SHARED, SIGNING.public])
def test_no_byte_may_change(key: HmacKey) -> None:
    made = headers([SHARED, SIGNING], ID_1, NOW, BODY)
    signature = made[SIGNATURE]
    for place in range(len(BODY)):
        changed = bytearray(BODY)
        changed[place] ^= 1
        with pytest.raises(VerificationError, match="WEBHOOK_SIGNATURE"):
            verify([key], ID_1, str(NOW), signature, bytes(changed), NOW)
    for other_id, other_time in ((ID_1[:-1] + "1", str(NOW)), (ID_1, str(NOW + 1))):
        with pytest.raises(VerificationError, match="WEBHOOK_SIGNATURE"):
            verify([key], other_id, other_time, signature, BODY, NOW)


@pytest.mark.parametrize("age", [301, -301, 10**6])
def test_old_and_early_webhooks_are_refused(age: int) -> None:
    made = headers([SHARED], ID_1, NOW, BODY)
    with pytest.raises(VerificationError, match="WEBHOOK_TIMESTAMP"):
        verify([SHARED], ID_1, made[TIMESTAMP], made[SIGNATURE], BODY, NOW + age)
    verify([SHARED], ID_1, made[TIMESTAMP], made[SIGNATURE], BODY, NOW + age // abs(age) * 300)


@pytest.mark.parametrize(
    ("message_id", "timestamp"),
    [
        ("", str(NOW)),
        (ID_1, ""),
        ("a.b", str(NOW)),
        (ID_1, "1e9"),
        (ID_1, "-1"),
        (ID_1, "٣"),
        ("a" * 129, "1"),
    ],
)
def test_headers_of_another_form_are_refused(message_id: str, timestamp: str) -> None:
    with pytest.raises(VerificationError, match="WEBHOOK_HEADERS"):
        verify([SHARED], message_id, timestamp, "v1,AAAA", BODY, NOW)


@pytest.mark.parametrize(
    "signature", ["", "v1", "v1,", "v1,%%%", "v1a," + "A" * 88, " ".join(["v1,AAAA"] * 100)]
)
def test_signatures_of_another_form_are_refused(signature: str) -> None:
    with pytest.raises(VerificationError, match="WEBHOOK_SIGNATURE"):
        verify([SHARED, SIGNING.public], ID_1, str(NOW), signature, BODY, NOW)


@pytest.mark.parametrize(
    "text", ["", "whsec_", "whsec_AAAA", "whsk_" + "A" * 44, "whpk_AAAA", "eml_" + "A" * 44]
)
def test_other_texts_are_no_keys(text: str) -> None:
    with pytest.raises(ConfigurationError, match="BAD_WEBHOOK_KEY"):
        read_verifying_key(text)


def test_keys_differ_by_endpoint_version_and_kind(tmp_path: object) -> None:
    master = Master(bytes(32))
    texts = {
        shown(master.key(kind, bytes([endpoint]) * 16, version))
        for kind in ("v1", "v1a")
        for endpoint in (1, 2)
        for version in (1, 2)
    }
    assert len(texts) == 8
    assert master.is_of(bytes(16), master.check(bytes(16)))
    assert not Master(bytes(31) + b"\x01").is_of(bytes(16), master.check(bytes(16)))
    assert "secret" not in repr(master)
    assert repr(SHARED) == "HmacKey(…)"


def test_the_masters_file_is_made_once_and_for_its_owner(tmp_path: object) -> None:
    from pathlib import Path

    assert isinstance(tmp_path, Path)
    path = tmp_path / "new" / "master"
    assert master_of_file(path) == master_of_file(path)
    assert path.stat().st_mode & 0o777 == 0o600
    path.write_text("no secret")
    with pytest.raises(ConfigurationError, match="BAD_WEBHOOK_MASTER"):
        master_of_file(path)
    with pytest.raises(ConfigurationError, match="BAD_WEBHOOK_MASTER"):
        read_master("AAAA")
