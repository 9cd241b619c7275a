"""The gateway's HTTP API as calls. What comes back is hearsay: bounded, typed, unverified."""

from __future__ import annotations

import ssl
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any, Final, Self
from urllib.parse import quote, urlencode, urlsplit

import urllib3
from urllib3.exceptions import HTTPError
from urllib3.util import Retry, Timeout

from ...attestation.strict_json import read_json_object
from ...wire.errors import ConfigurationError, DeliveryError, Error, MalformedError

MAX_ANSWER_BYTES: Final = 4 << 20
#: An announcement with its evidence, or a batch file of 50,000 outcomes, fits several times.
MAX_BLOB_BYTES: Final = 128 << 20
PIECE_BYTES: Final = 1 << 18
CONNECT_S: Final = 10.0
#: Silence within an answer; a results stream that waits is silent for up to 30 s (docs/gateway.md).
READ_S: Final = 60.0
#: A request that changes nothing, or nothing twice, is made again this often.
TRIES: Final = 4
BACKOFF_S: Final = 0.5
MAX_BACKOFF_S: Final = 10.0
#: Seconds that the API lets a stream wait for news.
WAIT_S: Final = 20
ENDED: Final = frozenset({"completed", "failed", "expired", "cancelled"})


@dataclass(frozen=True, slots=True)
class BatchStatus:
    """What the gateway says of a batch: hearsay until the outcomes were verified.

    :param name: ``batch_`` and the batch id. :param state: as OpenAI's batch API has them.
    :param counts: jobs by end, ``total`` and ``pending``. :param created_at: and
        :param expires_at: Unix seconds.
    """

    name: str
    pool: str
    state: str
    code: str | None
    counts: dict[str, int]
    created_at: int
    expires_at: int

    @property
    def ended(self) -> bool:
        """Whether nothing more will come."""
        return self.state in ENDED

    @classmethod
    def read(cls, value: dict[str, Any]) -> BatchStatus:
        """Read a batch's JSON.

        :raises MalformedError: ``BAD_ANSWER``.
        """
        try:
            counts = {str(name): int(number) for name, number in value["counts"].items()}
            code = value["code"]
            return cls(
                name=str(value["id"])[:64],
                pool=str(value["pool"])[:64],
                state=str(value["status"])[:32],
                code=None if code is None else str(code)[:64],
                counts=counts,
                created_at=int(value["created_at"]),
                expires_at=int(value["expires_at"]),
            )
        except (KeyError, TypeError, ValueError, AttributeError):
            raise _bad_answer() from None


