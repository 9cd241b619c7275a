"""Calls to SQS: two boto3 clients per endpoint, each call with a deadline, each failure with a meaning.

Endpoints in the environment or in files of boto3's do not count: they could lead credentials to
any host without TLS. Action and error names: Amazon SQS API Reference.
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import Any, Final

import boto3.session
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    NoCredentialsError,
    NoRegionError,
    PartialCredentialsError,
)

from ...wire.errors import ConfigurationError, DeliveryError
from ..settings import BrokerSettings

#: Messages of one receive, and entries of one batch ("Amazon SQS message quotas").
MAX_BATCH: Final = 10
MAX_URLS: Final = 4096
COUNT: Final = "ApproximateReceiveCount"

_MISSING: Final = {"QueueDoesNotExist", "NonExistentQueue"}
_EXISTS: Final = {"QueueNameExists", "QueueAlreadyExists", "QueueAlreadyExistsException"}
_FORBIDDEN: Final = {"AccessDenied", "AccessDeniedException"}
_UNKNOWN: Final = {
    "ExpiredToken", "ExpiredTokenException", "IncompleteSignature", "InvalidAccessKeyId",
    "InvalidClientTokenId", "InvalidSecurity", "MissingAuthenticationToken", "SignatureDoesNotMatch",
    "UnrecognizedClientException",
}  # fmt: skip
_LATER: Final = {
    "OverLimit", "RequestThrottled", "RequestTimeout", "ServiceUnavailable", "Throttling",
    "ThrottlingException", "TooManyRequestsException",
}  # fmt: skip

# Its debug lines show whole requests.
logging.getLogger("botocore").setLevel(logging.INFO)


class Lost(ConnectionError):
    """The broker cannot be used now; the same call may succeed later."""


class Missing(DeliveryError):
    """A queue that is not there."""

    def __init__(self) -> None:
        super().__init__(
            "QUEUE_MISSING", "a queue is not there: run 'ephemeralml queues create'", retriable=False
        )


class Denied(DeliveryError):
    """This identity is known, and may not do that."""

    def __init__(self) -> None:
        super().__init__(
            "BROKER_DENIED",
            "SQS allows this identity less than its role needs: see 'ephemeralml queues policy'",
        )


class Exists(Exception):
    """What was to be made is there, with other attributes."""


class Calls:
    """The calls that this package makes. Any thread may make them.

    Every method raises :class:`Lost`, :class:`Missing`, :class:`Denied`, DeliveryError
    ``BROKER_REFUSED`` or ConfigurationError ``NO_CREDENTIALS``. Queues are meant by their names in SQS.

    :param client: boto3's. :param patient: one that waits for long receives.
    """

    def __init__(self, client: Any, patient: Any) -> None:
        self._client = client
        self._patient = patient
        self._urls: OrderedDict[str, str] = OrderedDict()
        self._lock = threading.Lock()

    def url(self, name: str) -> str:
        """Return a queue's URL, asked for once."""
        with self._lock:
            if name in self._urls:
                self._urls.move_to_end(name)
                return self._urls[name]
        found = str(_said(self._client.get_queue_url, QueueName=name)["QueueUrl"])
        self._remember(name, found)
        return found

    def there(self, name: str) -> None:
        """Ask anew whether a queue is there; :raises Missing: it is not."""
        self._forget(name)
        self.url(name)

    def send(self, name: str, body: str) -> None:
        """Send one message; SQS has stored it when this returns."""
        self._on(name, self._client.send_message, MessageBody=body)

    def receive(self, name: str, most: int, *, wait_s: int, lease_s: int) -> list[dict[str, Any]]:
        """Take and lease up to ``most`` messages, waiting at SQS for the first.

        :param lease_s: seconds, whatever the queue's own default is.
        """
        answer = self._on(
            name,
            self._patient.receive_message,
            MaxNumberOfMessages=max(1, min(most, MAX_BATCH)),
            WaitTimeSeconds=wait_s,
            VisibilityTimeout=lease_s,
            MessageSystemAttributeNames=[COUNT],
        )
        return list(answer.get("Messages", ()))

    def acknowledge(self, name: str, handles: Sequence[str]) -> None:
        """Take messages off the queue for good; one whose lease ran out may come again.

        :param handles: receipt handles, as many as there are.
        """
        for entries in _entries(handles):
            _settled(self._on(name, self._client.delete_message_batch, Entries=entries))

    def lease(self, name: str, handles: Sequence[str], seconds: int) -> int:
        """Let leases end in ``seconds`` from now, 0 gives back; return how many still stood."""
        held = 0
        for entries in _entries(handles, VisibilityTimeout=seconds):
            held += _settled(self._on(name, self._client.change_message_visibility_batch, Entries=entries))
        return held

    def attributes(self, name: str, names: Sequence[str]) -> dict[str, str]:
        """Return attributes of a queue."""
        answer = self._on(name, self._client.get_queue_attributes, AttributeNames=list(names))
        return dict(answer.get("Attributes", {}))

    def set_attributes(self, name: str, attributes: dict[str, str]) -> None:
        """Change attributes of a queue."""
        self._on(name, self._client.set_queue_attributes, Attributes=attributes)

    def create(self, name: str, attributes: dict[str, str]) -> None:
        """Make a queue; harmless when it is there with these attributes.

        :raises Exists: it is there with others.
        """
        answer = _said(self._client.create_queue, QueueName=name, Attributes=attributes)
        self._remember(name, str(answer["QueueUrl"]))

    def delete(self, name: str) -> None:
        """Delete a queue with what is in it."""
        self._on(name, self._client.delete_queue)
        self._forget(name)

    def _on(self, name: str, call: Callable[..., Any], **parameters: Any) -> Any:
        try:
            return _said(call, QueueUrl=self.url(name), **parameters)
        except Missing:
            self._forget(name)
            raise

    def _remember(self, name: str, url: str) -> None:
        with self._lock:
            self._urls[name] = url
            if len(self._urls) > MAX_URLS:
                self._urls.popitem(last=False)

    def _forget(self, name: str) -> None:
        with self._lock:
            self._urls.pop(name, None)


