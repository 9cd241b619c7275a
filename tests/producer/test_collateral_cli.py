"""Fetching collateral by command, from a cache of Intel's service on this machine."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from ephemeralml.attestation.tdx.verify import verify
from ephemeralml.producer.cli.attest import app

from ..attestation.tdx.forge import NOW, Forge, trusting
from ..attestation.tdx.test_pcs import Service


@pytest.fixture
def pccs() -> Iterator[str]:
    service = Service(Forge())

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, headers, body = service.answers.get(self.path, (404, {}, b""))
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def fetch(tmp_path: Path, evidence: bytes, *options: str) -> Result:
    file = tmp_path / "evidence"
    file.write_bytes(evidence)
    return CliRunner().invoke(app, ["collateral", str(file), "--out", str(tmp_path / "out"), *options])


def test_a_quote_verifies_with_what_was_fetched(pccs: str, tmp_path: Path) -> None:
    quote = Forge().quote()
    done = fetch(tmp_path, quote, "--pccs", pccs)
    assert done.exit_code == 0, done.output
    (path,) = (tmp_path / "out").iterdir()
    assert path.name in done.output
    assert verify(quote, trusting().with_files({path.name: path.read_bytes()}), NOW).platform == "tdx"


@pytest.mark.parametrize(
    ("evidence", "options", "status", "word"),
    [
        (b"junk", (), 65, "UNKNOWN_FORMAT"),
        (b"junk", ("--platform", "tdx"), 65, "TRUNCATED"),
        (b"junk", ("--platform", "nobody"), 78, "UNKNOWN_PLATFORM"),
        (b"junk", ("--platform", "nitro"), 0, "needs no collateral"),
    ],
)
def test_what_cannot_be_fetched_for(
    tmp_path: Path, evidence: bytes, options: tuple[str, ...], status: int, word: str
) -> None:
    done = fetch(tmp_path, evidence, *options)
    assert (done.exit_code, word in done.output) == (status, True), done.output


def test_an_address_must_be_safe_and_a_service_there(tmp_path: Path) -> None:
    quote = Forge().quote()
    assert "BAD_URL" in fetch(tmp_path, quote, "--pccs", "http://example.org").output
    assert fetch(tmp_path, quote, "--pccs", "http://127.0.0.1:9").exit_code == 69
