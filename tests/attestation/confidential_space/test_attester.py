"""The attester against a real HTTP server on a unix socket that checks what it is asked."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from ephemeralml.attestation.attest import Attester
from ephemeralml.attestation.attest.confidential_space import ConfidentialSpaceAttester
from ephemeralml.attestation.attest.launcher import Launcher
from ephemeralml.attestation.binding import check_binding
from ephemeralml.attestation.confidential_space import ConfidentialSpaceDetails
from ephemeralml.attestation.confidential_space.verify import verify
from ephemeralml.wire.encoding import sha256
from ephemeralml.wire.errors import ConfigurationError, Error

from .forge import AUDIENCE, DIGEST, NOW, RECEIPT_KEY, issuer, oidc, pki
from .launcher import launcher


def attester(path: str | Path, kind: str = "PKI", deadline_s: float = 15) -> ConfidentialSpaceAttester:
    return ConfidentialSpaceAttester(
        AUDIENCE,
        kind="OIDC" if kind == "OIDC" else "PKI",
        launcher=Launcher(str(path), deadline_s=deadline_s),
    )


@pytest.mark.parametrize("kind", ["PKI", "OIDC"])
def test_tokens_bind_what_was_asked(tmp_path: Path, kind: str) -> None:
    with launcher(tmp_path / "s") as running:
        made: Attester = attester(running.path, kind)
        token = made.attest(public_key=RECEIPT_KEY, user_data=DIGEST, nonce=b"challenge")
    verified = verify(token, issuer(), NOW)
    check_binding(verified, RECEIPT_KEY, DIGEST)
    details = ConfidentialSpaceDetails.of(verified)
    assert details.binds_nonce(b"challenge")
    assert (details.audience, details.token_type) == (AUDIENCE, kind)
    assert running.asked == [
        {
            "audience": AUDIENCE,
            "token_type": kind,
            "nonces": [sha256(RECEIPT_KEY).hex(), DIGEST.hex(), "nonce:" + b"challenge".hex()],
        }
    ]
    assert (made.platform, made.measurements()) == ("confidential-space", None)


@pytest.mark.parametrize(
    "values",
    [
        {},
        {"user_data": b"short"},
        {"user_data": b"x" * 33},
        {"nonce": b""},
        {"nonce": b"abc"},
        {"nonce": b"x" * 33},
    ],
)
def test_what_a_token_cannot_carry_is_not_asked_for(tmp_path: Path, values: dict[str, bytes]) -> None:
    with pytest.raises(Error, match="OUT_OF_BOUNDS"):
        attester(tmp_path / "none").attest(**values)


@pytest.mark.parametrize("audience", ["", "x" * 513])
def test_audiences_have_bounds(audience: str) -> None:
    with pytest.raises(Error, match="OUT_OF_BOUNDS"):
        Launcher("/nonexistent").token(audience=audience, nonces=["n" * 10], kind="PKI")


@pytest.mark.parametrize("nonces", [[], ["n" * 9], ["n" * 75], ["n" * 10] * 7])
def test_nonces_have_bounds(nonces: list[str]) -> None:
    with pytest.raises(Error, match="OUT_OF_BOUNDS"):
        Launcher("/nonexistent").token(audience=AUDIENCE, nonces=nonces, kind="PKI")


def test_no_socket_is_said_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError) as caught:
        attester(tmp_path / "none").attest(nonce=b"challenge")
    assert caught.value.code == "NO_LAUNCHER"
    assert str(tmp_path) not in str(caught.value)


def test_a_socket_without_a_server_is_no_launcher(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as left:
        left.bind(str(tmp_path / "s"))
    with pytest.raises(ConfigurationError, match="NO_LAUNCHER"):
        attester(tmp_path / "s").attest(nonce=b"challenge")


@pytest.mark.parametrize(
    ("status", "code", "retriable"),
    [
        (400, "LAUNCHER_REFUSED", False),
        (404, "LAUNCHER_REFUSED", False),
        (302, "LAUNCHER_REFUSED", False),
        (429, "LAUNCHER_UNAVAILABLE", True),
        (500, "LAUNCHER_UNAVAILABLE", True),
        (503, "LAUNCHER_UNAVAILABLE", True),
    ],
)
def test_refusals_have_codes(tmp_path: Path, status: int, code: str, retriable: bool) -> None:
    with (
        launcher(tmp_path / "s", status=status, answer=lambda _: b"secret words") as running,
        pytest.raises(Error) as caught,
    ):
        attester(running.path).attest(nonce=b"challenge")
    assert (caught.value.code, caught.value.retriable) == (code, retriable)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("says", "code"),
    [
        ({"aud": "https://somebody.example"}, "LAUNCHER_WRONG_ANSWER"),
        ({"eat_nonce": ["n" * 64]}, "LAUNCHER_WRONG_ANSWER"),
        ({"eat_nonce": ...}, "LAUNCHER_WRONG_ANSWER"),
        ({"iat": "now"}, "LAUNCHER_BAD_ANSWER"),
    ],
)
def test_a_token_that_says_something_else_is_noticed(
    tmp_path: Path, says: dict[str, object], code: str
) -> None:
    with launcher(tmp_path / "s", says=says) as running, pytest.raises(Error, match=code):
        attester(running.path).attest(nonce=b"challenge")


def test_an_answer_of_the_other_kind_is_noticed(tmp_path: Path) -> None:
    def other(_: bytes) -> bytes:
        return oidc({"eat_nonce": "nonce:" + b"challenge".hex()})

    with launcher(tmp_path / "s", answer=other) as running, pytest.raises(Error, match="WRONG_ANSWER"):
        attester(running.path).attest(nonce=b"challenge")


@pytest.mark.parametrize("answer", [b"", b"not a token", b"a.b.c"])
def test_what_is_no_token_is_not_handed_on(tmp_path: Path, answer: bytes) -> None:
    with (
        launcher(tmp_path / "s", answer=lambda _: answer) as running,
        pytest.raises(Error, match="LAUNCHER_BAD_ANSWER"),
    ):
        attester(running.path).attest(nonce=b"challenge")


def test_the_answer_is_bounded(tmp_path: Path) -> None:
    with (
        launcher(tmp_path / "s", answer=lambda _: b"x" * 60_000) as running,
        pytest.raises(Error, match="LAUNCHER_BAD_ANSWER"),
    ):
        attester(running.path).attest(nonce=b"challenge")


def served(path: Path, serve: Callable[[socket.socket], None]) -> threading.Thread:
    """Answer one connection with raw bytes."""
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(str(path))
    listening.listen()

    def run() -> None:
        with listening:
            connection, _ = listening.accept()
            with connection:
                serve(connection)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread


def chunked(token: bytes, *, whole: bool) -> Callable[[socket.socket], None]:
    """Answer as Go's server does: what is longer than its buffer comes in chunks."""

    def serve(connection: socket.socket) -> None:
        connection.recv(4_096)
        connection.sendall(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        for part in (token[:2048], token[2048:]):
            connection.sendall(b"%x\r\n%b\r\n" % (len(part), part))
        connection.sendall(b"0\r\n\r\n" if whole else b"")

    return serve


def test_an_answer_in_chunks_is_read(tmp_path: Path) -> None:
    token = pki(changes={"eat_nonce": "nonce:" + b"challenge".hex()})
    thread = served(tmp_path / "s", chunked(token, whole=True))
    assert attester(tmp_path / "s").attest(nonce=b"challenge") == token
    thread.join()


def test_chunks_that_do_not_end_are_refused(tmp_path: Path) -> None:
    thread = served(tmp_path / "s", chunked(pki(), whole=False))
    with pytest.raises(Error, match="LAUNCHER_BAD_ANSWER"):
        attester(tmp_path / "s").attest(nonce=b"challenge")
    thread.join()


def test_what_is_no_http_is_refused(tmp_path: Path) -> None:
    def serve(connection: socket.socket) -> None:
        connection.recv(4_096)
        connection.sendall(b"ssh-2.0 hello\r\n\r\n")

    thread = served(tmp_path / "s", serve)
    with pytest.raises(Error, match="LAUNCHER_BAD_ANSWER"):
        attester(tmp_path / "s").attest(nonce=b"challenge")
    thread.join()


def test_a_body_that_ends_early_is_refused(tmp_path: Path) -> None:
    def serve(connection: socket.socket) -> None:
        connection.recv(4_096)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort")

    thread = served(tmp_path / "s", serve)
    with pytest.raises(Error, match="LAUNCHER_BAD_ANSWER"):
        attester(tmp_path / "s").attest(nonce=b"challenge")
    thread.join()


def test_a_launcher_that_drips_is_given_up_at_the_deadline(tmp_path: Path) -> None:
    """Each drop comes in time, all together they do not."""
    given_up = threading.Event()

    def serve(connection: socket.socket) -> None:
        while not given_up.wait(0.02):
            try:
                connection.sendall(b"H")
            except OSError:
                return

    thread = served(tmp_path / "s", serve)
    with pytest.raises(Error, match="LAUNCHER_UNAVAILABLE"):
        attester(tmp_path / "s", deadline_s=0.15).attest(nonce=b"challenge")
    given_up.set()
    thread.join()
