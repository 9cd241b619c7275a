"""The fleet key as ``doctor`` sees it: local KMS, and Google's side on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ephemeralml.attestation.key_release.aws_settings import AwsSettings
from ephemeralml.attestation.key_release.local_kms import LocalKms, Principal
from ephemeralml.attestation.key_release.stored import StoredKey, fleet_context, key_name
from ephemeralml.broker_config import make_blob_store
from ephemeralml.broker_config.settings import BrokerSettings
from ephemeralml.producer.cli.doctor.finding import Finding
from ephemeralml.producer.cli.doctor.key import Wrapped, aws_key, gcp_key, stored_key
from ephemeralml.wire.errors import ConfigurationError, MalformedError

from ...key_release.conftest import OWNER, STRANGER, WORKER, StartKms
from ...key_release.gcp.google import KEY, Google, serve
from ...servers.moto import moto_server

CONTEXT = fleet_context("small", 3)


def look(kms: LocalKms | str, who: Principal, key: str = "alias/fleet", **more: Any) -> dict[str, Finding]:
    settings = AwsSettings(
        endpoint_url=kms if isinstance(kms, str) else kms.endpoint,
        region="us-east-1",
        access_key_id=who.access_key_id,
        secret_access_key=who.secret_access_key,
    )
    return {finding.code: finding for finding in aws_key(settings, key, **more)}


def verdicts(found: dict[str, Finding]) -> dict[str, str]:
    return {code: finding.verdict for code, finding in found.items()}


def test_the_worker_is_denied_what_it_gets_in_its_tee_only(
    kms: LocalKms, connect: Any, attester: Any
) -> None:
    made = connect(attester, kms).generate_data_key(CONTEXT)
    found = look(kms, WORKER, wrapped=Wrapped(made.wrapped, CONTEXT))
    assert verdicts(found) == {
        "KEY_STATE": "ok",
        "KEY_POLICY": "warning",
        "KEY_DIRECT": "ok",
        "KEY_DIRECT_DECRYPT": "ok",
    }
    assert "denied" in found["KEY_DIRECT_DECRYPT"].seen


def test_the_owner_reads_the_policy_and_is_denied_the_key(kms: LocalKms) -> None:
    found = look(kms, OWNER)
    assert verdicts(found) == {"KEY_STATE": "ok", "KEY_POLICY": "ok", "KEY_DIRECT": "ok"}
    assert found["KEY_STATE"].seen == "the key is enabled"


def test_a_key_that_is_given_without_a_tee_is_found_by_trying_and_by_reading(
    start_kms: StartKms, connect: Any, attester: Any
) -> None:
    everyone = {"Effect": "Allow", "Principal": {"AWS": "*"}, "Action": "kms:*", "Resource": "*"}
    kms = start_kms(policies={"alias/fleet": {"Version": "2012-10-17", "Statement": [everyone]}})
    made = connect(attester, kms).generate_data_key(CONTEXT)
    found = look(kms, STRANGER, wrapped=Wrapped(made.wrapped, CONTEXT))
    assert found["KEY_DIRECT"].verdict == found["KEY_DIRECT_DECRYPT"].verdict == "problem"
    assert "confidential" in found["KEY_DIRECT"].cause
    codes = {code for code, finding in found.items() if finding.verdict == "problem"}
    assert {"KEY_POLICY_RELEASES_UNATTESTED", "KEY_POLICY_ANYONE_MAY_CHANGE"} <= codes
    assert "KEY_POLICY" not in found


def test_a_blob_that_the_host_put_there_proves_nothing(kms: LocalKms) -> None:
    found = look(kms, WORKER, wrapped=Wrapped(b"no wrapped key", CONTEXT))
    assert found["KEY_DIRECT_DECRYPT"].verdict == "warning"
    assert "not asked" in found["KEY_DIRECT_DECRYPT"].seen


def test_a_model_key_of_its_owner_shows_as_one(kms: LocalKms) -> None:
    found = look(kms, OWNER, "alias/model")
    assert found["KEY_DIRECT"].verdict == "problem"
    assert found["KEY_POLICY_RELEASES_UNATTESTED"].verdict == "problem"


def test_a_disabled_key_and_one_that_is_not_there(kms: LocalKms, raw_client: Any) -> None:
    client = raw_client(OWNER)
    client.disable_key(KeyId=client.describe_key(KeyId="alias/fleet")["KeyMetadata"]["KeyId"])
    found = look(kms, OWNER)
    assert (found["KEY_STATE"].verdict, found["KEY_STATE"].seen) == (
        "problem",
        "the key is Disabled, for ENCRYPT_DECRYPT",
    )
    nowhere = look(kms, OWNER, "alias/none")
    assert set(verdicts(nowhere).values()) == {"warning"}
    assert all("not asked" in finding.seen for finding in nowhere.values())


def test_a_kms_that_is_away_proves_nothing(kms: LocalKms) -> None:
    endpoint = kms.endpoint
    kms.stop()
    found = look(endpoint, WORKER)
    assert set(verdicts(found).values()) == {"warning"}
    assert "KMS_UNAVAILABLE" in found["KEY_DIRECT"].seen


def test_as_whom_aws_is_asked(kms: LocalKms, tmp_path: Path) -> None:
    with moto_server(tmp_path) as aws:
        settings = AwsSettings(
            endpoint_url=kms.endpoint,
            sts_endpoint=aws.url,
            region="us-east-1",
            access_key_id=WORKER.access_key_id,
            secret_access_key=WORKER.secret_access_key,
        )
        found = next(aws_key(settings, "alias/fleet"))
    assert (found.code, found.verdict) == ("CALLER", "warning")  # moto makes everybody a user
    assert ":user/" in found.seen
    found = next(aws_key(settings, "alias/fleet"))
    assert (found.code, found.verdict) == ("CALLER", "warning")
    assert "KMS_UNAVAILABLE" in found.seen


def test_the_newest_fleet_key_is_taken_from_the_store(tmp_path: Any) -> None:
    settings = BrokerSettings(state_dir=tmp_path)
    store = make_blob_store(settings)
    assert stored_key(settings, "small") is None
    for epoch in (2, 3):
        store.put(key_name("small", epoch), StoredKey(b"wrapped %d" % epoch, b"birth").encode())
    found = stored_key(settings, "small")
    assert found is not None
    assert (found.data, dict(found.context)) == (b"wrapped 3", CONTEXT)
    store.put(key_name("small", 4), b"half")
    with pytest.raises(MalformedError):
        stored_key(settings, "small")


@pytest.mark.parametrize(
    ("principal", "verdict", "words"),
    [
        ("a person", "ok", "denied"),
        ("workload", "problem", "given"),
        (None, "warning", "KMS_CREDENTIALS"),
    ],
)
def test_cloud_kms_is_asked_to_unwrap_what_is_no_wrapped_key(
    principal: str | None, verdict: str, words: str
) -> None:
    google = Google()
    token = "nobody's" if principal is None else google.give(principal)
    with serve(google) as addresses:
        (found,) = gcp_key(KEY, token, endpoint=addresses.kms)
    assert (found.code, found.verdict) == ("KEY_DIRECT_DECRYPT", verdict)
    assert words in found.seen
    assert google.calls == ["decrypt"]


def test_a_name_that_is_none_of_cloud_kms_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="BAD_KMS_SETTINGS"):
        list(gcp_key("projects/x", "token", endpoint="http://127.0.0.1:1"))
