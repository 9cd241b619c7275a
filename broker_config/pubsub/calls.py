"""Calls to Pub/Sub: one gRPC channel per endpoint, each call with a deadline, each failure with a meaning.

Google's generated clients retry by rules of their own, can log what they send, and obey
``PUBSUB_EMULATOR_HOST``, which turns TLS off towards any host. Of them only the messages are
used here: the methods are called by their names, which google/pubsub/v1/pubsub.proto gives.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from ipaddress import ip_address
from typing import Any, Final
from urllib.parse import urlencode

import grpc  # type: ignore[import-untyped]
from google.api_core.grpc_helpers import create_channel
from google.auth.exceptions import GoogleAuthError
from google.iam.v1 import iam_policy_pb2 as iam  # type: ignore[import-untyped]
from google.pubsub_v1 import types

from ...wire.errors import ConfigurationError, DeliveryError
from ..settings import BrokerSettings

HOST: Final = "pubsub.googleapis.com"
SCOPE: Final = "https://www.googleapis.com/auth/pubsub"
PUBLISH: Final = "pubsub.topics.publish"
CONSUME: Final = "pubsub.subscriptions.consume"
#: Messages of one pull at most: eight of 10 MB fit into one answer.
MAX_PULLED: Final = 8
MAX_ANSWER_BYTES: Final = 128 << 20
#: Acknowledgement ids per call; a call takes 512 KiB ("Pub/Sub quotas and limits"), an id about 200 bytes.
MAX_IDS: Final = 1000
#: A pull waits at the server until there is a message; the client asks anew after this long.
PULL_SECONDS: Final = 60.0
#: Seconds of one acknowledgement deadline ("Pub/Sub quotas and limits").
MAX_LEASE_SECONDS: Final = 600

#: Each method: its service, its request, and what answers it (None: nothing).
_METHODS: Final[dict[str, tuple[str, Any, Any]]] = {
    "CreateTopic": ("Publisher", types.Topic, types.Topic),
    "DeleteTopic": ("Publisher", types.DeleteTopicRequest, None),
    "ListTopics": ("Publisher", types.ListTopicsRequest, types.ListTopicsResponse),
    "ListTopicSubscriptions": (
        "Publisher",
        types.ListTopicSubscriptionsRequest,
        types.ListTopicSubscriptionsResponse,
    ),
    "Publish": ("Publisher", types.PublishRequest, types.PublishResponse),
    "CreateSubscription": ("Subscriber", types.Subscription, types.Subscription),
    "GetSubscription": ("Subscriber", types.GetSubscriptionRequest, types.Subscription),
    "UpdateSubscription": ("Subscriber", types.UpdateSubscriptionRequest, types.Subscription),
    "DeleteSubscription": ("Subscriber", types.DeleteSubscriptionRequest, None),
    "Pull": ("Subscriber", types.PullRequest, types.PullResponse),
    "Acknowledge": ("Subscriber", types.AcknowledgeRequest, None),
    "ModifyAckDeadline": ("Subscriber", types.ModifyAckDeadlineRequest, None),
}

_OPTIONS: Final = [
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", MAX_ANSWER_BYTES),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.initial_reconnect_backoff_ms", 250),
    ("grpc.max_reconnect_backoff_ms", 5_000),
]
_LOST: Final = {
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.DEADLINE_EXCEEDED,
    grpc.StatusCode.ABORTED,
    grpc.StatusCode.CANCELLED,
    grpc.StatusCode.INTERNAL,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
    grpc.StatusCode.UNKNOWN,
}
_DENIED: Final = {grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.UNAUTHENTICATED}


class Lost(ConnectionError):
    """The broker cannot be used now; the same call may succeed later."""


class Waited(Lost):
    """A call's deadline has passed without an answer."""


class Missing(DeliveryError):
    """A queue that this identity cannot use."""

    def __init__(self) -> None:
        super().__init__(
            "QUEUE_MISSING",
            "a topic or subscription is not there, or not for this identity: run 'ephemeralml queues create'",
            retriable=False,
        )


class Exists(Exception):
    """What was to be made is there."""