class GatewayApi:
    """Calls of one gateway with one API key. Safe for threads; a context manager.

    :param url: ``https://host[:port]``; ``http://`` on this machine only.
    :param key: API key; sent to this address only, never shown.
    :param ca_file: roots for the gateway's certificate; the system's by default.
    :raises ConfigurationError: ``BAD_GATEWAY_URL``, ``BAD_GATEWAY_KEY``, ``BAD_CA_FILE``.
    """

    def __init__(self, url: str, key: str, *, ca_file: str | None = None) -> None:
        self.url = checked_url(url)
        if not key.isascii() or not key.isprintable() or not key or " " in key:
            raise ConfigurationError(
                "BAD_GATEWAY_KEY", "an API key is one word: see `ephemeralml gateway keys`"
            )
        try:
            context = ssl.create_default_context(cafile=ca_file)
        except OSError:
            raise ConfigurationError("BAD_CA_FILE", "the file of roots cannot be read") from None
        self._headers = {"Authorization": f"Bearer {key}", "User-Agent": "ephemeralml"}
        self._pool = urllib3.PoolManager(
            ssl_context=context,
            timeout=Timeout(connect=CONNECT_S, read=READ_S),
            retries=Retry(
                total=TRIES,
                redirect=0,
                status_forcelist=(429, 503),
                allowed_methods=None,
                backoff_factor=BACKOFF_S,
                backoff_max=MAX_BACKOFF_S,
                raise_on_status=False,
                raise_on_redirect=False,
                respect_retry_after_header=True,
            ),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.clear()

    def reply_to(self) -> str:
        """Return the reply queue that jobs must name."""
        found = self._json("GET", "/v1/me").get("reply_to")
        if not isinstance(found, str):
            raise _bad_answer()
        return found

    def blob_names(self, prefix: str) -> list[str]:
        """Return the names of public blobs under a prefix."""
        found = self._json("GET", f"/v1/blobs?{urlencode({'prefix': prefix})}").get("data")
        if not isinstance(found, list) or not all(isinstance(name, str) for name in found):
            raise _bad_answer()
        return found

    def blob(self, name: str) -> bytes:
        """Return a public blob."""
        return self._bytes(f"/v1/blobs/{quote(name)}", MAX_BLOB_BYTES)

    def upload(self, name: str, body: Iterable[bytes]) -> BatchStatus:
        """Send a batch as a CBOR sequence (spec/gateway.md); again under the same name, it is taken once.

        :param name: idempotency key. :param body: pieces; it is sent once, and not again by itself.
        """
        headers = {"Content-Type": "application/cbor-seq", "Idempotency-Key": name}
        with self._answer("POST", "/v1/batches", headers, body=body, retries=False) as answer:
            return BatchStatus.read(_object(answer))

    def batch(self, name: str) -> BatchStatus:
        """Return how a batch stands."""
        return BatchStatus.read(self._json("GET", f"/v1/batches/{name}"))

    def batches(self, limit: int = 20, after: str | None = None) -> list[BatchStatus]:
        """Return batches, the newest first."""
        query = urlencode({"limit": limit} | ({"after": after} if after else {}))
        found = self._json("GET", f"/v1/batches?{query}").get("data")
        if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
            raise _bad_answer()
        return [BatchStatus.read(one) for one in found]

    def cancel(self, name: str) -> BatchStatus:
        """Cancel a batch: workers sign ``cancelled`` for jobs that they have not run."""
        return BatchStatus.read(self._json("POST", f"/v1/batches/{name}/cancel"))

    def results(self, name: str, seen: int, wait_s: int = WAIT_S) -> Iterator[bytes]:
        """Yield pieces of a batch's results stream behind the first ``seen`` ends; it may end at any time."""
        headers = {"Accept": "application/cbor-seq"}
        query = urlencode({"after": seen, "wait": wait_s})
        with self._answer("GET", f"/v1/batches/{name}/results?{query}", headers) as answer, _one_error():
            yield from answer.stream(PIECE_BYTES)

    def statement(self, name: str) -> bytes:
        """Return the batch statement that a worker signed.

        :raises DeliveryError: ``NO_STATEMENT``: not yet.
        """
        return self._bytes(f"/v1/batches/{name}/statement", MAX_ANSWER_BYTES)

    def _json(self, method: str, path: str) -> dict[str, Any]:
        with self._answer(method, path, {"Accept": "application/json"}) as answer:
            return _object(answer)

    def _bytes(self, path: str, most: int) -> bytes:
        with self._answer("GET", path, {}) as answer:
            return _read(answer, most)

    @contextmanager
    def _answer(
        self, method: str, path: str, headers: dict[str, str], **options: Any
    ) -> Iterator[urllib3.BaseHTTPResponse]:
        """Make a request and yield its answer, which is a success.

        :raises Error: what the gateway says is wrong. :raises DeliveryError: ``GATEWAY_UNREACHABLE``.
        """
        with _one_error():
            answer = self._pool.request(
                method,
                self.url + path,
                headers={**self._headers, **headers},
                preload_content=False,
                **options,
            )
        try:
            if answer.status not in (200, 201, 204):
                raise _problem(answer)
            yield answer
        finally:
            answer.close()


def checked_url(url: str) -> str:
    """Return a gateway's address without a trailing slash.

    :raises ConfigurationError: ``BAD_GATEWAY_URL``: no TLS, a path, a user or a query in it.
    """
    parts = urlsplit(url)
    extra = parts.path.strip("/") or parts.query or parts.fragment or parts.username
    plain = parts.scheme == "http" and _is_here(parts.hostname or "")
    if extra or not parts.hostname or not (plain or parts.scheme == "https"):
        raise ConfigurationError(
            "BAD_GATEWAY_URL", "a gateway's address is https://host[:port]; http:// on this machine only"
        )
    return f"{parts.scheme}://{parts.netloc}"


def _is_here(host: str) -> bool:
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


@contextmanager
def _one_error() -> Iterator[None]:
    try:
        yield
    except (HTTPError, OSError):
        raise DeliveryError("GATEWAY_UNREACHABLE", "the gateway does not answer; try again") from None


def _read(answer: urllib3.BaseHTTPResponse, most: int) -> bytes:
    held = bytearray()
    with _one_error():
        for piece in answer.stream(PIECE_BYTES):
            held += piece
            if len(held) > most:
                raise _bad_answer()
    return bytes(held)


def _object(answer: urllib3.BaseHTTPResponse) -> dict[str, Any]:
    try:
        return dict(read_json_object(_read(answer, MAX_ANSWER_BYTES), max_bytes=MAX_ANSWER_BYTES))
    except MalformedError:
        raise _bad_answer() from None


def _problem(answer: urllib3.BaseHTTPResponse) -> Error:
    """Return the error that an answer tells of (RFC 9457, with our code)."""
    try:
        found = _object(answer)
        code, detail, retriable = str(found["code"]), str(found["detail"]), found.get("retriable") is True
    except (Error, KeyError):
        code, detail, retriable = "", "", False
    if not (
        code and len(code) <= 64 and code.isascii() and code.replace("_", "").isalnum() and code.isupper()
    ):
        return DeliveryError("GATEWAY_FAILED", f"the gateway answers with status {answer.status}")
    text = "".join(letter for letter in detail[:200] if letter.isprintable())
    if answer.status in (401, 403):
        return ConfigurationError(code, text)
    return DeliveryError(code, text, retriable=retriable or answer.status in (408, 429, 503))


def _bad_answer() -> MalformedError:
    return MalformedError("BAD_ANSWER", "the gateway's answer is none of its API's")
