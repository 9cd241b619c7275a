"""The key that a fleet's secrets are wrapped with: its state, its policy, and who gets it without a TEE.

A call without an attestation document is made as whoever runs this; it must be denied. It says nothing
of other callers: that is what the policy is read for. What the KMS gives by mistake is thrown away.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from ....attestation.key_release.aws_settings import AwsSettings
from ....attestation.key_release.boto import caller, kms_answer, make_client
from ....attestation.key_release.gcp import context_bytes
from ....attestation.key_release.gcp_kms import CloudKms
from ....attestation.key_release.gcp_settings import check_key_name, kms_target
from ....attestation.key_release.gcp_token import SCOPE, missing_extra
from ....attestation.key_release.local_kms.lint import DANGEROUS, lint
from ....attestation.key_release.stored import StoredKey, epochs_named, fleet_context, key_name, keys_prefix
from ....broker_config.blobs import make_blob_store
from ....broker_config.settings import BrokerSettings
from ....wire.errors import ConfigurationError, Error, KeyReleaseError
from .finding import Finding

CONTEXT: Final = {"purpose": "ephemeralml-doctor"}
DENIED: Final = "KMS_DENIED"
#: Cloud KMS looks at a blob after the permission only. AWS reads it first, to know which key it is of.
_GIVEN_BY_GOOGLE: Final = "KMS_WRONG_BLOB"
_TIMEOUT_S: Final = 10.0
_MEND: Final = "allow nothing without attestation (deploy/aws/keys.yaml): ephemeralml kms policy check FILE"


@dataclass(frozen=True, slots=True)
class Wrapped:
    """A fleet key as it lies in the blob store. :param context: that it was wrapped under."""

    data: bytes = field(repr=False)
    context: Mapping[str, str]


def stored_key(settings: BrokerSettings, pool: str) -> Wrapped | None:
    """Return the newest fleet key of a pool as it lies in the blob store, None where there is none.

    :raises Error: the store does not answer, or what lies there is no key.
    """
    blobs = make_blob_store(settings)
    epochs = epochs_named(blobs.list(keys_prefix(pool)))
    if not epochs:
        return None
    stored = StoredKey.decode(blobs.get(key_name(pool, epochs[0])))
    return Wrapped(stored.wrapped, fleet_context(pool, epochs[0]))


def gcp_token() -> str:
    """Return an access token for Cloud KMS of whoever runs this (Application Default Credentials).

    :raises ConfigurationError: ``EXTRA_MISSING`` or ``KMS_NO_CREDENTIALS``.
    """
    try:
        import google.auth
        from google.auth.exceptions import GoogleAuthError
        from google.auth.transport.requests import Request
    except ImportError:
        raise missing_extra() from None
    try:
        credentials, _ = google.auth.default(scopes=[SCOPE])
        credentials.refresh(Request())  # type: ignore[no-untyped-call]
    except GoogleAuthError:
        raise ConfigurationError(
            "KMS_NO_CREDENTIALS", "no Google Cloud credentials: gcloud auth application-default login"
        ) from None
    return str(credentials.token)


def aws_key(settings: AwsSettings, key_id: str, wrapped: Wrapped | None = None) -> Iterator[Finding]:
    """Yield what AWS KMS (or the local one) says of a key.

    :param wrapped: a fleet key of a pool, if there is one.
    :raises ConfigurationError: ``EXTRA_MISSING`` or ``BAD_KMS_SETTINGS``.
    """
    if settings.endpoint_url is None or settings.sts_endpoint is not None:
        yield _caller(settings)
    client = make_client(settings)
    try:
        yield _state(client, key_id)
        yield from _policy(client, key_id)
        yield _direct(
            "KEY_DIRECT",
            "a data key",
            lambda: client.generate_data_key(KeyId=key_id, NumberOfBytes=32, EncryptionContext=CONTEXT),
        )
        if wrapped is not None:
            yield _direct(
                "KEY_DIRECT_DECRYPT",
                "the pool's fleet key",
                lambda: client.decrypt(CiphertextBlob=wrapped.data, EncryptionContext=dict(wrapped.context)),
            )
    finally:
        client.close()


def gcp_key(
    key_name: str, access_token: str, *, endpoint: str, ca_pem: bytes | None = None
) -> Iterator[Finding]:
    """Yield what Cloud KMS does when a caller outside of any TEE asks it to unwrap.

    :param access_token: of whoever runs this. :raises ConfigurationError: ``BAD_KMS_SETTINGS``.
    """
    check_key_name(key_name)
    kms = CloudKms(kms_target(endpoint), key_name, ca_pem)
    try:
        yield _direct(
            "KEY_DIRECT_DECRYPT",
            "a wrapped key",
            lambda: kms.decrypt(
                bytes(64), context_bytes(CONTEXT), access_token=access_token, timeout_s=_TIMEOUT_S
            ),
            "bind decryption to the image's digest alone (deploy/gcp/keys): see docs/deploy/gcp-tdx.md",
            given_by=_GIVEN_BY_GOOGLE,
        )
    finally:
        kms.close()


def _caller(settings: AwsSettings) -> Finding:
    try:
        arn = caller(settings)
    except Error as error:
        return _not_asked("CALLER", error)
    if arn.endswith(":root"):
        cause = "the account's root can do everything, and nobody can see which person it was"
        return Finding("CALLER", "problem", f"asking as {arn}", cause, "use a role of this deployment")
    if ":user/" in arn:
        cause = "a user's keys do not end by themselves"
        return Finding("CALLER", "warning", f"asking as {arn}", cause, "take a role: its keys last hours")
    return Finding("CALLER", "ok", f"asking as {arn}")


def _state(client: Any, key_id: str) -> Finding:
    try:
        found = kms_answer(lambda: client.describe_key(KeyId=key_id))["KeyMetadata"]
        state, usage = str(found["KeyState"]), str(found["KeyUsage"])
    except (KeyError, TypeError):
        return _not_asked("KEY_STATE", KeyReleaseError("KMS_BAD_ANSWER", "the answer is none of a KMS"))
    except Error as error:
        if error.code == DENIED:
            return Finding("KEY_STATE", "ok", "this caller may not look at the key")
        return _not_asked("KEY_STATE", error)
    if state != "Enabled" or usage != "ENCRYPT_DECRYPT":
        fix = "ephemeralml kms enable, or aws kms enable-key; cancel its deletion first"
        return Finding("KEY_STATE", "problem", f"the key is {state}, for {usage}", "it releases nothing", fix)
    return Finding("KEY_STATE", "ok", "the key is enabled")


def _policy(client: Any, key_id: str) -> Iterator[Finding]:
    try:
        # By its id: an alias is no name of a key here (AWS KMS API Reference, "GetKeyPolicy").
        key = kms_answer(lambda: client.describe_key(KeyId=key_id))["KeyMetadata"]["KeyId"]
        answer = kms_answer(lambda: client.get_key_policy(KeyId=key, PolicyName="default"))
        found = lint(json.loads(answer["Policy"]))
    except (KeyError, TypeError, ValueError):
        yield _not_asked("KEY_POLICY", KeyReleaseError("KMS_BAD_ANSWER", "the answer is none of a KMS"))
        return
    except ConfigurationError as error:
        yield Finding("KEY_POLICY", "problem", str(error), "what it allows cannot be judged here", _MEND)
        return
    except Error as error:
        if error.code != DENIED:
            yield _not_asked("KEY_POLICY", error)
            return
        seen, fix = "this caller may not read the key's policy", "run this as the key's owner, once"
        yield Finding("KEY_POLICY", "warning", seen, "what others may do with the key stays unseen", fix)
        return
    for code, said in found:
        bad = code in DANGEROUS or code == "RELEASES_NOTHING"
        if bad:
            yield Finding(f"KEY_POLICY_{code}", "problem", said, "docs/kms.md says what comes of it", _MEND)
        else:
            yield Finding(f"KEY_POLICY_{code}", "ok", said)
    if not any(code in DANGEROUS for code, _ in found):
        yield Finding("KEY_POLICY", "ok", "the policy releases the key against attestation only")


def _direct(
    code: str, what: str, call: Callable[[], Any], mend: str = _MEND, *, given_by: str | None = None
) -> Finding:
    """Ask without attestation. Only a denial is good.

    :param given_by: the code of a refusal that only comes after the permission.
    """
    given = Finding(
        code,
        "problem",
        f"{what} is given to this caller without attestation",
        "so the host can have it too: nothing that is wrapped with this key is confidential",
        mend,
    )
    try:
        kms_answer(lambda: {"given": call() is not None})
    except KeyReleaseError as error:
        if error.code == DENIED:
            return Finding(code, "ok", f"{what} is denied to this caller without attestation")
        return given if error.code == given_by else _not_asked(code, error)
    except Error as error:
        return _not_asked(code, error)
    return given


def _not_asked(code: str, error: Error) -> Finding:
    return Finding(code, "warning", f"not asked: {error}", "nothing is known", "mend that, then ask again")
