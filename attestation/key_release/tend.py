"""What an operator asks of a KMS about its keys: which there are, and to enable or disable one."""

from __future__ import annotations

from dataclasses import dataclass

from .aws_settings import AwsSettings
from .boto import kms_answer, make_client


@dataclass(frozen=True, slots=True)
class ListedKey:
    """A key by its alias, and AWS's name of its state."""

    alias: str
    key_id: str
    state: str


def list_keys(settings: AwsSettings) -> tuple[ListedKey, ...]:
    """Return the keys that have an alias, AWS's own left out, by alias; at most the first hundred.

    :raises KeyReleaseError: :raises ConfigurationError: as :func:`.boto.kms_answer`.
    """
    client = make_client(settings, attempts=3)
    try:
        answer = kms_answer(lambda: client.list_aliases(Limit=100))
        found = []
        for one in answer["Aliases"]:
            alias, key_id = one["AliasName"], one.get("TargetKeyId")
            if key_id is None or alias.startswith("alias/aws/"):
                continue
            about = kms_answer(lambda key_id=key_id: client.describe_key(KeyId=key_id))  # type: ignore[misc]
            found.append(ListedKey(alias, key_id, about["KeyMetadata"]["KeyState"]))
        return tuple(sorted(found, key=lambda key: key.alias))
    finally:
        client.close()


def set_enabled(settings: AwsSettings, key_id: str, *, enabled: bool) -> None:
    """Enable or disable a key.

    :param key_id: id, ARN or ``alias/…``.
    :raises KeyReleaseError: :raises ConfigurationError: as :func:`.boto.kms_answer`.
    """
    client = make_client(settings, attempts=3)
    try:
        # AWS takes no alias here, so its key is asked for first.
        found = kms_answer(lambda: client.describe_key(KeyId=key_id))["KeyMetadata"]["KeyId"]
        change = client.enable_key if enabled else client.disable_key
        kms_answer(lambda: change(KeyId=found) or {})
    finally:
        client.close()
