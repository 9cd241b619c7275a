"""Keys of the local KMS through their states, on disk and in the audit log."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError

from ephemeralml.attestation.key_release.local_kms import LocalKms, Principal
from ephemeralml.attestation.key_release.local_kms.audit import AuditLog, check_audit, set_aside
from ephemeralml.attestation.key_release.local_kms.store import KeyStore
from ephemeralml.attestation.simulated import SimulatedAttester
from ephemeralml.wire.errors import ConfigurationError, KeyReleaseError, VerificationError

from .conftest import CONTEXT, OWNER, STRANGER, WORKER, Connect, StartKms

Raw = Callable[[Principal], Any]
DAY_S = 86_400


def kind(call: Callable[[], Any]) -> str:
    with pytest.raises(ClientError) as caught:
        call()
    return str(caught.value.response["Error"]["Code"])


def released(worker: Any, wrapped: bytes) -> bool:
    try:
        return len(worker.decrypt(wrapped, CONTEXT)) == 32
    except KeyReleaseError as error:
        if error.code != "KMS_KEY_UNUSABLE":
            raise
        return False


def test_the_owner_reads_a_key_s_policy_and_nobody_else_does(kms: LocalKms, raw_client: Raw) -> None:
    owner = raw_client(OWNER)
    answer = owner.get_key_policy(KeyId="alias/fleet")
    assert answer["PolicyName"] == "default"
    statements = json.loads(answer["Policy"])["Statement"]
    assert {one["Sid"] for one in statements} == {"AttestedWorkers", "OwnerTends"}
    assert kind(lambda: owner.get_key_policy(KeyId="alias/fleet", PolicyName="x")) == "ValidationException"
    for other in (WORKER, STRANGER):
        assert kind(lambda who=other: raw_client(who).get_key_policy(KeyId="alias/fleet")) == (  # type: ignore[misc]
            "AccessDeniedException"
        )


def test_states(kms: LocalKms, attester: SimulatedAttester, connect: Connect, raw_client: Raw) -> None:
    owner, worker = raw_client(OWNER), connect(attester, kms)
    wrapped = worker.generate_data_key(CONTEXT).wrapped
    key = owner.describe_key(KeyId="alias/fleet")["KeyMetadata"]["KeyId"]

    def state() -> str:
        return str(owner.describe_key(KeyId=key)["KeyMetadata"]["KeyState"])

    owner.disable_key(KeyId=key)
    assert (state(), released(worker, wrapped)) == ("Disabled", False)
    owner.enable_key(KeyId=key)
    assert (state(), released(worker, wrapped)) == ("Enabled", True)
    owner.schedule_key_deletion(KeyId=key, PendingWindowInDays=7)
    assert (state(), released(worker, wrapped)) == ("PendingDeletion", False)
    for call in (owner.enable_key, owner.disable_key, owner.schedule_key_deletion):
        assert kind(lambda call=call: call(KeyId=key)) == "KMSInvalidStateException"  # type: ignore[misc]
    owner.cancel_key_deletion(KeyId=key)
    assert state() == "Disabled"
    assert kind(lambda: owner.cancel_key_deletion(KeyId=key)) == "KMSInvalidStateException"
    owner.enable_key(KeyId=key)
    assert released(worker, wrapped)


@pytest.mark.parametrize("principal", [WORKER, STRANGER])
def test_only_the_owner_tends_keys(kms: LocalKms, raw_client: Raw, principal: Principal) -> None:
    client = raw_client(principal)
    for call in (client.disable_key, client.enable_key, client.schedule_key_deletion, client.describe_key):
        assert kind(lambda call=call: call(KeyId="alias/fleet")) == "AccessDeniedException"  # type: ignore[misc]
    assert client.list_keys()["Keys"] == client.list_aliases()["Aliases"] == []


def test_a_key_is_gone_when_its_time_has_come(start_kms: StartKms, raw_client: Raw) -> None:
    clock = [time.time()]
    kms = start_kms(now=lambda: clock[0])
    service = kms._server.service if kms._server else None
    assert service is not None
    key = service._store.find("alias/fleet", clock[0])
    service._store.set_state(key, enabled=False, deletion_at=int(clock[0]) + 7 * DAY_S)
    assert service._store.find("alias/fleet", clock[0] + 6 * DAY_S)
    blob = key.wrap(b"k" * 32, CONTEXT)
    from ephemeralml.attestation.key_release.local_kms.refusals import Refusal

    with pytest.raises(Refusal):
        service._store.find("alias/fleet", clock[0] + 8 * DAY_S)
    with pytest.raises(Refusal):
        service._store.of_blob(blob, clock[0] + 8 * DAY_S)
    kms.stop()
    # A restart after that makes another key of the same name, which opens nothing of the old.
    later = KeyStore(kms.config.directory, ["alias/fleet"], now=clock[0] + 8 * DAY_S)
    assert later.find("alias/fleet", clock[0]).id != key.id
    assert key.secret.hex() not in (kms.config.directory / "keys.json").read_text()


def test_aliases_and_lists(start_kms: StartKms, raw_client: Raw) -> None:
    owner = raw_client(OWNER)
    assert kind(lambda: owner.create_alias(AliasName="alias/x", TargetKeyId="alias/fleet")) == (
        "AccessDeniedException"
    )
    assert len(owner.list_keys()["Keys"]) == 2
    listed = owner.list_aliases(KeyId="alias/model")["Aliases"]
    assert [one["AliasName"] for one in listed] == ["alias/model"]


def test_more_names_for_a_key(tmp_path: Path) -> None:
    from ephemeralml.attestation.key_release.local_kms.refusals import Refusal

    store = KeyStore(tmp_path / "kms", ["alias/a"])
    store.add_alias(store.find("alias/a", 0), "alias/b")
    with pytest.raises(Refusal):
        store.add_alias(store.find("alias/a", 0), "alias/b")
    again = KeyStore(tmp_path / "kms", ["alias/a"])
    assert again.find("alias/b", 0).secret == store.find("alias/a", 0).secret


# ------------------------------------------------------------------- on disk


def test_states_survive_a_restart_and_cannot_be_edited(tmp_path: Path) -> None:
    folder = tmp_path / "kms"
    store = KeyStore(folder, ["alias/a"])
    key = store.set_state(store.find("alias/a", 0), enabled=False, deletion_at=None)
    assert KeyStore(folder, ["alias/a"]).find("alias/a", 0) == key
    file = folder / "keys.json"
    value = json.loads(file.read_text())
    value["keys"][0]["enabled"] = True
    file.write_text(json.dumps(value))
    with pytest.raises(ConfigurationError, match="KMS_STORE_UNUSABLE"):
        KeyStore(folder, ["alias/a"])


def test_keys_are_of_no_use_without_the_master_key(tmp_path: Path) -> None:
    folder, master = tmp_path / "kms", tmp_path / "elsewhere.key"
    secret = KeyStore(folder, ["alias/a"], master=master).find("alias/a", 0).secret
    assert secret not in (folder / "keys.json").read_bytes()
    before = (folder / "keys.json").read_bytes()
    assert KeyStore(folder, ["alias/a"], master=master).find("alias/a", 0).secret == secret
    assert (folder / "keys.json").read_bytes() == before  # starting writes nothing
    master.unlink()
    with pytest.raises(ConfigurationError, match="KMS_STORE_UNUSABLE"):
        KeyStore(folder, ["alias/a"], master=master)
    master.write_bytes(bytes(32))
    master.chmod(0o600)
    with pytest.raises(ConfigurationError, match="not of this master key"):
        KeyStore(folder, ["alias/a"], master=master)
    master.chmod(0o640)
    with pytest.raises(ConfigurationError, match="KMS_STORE_EXPOSED"):
        KeyStore(folder, ["alias/a"], master=master)


def test_taking_documents_once_needs_an_age(start_kms: StartKms) -> None:
    with pytest.raises(ConfigurationError, match="BAD_KMS_SETTINGS"):
        start_kms(max_document_age_s=None)


# ------------------------------------------------------------- the audit log


def test_the_chain_goes_on_over_rotation_and_restart(tmp_path: Path) -> None:
    for turn in range(3):
        log = AuditLog(tmp_path, max_bytes=400)
        for number in range(5):
            log.write({"turn": turn, "number": number})
        log.close()
    assert len(set_aside(tmp_path)) >= 2
    count, last = check_audit(tmp_path)
    assert (count, len(last)) == (15, 64)


@pytest.mark.parametrize("torn", [b"{", b'{"prev": "', b'{"a": 1, "prev": "x"}'])
def test_a_torn_line_is_cut_off(tmp_path: Path, torn: bytes) -> None:
    log = AuditLog(tmp_path)
    log.write({"number": 1})
    log.close()
    with (tmp_path / "audit.jsonl").open("ab") as file:
        file.write(torn)
    with pytest.raises(VerificationError):
        check_audit(tmp_path)
    log = AuditLog(tmp_path)
    log.write({"number": 2})
    log.close()
    assert check_audit(tmp_path)[0] == 2


def followed(folder: Path) -> tuple[int, str] | None:
    try:
        return check_audit(folder)
    except VerificationError:
        return None


def test_any_changed_byte_but_the_last_line_s_shows(tmp_path: Path) -> None:
    log = AuditLog(tmp_path)
    for number in range(4):
        log.write({"number": number})
    log.close()
    file = tmp_path / "audit.jsonl"
    good = file.read_bytes()
    kept = check_audit(tmp_path)
    for at in range(0, len(good), 7):
        file.write_bytes(good[:at] + bytes((good[at] ^ 1,)) + good[at + 1 :])
        assert followed(tmp_path) != kept  # of the last line, the last hash tells
    file.unlink()
    with pytest.raises(ConfigurationError):
        check_audit(tmp_path)
