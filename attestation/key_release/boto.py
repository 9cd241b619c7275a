"""botocore behind one door: how a KMS client is made, and what its failures mean here.

The rest of boto3 does nothing for a KMS client and costs a cold start.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any, cast

from ...wire.errors import ConfigurationError, Error, KeyReleaseError
from .aws_errors import refusal
from .aws_settings import AwsSettings

if TYPE_CHECKING:
    from botocore.config import Config
    from botocore.loaders import Loader
    from botocore.session import Session
    from mypy_boto3_kms import KMSClient

# What botocore's credential chain may use where none are given: this process's surroundings, no network.
_LOCAL_PROVIDERS = frozenset({"env", "shared-credentials-file", "config-file"})


def make_client(settings: AwsSettings, *, attempts: int = 1) -> KMSClient:
    """Return a KMS client; it reaches the network only when it is used.

    :param attempts: by botocore itself; 1 where every attempt needs a fresh attestation document.
    :raises ConfigurationError: ``EXTRA_MISSING`` or ``BAD_KMS_SETTINGS``.
    """
    return cast("KMSClient", _client("kms", settings.endpoint_url, settings, attempts))


def caller(settings: AwsSettings) -> str:
    """Return as whom AWS is asked, as an ARN (STS, ``GetCallerIdentity``: needs no right).

    :raises KeyReleaseError: as :func:`kms_answer`. :raises ConfigurationError: as :func:`make_client`.
    """
    client = _client("sts", settings.sts_endpoint, settings, 1)
    try:
        return str(kms_answer(client.get_caller_identity).get("Arn", ""))
    finally:
        client.close()


def _client(service: str, endpoint: str | None, settings: AwsSettings, attempts: int) -> Any:
    try:
        import botocore.session
        from botocore.config import Config
        from botocore.exceptions import BotoCoreError
    except ImportError:
        raise ConfigurationError(
            "EXTRA_MISSING", "AWS KMS needs boto3: pip install 'ephemeralml[aws]'"
        ) from None
    # Without a proxy of ours, HTTPS_PROXY and NO_PROXY count as they do everywhere.
    proxies = None if settings.proxy is None else {"http": settings.proxy, "https": settings.proxy}
    config = Config(
        connect_timeout=settings.connect_timeout_s,
        read_timeout=settings.read_timeout_s,
        proxies=proxies,
        retries={"mode": "standard", "total_max_attempts": attempts},
    )
    session = botocore.session.get_session()
    session.register_component("data_loader", _loader())
    try:
        _take_credentials(session, settings, config)
        return session.create_client(
            service,
            region_name=settings.region,
            endpoint_url=endpoint,
            config=config,
            verify=_roots(settings),
        )
    except (BotoCoreError, ValueError, OSError):
        raise ConfigurationError(
            "BAD_KMS_SETTINGS", "the KMS's region, endpoint, CA bundle or profile is wrong"
        ) from None


@cache
def _loader() -> Loader:
    """Return what reads botocore's models: once in a process, they are large and never change."""
    from botocore.loaders import create_loader

    return create_loader()


def _roots(settings: AwsSettings) -> str | None:
    return None if settings.ca_bundle is None else str(settings.ca_bundle)


