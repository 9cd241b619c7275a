"""The issuer's keys: read strictly, fetched from pinned hosts only, cached for a while."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from ephemeralml.attestation.confidential_space import ConfidentialSpaceEndorsements, read_jwks
from ephemeralml.attestation.fetch.jwks import cached_endorsements, fetch_jwks
from ephemeralml.wire.encoding import sha256
from ephemeralml.wire.errors import ConfigurationError, Error

from ...corpus import corpus
from .forge import NOW, b64, jwk, jwks, rsa_key

DAY = 86_400


def test_keys_are_read_with_their_thumbprints() -> None:
    first, second = read_jwks(jwks())
    assert (first.key_id, second.key_id) == ("key-1", "key-0")
    assert first.public_key.public_numbers() == rsa_key("issuer").public_key().public_numbers()
    members = {name: jwk("issuer", "key-1")[name] for name in ("e", "kty", "n")}
    assert first.thumbprint == sha256(json.dumps(members, separators=(",", ":")).encode())


def test_recorded_keys_are_read() -> None:
    keys = read_jwks(corpus("gcp-cs/synddb_jwks_2025-12-02.json").read_bytes())
    assert [key.key_id[:4] for key in keys] == ["f86c", "d6d5"]


@pytest.mark.parametrize(
    ("entry", "left"),
    [
        (jwk("older", "other", kty="EC"), 1),
        (jwk("older", "other", alg="RS512"), 1),
        (jwk("older", "other", alg=...), 1),
        (jwk("older", "other", use="enc"), 1),
        (jwk("older", "other", use=...), 2),
        (jwk("older", "other", unknown=1), 2),
    ],
)
def test_keys_of_other_kinds_are_left_out(entry: dict[str, object], left: int) -> None:
    assert len(read_jwks(jwks(jwk("issuer", "key-1"), entry))) == left


WEAK = b64(rsa_key("weak", 1_024).public_key().public_numbers().n.to_bytes(128, "big")).decode()
GOOD_N = str(jwk("issuer", "x")["n"])


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", "BAD_JSON"),
        (b"[]", "BAD_JSON"),
        (b"{}", "BAD_JWKS"),
        (b'{"keys":{}}', "BAD_JWKS"),
        (b'{"keys":[1]}', "BAD_JWKS"),
        (b'{"keys":[]}', "NO_KEYS"),
        (b'{"keys":[],"keys":[]}', "DUPLICATE_KEY"),
        (b'{"keys":[[[[[]]]]]}', "TOO_DEEP"),
        (b" " * 65_537, "TOO_LARGE"),
        (jwks(*[jwk("issuer", str(index)) for index in range(33)]), "BAD_JWKS"),
        (jwks(jwk("issuer", "a"), jwk("older", "a")), "DUPLICATE_KEY_ID"),
        (jwks(jwk("issuer", "a", alg="ES256")), "NO_KEYS"),
        (jwks(jwk("issuer", "a", d="AAAA")), "PRIVATE_KEY"),
        (jwks(jwk("issuer", "a", kty="oct", k="AAAA")), "PRIVATE_KEY"),
        (jwks(jwk("issuer", "a", n=WEAK)), "WEAK_KEY"),
        (jwks(jwk("issuer", "a", e="Aw")), "WEAK_KEY"),
        (jwks(jwk("issuer", "a", e="AAEAAQ")), "BAD_JWKS"),
        (jwks(jwk("issuer", "a", n="AA" + GOOD_N)), "BAD_JWKS"),
        (jwks(jwk("issuer", "a", n=GOOD_N + "=")), "BAD_BASE64"),
        (jwks(jwk("issuer", "a", n=...)), "MISSING_CLAIM"),
        (jwks(jwk("issuer", "a", n=1)), "WRONG_TYPE"),
        (jwks(jwk("issuer", "a", kid=...)), "MISSING_CLAIM"),
        (jwks(jwk("issuer", "a", kid="")), "OUT_OF_BOUNDS"),
    ],
)
def test_other_key_sets_are_refused(data: bytes, code: str) -> None:
    with pytest.raises(Error) as caught:
        read_jwks(data)
    assert caught.value.code == code


def test_endorsements_hold_each_key_id_once() -> None:
    key = read_jwks(jwks())[0]
    with pytest.raises(ConfigurationError, match="DUPLICATE_KEY_ID"):
        ConfidentialSpaceEndorsements(keys=(key, key))
    with pytest.raises(ConfigurationError, match="BAD_FINGERPRINT"):
        ConfidentialSpaceEndorsements(roots=(b"short",))


class Issuer(ThreadingHTTPServer):
    """An issuer on this machine, whose answers tests change."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answers)
        self.address = f"http://127.0.0.1:{self.server_port}"
        self.jwks = jwks()
        self.discovery: dict[str, object] = {"issuer": self.address, "jwks_uri": f"{self.address}/jwks"}
        self.status = 200
        self.asked: list[str] = []