def _unknown() -> DeliveryError:
    return DeliveryError("BROKER_DENIED", "SQS does not accept the credentials")


def _just_deleted() -> DeliveryError:
    return DeliveryError(
        "QUEUE_DELETED_RECENTLY", "SQS wants a minute between deleting a queue and making it again"
    )


_MEANINGS: Final[tuple[tuple[set[str], Callable[[], Exception]], ...]] = (
    (_MISSING, Missing),
    (_EXISTS, Exists),
    (_FORBIDDEN, Denied),
    (_UNKNOWN, _unknown),
    ({"QueueDeletedRecently"}, _just_deleted),
)


def _said(call: Callable[..., Any], **parameters: Any) -> Any:
    """Make a call and return what SQS said, or raise what its refusal means."""
    try:
        return call(**parameters)
    except ClientError as error:
        raise _meaning(error) from None
    except (NoCredentialsError, PartialCredentialsError):
        raise _no_credentials() from None
    except (BotoCoreError, OSError):
        raise Lost from None


def _meaning(error: ClientError) -> Exception:
    about = error.response.get("Error", {})
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    # Codes of the older query protocol have a prefix.
    code = str(about.get("Code", "")).removeprefix("AWS.SimpleQueueService.")
    if code in _LATER or status >= 500:
        return Lost()
    for codes, meaning in _MEANINGS:
        if code in codes:
            return meaning()
    known = code if code.isascii() and code.isalnum() and len(code) <= 64 else "an unknown reason"
    return DeliveryError("BROKER_REFUSED", f"SQS refused a call: {known}", retriable=False)


def _entries(handles: Sequence[str], **parameters: object) -> Iterator[list[dict[str, object]]]:
    for start in range(0, len(handles), MAX_BATCH):
        some = handles[start : start + MAX_BATCH]
        yield [
            {"Id": str(number), "ReceiptHandle": handle, **parameters} for number, handle in enumerate(some)
        ]


def _settled(answer: Any) -> int:
    """Return how many entries of a batch were done; the others had lost their lease.

    :raises Lost: SQS itself failed at some: all may be said again.
    """
    if any(not entry.get("SenderFault", True) for entry in answer.get("Failed", ())):
        raise Lost
    return len(answer.get("Successful", ()))


def _no_credentials() -> ConfigurationError:
    return ConfigurationError(
        "NO_CREDENTIALS",
        "no AWS credentials: give the machine a role, or set sqs_access_key_id and its secret",
    )


def calls_of(settings: BrokerSettings) -> Calls:
    """Return the calls to the settings' endpoint, on connections that this process shares.

    :raises ConfigurationError: ``NO_REGION``; ``BAD_SETTINGS``: boto3 cannot make a client of them.
    """
    with _MAKING:
        return _shared(
            settings.sqs_region,
            settings.sqs_endpoint,
            settings.sqs_access_key_id and settings.sqs_access_key_id.get_secret_value(),
            settings.sqs_secret_access_key and settings.sqs_secret_access_key.get_secret_value(),
            settings.sqs_session_token and settings.sqs_session_token.get_secret_value(),
            None if settings.tls_ca_file is None else str(settings.tls_ca_file),
            settings.connect_timeout_s,
            settings.operation_timeout_s,
            settings.sqs_wait_s,
        )


_MAKING: Final = threading.Lock()


@lru_cache(maxsize=16)
def _shared(
    region: str | None,
    endpoint: str | None,
    key_id: str | None,
    secret: str | None,
    token: str | None,
    ca_file: str | None,
    connect_s: float,
    operation_s: float,
    wait_s: int,
) -> Calls:
    local = endpoint is not None and endpoint.startswith("http:")

    def client(read_s: float, attempts: int) -> Any:
        return session.client(
            "sqs",
            endpoint_url=endpoint,
            verify=ca_file or True,
            config=Config(  # type: ignore[call-arg]  # the stubs lack the option on endpoints
                connect_timeout=connect_s,
                read_timeout=read_s,
                retries={"mode": "standard", "total_max_attempts": attempts},
                max_pool_connections=64,
                tcp_keepalive=True,
                ignore_configured_endpoint_urls=True,
                # A proxy for this machine makes no sense; elsewhere the environment's counts.
                proxies={} if local else None,
            ),
        )

    try:
        session = boto3.session.Session(
            aws_access_key_id=key_id,
            aws_secret_access_key=secret,
            aws_session_token=token,
            region_name=region,
        )
        # A receive that was not answered may have leased messages: the puller decides what is next.
        return Calls(client(operation_s, 2), client(operation_s + wait_s, 1))
    except NoRegionError:
        raise ConfigurationError("NO_REGION", "the profile sqs needs sqs_region or AWS_REGION") from None
    except (BotoCoreError, ValueError):
        raise ConfigurationError(
            "BAD_SETTINGS", "boto3 does not accept the settings of sqs or of its own"
        ) from None