def _take_credentials(session: Session, settings: AwsSettings, config: Config) -> None:
    """Say where credentials come from: the settings, the parent instance, or the surroundings."""
    from botocore.credentials import (
        AssumeRoleCredentialFetcher,
        DeferredRefreshableCredentials,
        InstanceMetadataProvider,
    )
    from botocore.utils import InstanceMetadataFetcher

    chain = session.get_component("credential_provider")
    if settings.access_key_id is not None and settings.secret_access_key is not None:
        session.set_credentials(settings.access_key_id, settings.secret_access_key, settings.session_token)
    elif settings.instance_metadata is not None:
        fetcher = InstanceMetadataFetcher(
            timeout=max(1, int(settings.connect_timeout_s)),
            num_attempts=1,
            base_url=settings.instance_metadata,
        )
        chain.providers = [InstanceMetadataProvider(iam_role_fetcher=fetcher)]
    else:
        chain.providers = [one for one in chain.providers if one.METHOD in _LOCAL_PROVIDERS]
    if settings.role_arn is None:
        return
    source = session.get_credentials()
    if source is None:
        raise ConfigurationError("KMS_NO_CREDENTIALS", "no AWS credentials were found to take the role with")

    def sts(service: str, **values: Any) -> Any:
        made = {"region_name": settings.region, "config": config, "verify": _roots(settings), **values}
        return session.create_client(service, endpoint_url=settings.sts_endpoint, **made)

    role = AssumeRoleCredentialFetcher(sts, source, settings.role_arn)
    # botocore offers no public way to set credentials that refresh themselves.
    session._credentials = DeferredRefreshableCredentials(  # type: ignore[attr-defined]
        role.fetch_credentials, "assume-role"
    )


def kms_answer(call: Callable[[], Any]) -> dict[str, Any]:
    """Return what a KMS call returns; its failures become ours.

    :raises KeyReleaseError: a code of :mod:`.aws_errors`, ``KMS_REFUSED_REQUEST``, ``KMS_UNAVAILABLE``
        (retriable), ``KMS_TLS_FAILED`` or ``KMS_BAD_ANSWER``.
    :raises ConfigurationError: ``KMS_NO_CREDENTIALS``.
    """
    try:
        return dict(call())
    except Error:
        raise
    except Exception as error:  # botocore's parsers let ValueError, KeyError and others of their own through
        failure = _failure(error)
    raise failure from None


def _failure(error: Exception) -> Error:
    from botocore import exceptions as boto

    if isinstance(error, boto.ClientError):
        if error.operation_name == "AssumeRole":
            return KeyReleaseError("KMS_CREDENTIALS", "STS does not give the role to these credentials")
        return refusal(error.response)
    if isinstance(error, (boto.NoCredentialsError, boto.PartialCredentialsError)):
        return ConfigurationError("KMS_NO_CREDENTIALS", "no AWS credentials were found")
    if isinstance(error, boto.SSLError) and _is_untrusted(error):
        return KeyReleaseError(
            "KMS_TLS_FAILED", "the KMS's certificate is not trusted: check endpoint and CA bundle"
        )
    meanings: tuple[tuple[type[Exception], str, str, bool], ...] = (
        (boto.ParamValidationError, "KMS_REFUSED_REQUEST", "the request is not of the KMS's model", False),
        (boto.CredentialRetrievalError, "KMS_UNAVAILABLE", "AWS credentials could not be fetched", True),
        (boto.MetadataRetrievalError, "KMS_UNAVAILABLE", "AWS credentials could not be fetched", True),
        (boto.ProxyConnectionError, "KMS_UNAVAILABLE", "the forward proxy cannot be reached", True),
        (boto.BotoCoreError, "KMS_UNAVAILABLE", "the KMS cannot be reached", True),
        (Exception, "KMS_BAD_ANSWER", "the KMS's answer does not follow its model", False),
    )
    code, message, retriable = next(one[1:] for one in meanings if isinstance(error, one[0]))
    return KeyReleaseError(code, message, retriable=retriable)


def _is_untrusted(error: BaseException) -> bool:
    """Return whether a certificate was refused; other faults of a handshake may pass."""
    seen: set[int] = set()
    left: list[object] = [error]
    while left:
        one = left.pop()
        if isinstance(one, ssl.SSLCertVerificationError):
            return True
        if isinstance(one, BaseException) and id(one) not in seen:
            seen.add(id(one))
            left += [*one.args, one.__cause__, one.__context__, getattr(one, "reason", None)]
            left += list(getattr(one, "kwargs", {}).values())
    return False