class _Answers(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        issuer = self.server
        assert isinstance(issuer, Issuer)
        issuer.asked.append(self.path)
        known = {
            "/.well-known/openid-configuration": json.dumps(issuer.discovery).encode(),
            "/jwks": issuer.jwks,
        }
        body = known.get(self.path, b"")
        self.send_response(issuer.status if self.path in known else 404)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Issuer]:
    with Issuer() as listening:
        thread = threading.Thread(target=listening.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield listening
        listening.shutdown()
        thread.join()


def test_the_keys_are_found_by_discovery(server: Issuer) -> None:
    assert fetch_jwks(issuer=server.address, jwks_hosts=["127.0.0.1"]) == jwks()
    assert server.asked == ["/.well-known/openid-configuration", "/jwks"]


@pytest.mark.parametrize(
    ("discovery", "code"),
    [
        ({"issuer": "https://somebody.example"}, "WRONG_ISSUER"),
        ({"jwks_uri": "https://somebody.example/jwks"}, "JWKS_ELSEWHERE"),
        ({"jwks_uri": "http://[::1/jwks"}, "JWKS_ELSEWHERE"),
        ({"jwks_uri": "jwks"}, "JWKS_ELSEWHERE"),
        ({"jwks_uri": 1}, "BAD_DISCOVERY"),
        ({"jwks_uri": "https://127.0.0.1.ï/"}, "BAD_DISCOVERY"),
        ({"jwks_uri": "ftp://127.0.0.1/jwks"}, "BAD_URL"),
    ],
)
def test_discovery_leads_nowhere_else(server: Issuer, discovery: dict[str, object], code: str) -> None:
    server.discovery |= discovery
    with pytest.raises(Error) as caught:
        fetch_jwks(issuer=server.address, jwks_hosts=["127.0.0.1"])
    assert caught.value.code == code
    assert "/jwks" not in server.asked


def test_a_refusal_or_bad_keys_are_errors(server: Issuer) -> None:
    server.jwks = b"{}"
    with pytest.raises(Error, match="BAD_JWKS"):
        fetch_jwks(issuer=server.address, jwks_hosts=["127.0.0.1"])
    server.status = 503
    with pytest.raises(Error, match="FETCH_REFUSED"):
        fetch_jwks(issuer=server.address, jwks_hosts=["127.0.0.1"])


def cached(server: Issuer, folder: Path, now: float) -> ConfidentialSpaceEndorsements:
    return cached_endorsements(folder, now, issuer=server.address, jwks_hosts=["127.0.0.1"])


def test_keys_are_fetched_once_an_hour(server: Issuer, tmp_path: Path) -> None:
    folder = tmp_path / "cache"
    first = cached(server, folder, NOW)
    assert first.issuer == server.address
    assert cached(server, folder, NOW + 3_600) == first
    assert len(server.asked) == 2
    server.jwks = jwks(jwk("issuer", "new"))
    assert [key.key_id for key in cached(server, folder, NOW + 3_601).keys] == ["new"]
    assert [path.name for path in folder.iterdir()] == ["jwks.json"]


def test_old_keys_serve_a_week_where_fetching_fails(server: Issuer, tmp_path: Path) -> None:
    cached(server, tmp_path, NOW)
    server.status = 500
    assert len(cached(server, tmp_path, NOW + 7 * DAY).keys) == 2
    for now in (NOW + 7 * DAY + 1, NOW - 1):
        with pytest.raises(Error, match="FETCH_REFUSED"):
            cached(server, tmp_path, now)


@pytest.mark.parametrize("damage", [b"", b"{}", b'{"keys":[{"kty":"oct","k":"AA"}]}', b"x" * 70_000])
def test_a_damaged_cache_is_fetched_again(server: Issuer, tmp_path: Path, damage: bytes) -> None:
    (tmp_path / "jwks.json").write_bytes(damage)
    assert len(cached(server, tmp_path, NOW).keys) == 2
    assert read_jwks((tmp_path / "jwks.json").read_bytes())


def test_a_cache_that_cannot_be_written_is_done_without(server: Issuer, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    assert len(cached(server, tmp_path / "file" / "folder", NOW).keys) == 2
    (tmp_path / "jwks.json").mkdir()
    assert len(cached(server, tmp_path, NOW).keys) == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "jwks.json"]