class Calls:
    """The calls that this package makes. Any thread may make them.

    Every method raises :class:`Lost`, or DeliveryError ``QUEUE_MISSING``, ``BROKER_DENIED`` or
    ``BROKER_REFUSED``.

    :param channel: to the service. :param timeout_s: seconds to wait for an answer.
    """

    def __init__(self, channel: grpc.Channel, timeout_s: float) -> None:
        self._stubs: dict[str, Any] = {
            name: channel.unary_unary(
                f"/google.pubsub.v1.{service}/{name}",
                request_serializer=request.serialize,
                response_deserializer=None if answer is None else answer.deserialize,
            )
            for name, (service, request, answer) in _METHODS.items()
        }
        self._stubs["TestIamPermissions"] = channel.unary_unary(
            "/google.iam.v1.IAMPolicy/TestIamPermissions",
            request_serializer=iam.TestIamPermissionsRequest.SerializeToString,
            response_deserializer=iam.TestIamPermissionsResponse.FromString,
        )
        self._timeout = timeout_s

    def call(self, method: str, request: Any, **route: str) -> Any:
        """Make a call and return its answer.

        :param route: the field of the request that names the resource, as ``name=value``.
        :raises Exists: it asked to make what is there.
        """
        try:
            return self._stubs[method](request, timeout=self._timeout, metadata=_routed(**route))
        except grpc.RpcError as error:
            raise _meaning(error) from None

    def publish(self, topic: str, data: bytes, attributes: dict[str, str]) -> None:
        """Publish one message; it is stored when this returns."""
        message = types.PubsubMessage(data=data, attributes=attributes)
        self.call("Publish", types.PublishRequest(topic=topic, messages=[message]), topic=topic)

    def pull(self, subscription: str, most: int) -> Any:
        """Return a call under way, for :func:`pulled`; it may be cancelled."""
        request = types.PullRequest(subscription=subscription, max_messages=min(most, MAX_PULLED))
        metadata = _routed(subscription=subscription)
        return self._stubs["Pull"].future(request, timeout=PULL_SECONDS, metadata=metadata)

    def acknowledge(self, subscription: str, ids: Sequence[str]) -> None:
        """Take messages off the subscription for good."""
        for some in _chunks(ids):
            request = types.AcknowledgeRequest(subscription=subscription, ack_ids=some)
            self.call("Acknowledge", request, subscription=subscription)

    def lease(self, subscription: str, ids: Sequence[str], seconds: int) -> None:
        """Let the leases of messages end in ``seconds`` from now; 0 gives them back."""
        for some in _chunks(ids):
            request = types.ModifyAckDeadlineRequest(
                subscription=subscription, ack_ids=some, ack_deadline_seconds=seconds
            )
            self.call("ModifyAckDeadline", request, subscription=subscription)

    def allowed(self, resource: str, right: str) -> bool:
        """Return whether a topic or subscription is there and this identity has a right on it.

        Needs no right itself ("Pub/Sub access control with IAM"); true where the endpoint knows no IAM.
        """
        request = iam.TestIamPermissionsRequest(resource=resource, permissions=[right])
        try:
            return right in self.call("TestIamPermissions", request, resource=resource).permissions
        except NotImplementedError:
            return True


def pulled(call: Any) -> Sequence[types.ReceivedMessage]:
    """Return what a pull brought; :raises Waited: nothing came in its time. Other errors as Calls has."""
    try:
        return list(call.result().received_messages)
    except grpc.FutureCancelledError:
        raise Lost from None
    except grpc.RpcError as error:
        raise _meaning(error) from None


def _routed(**route: str) -> list[tuple[str, str]]:
    """Return the header by which Google's front ends route a call (google.aip.dev/4222)."""
    return [("x-goog-request-params", urlencode(route))]


def _meaning(error: grpc.RpcError) -> Exception:
    code = error.code()
    if code in _LOST:
        return Waited() if code is grpc.StatusCode.DEADLINE_EXCEEDED else Lost()
    if code is grpc.StatusCode.ALREADY_EXISTS:
        return Exists()
    if code is grpc.StatusCode.UNIMPLEMENTED:
        return NotImplementedError()
    if code is grpc.StatusCode.NOT_FOUND:
        return Missing()
    if code in _DENIED:
        return DeliveryError("BROKER_DENIED", "Pub/Sub allows this identity less than its role needs")
    return DeliveryError("BROKER_REFUSED", f"Pub/Sub refused a call: {code.name}", retriable=False)


def _chunks(ids: Sequence[str]) -> Iterator[list[str]]:
    for start in range(0, len(ids), MAX_IDS):
        yield list(ids[start : start + MAX_IDS])


def is_loopback(endpoint: str) -> bool:
    """Return whether an endpoint ``host:port`` is this machine: only there TLS may be missing."""
    host = endpoint.rpartition(":")[0].strip("[]")
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def calls_of(settings: BrokerSettings) -> Calls:
    """Return the calls to the settings' endpoint, on a channel that this process shares.

    :raises ConfigurationError: ``NO_CREDENTIALS``: Google's default credentials are missing.
    """
    try:
        return _shared(settings.pubsub_endpoint, settings.operation_timeout_s)
    except GoogleAuthError:
        raise ConfigurationError(
            "NO_CREDENTIALS", "no Google Cloud credentials: attach a service account, or log in with gcloud"
        ) from None


@lru_cache(maxsize=16)
def _shared(endpoint: str, timeout_s: float) -> Calls:
    if is_loopback(endpoint):
        options = [*_OPTIONS, ("grpc.enable_http_proxy", 0)]
        return Calls(grpc.insecure_channel(endpoint, options=options), timeout_s)
    channel = create_channel(endpoint, default_scopes=[SCOPE], default_host=HOST, options=_OPTIONS)
    return Calls(channel, timeout_s)
