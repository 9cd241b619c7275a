"""Cloud Storage on this machine: gcp-storage-emulator as a process, behind a door that keeps conditions.

The emulator takes no notice of ``ifGenerationMatch=0``; the door answers 412 where the object is there,
as Cloud Storage does (its documentation, "Request preconditions").
"""

from __future__ import annotations

import re
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

import urllib3


@contextmanager
def gcs_emulator(folder: Path, bucket: str) -> Iterator[str]:
    """Run an emulator with one bucket, and yield its address; it writes into ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "gcp_storage_emulator", "start", "--host", "127.0.0.1"]
    command += ["--port", str(port), "--in-memory", "--default-bucket", bucket]
    with (folder / "gcs.log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder)
    try:
        _wait(process, f"http://127.0.0.1:{port}/storage/v1/b/{bucket}")
        with _door(port) as address:
            yield address
    finally:
        process.kill()
        process.wait()


@contextmanager
def _door(port: int) -> Iterator[str]:
    one_at_a_time = threading.Lock()
    target = urllib3.PoolManager(retries=False)
    base = f"http://127.0.0.1:{port}"

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

        def _forward(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            with one_at_a_time:
                if self.command == "POST" and self._taken(body):
                    return self._answer(412, b'{"error": {"code": 412, "message": "conditionNotMet"}}', {})
                headers = {k: v for k, v in self.headers.items() if k.lower() not in ("host", "connection")}
                done = target.request(
                    self.command, base + self.path, body=body, headers=headers, redirect=False
                )
            kept = ("content-type", "content-range", "range", "location", "etag", "x-goog-hash")
            self._answer(
                done.status,
                done.data,
                {
                    name: value.replace(base, f"http://{self.headers['Host']}")
                    for name, value in done.headers.items()
                    if name.lower() in kept
                },
            )

        do_GET = do_POST = do_PUT = do_DELETE = do_HEAD = _forward

        def _taken(self, body: bytes) -> bool:
            url = urlsplit(self.path)
            query = parse_qs(url.query)
            if query.get("ifGenerationMatch") != ["0"]:
                return False
            named = query.get("name") or re.findall(
                r'"name": ?"([^"]+)"', body[:2000].decode("utf-8", "replace")
            )
            there = f"{base}/storage/v1/b/{url.path.split('/')[5]}/o/{quote(named[0], safe='')}"
            return target.request("GET", there).status == 200

        def _answer(self, status: int, body: bytes, headers: dict[str, str]) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


def _wait(process: subprocess.Popen[bytes], url: str) -> None:
    deadline = time.monotonic() + 60
    while True:
        with suppress(OSError), urllib.request.urlopen(url, timeout=5) as answer:  # noqa: S310 - this machine
            if answer.status == 200:
                return
        assert process.poll() is None, "the emulator ended"
        assert time.monotonic() < deadline, "the emulator does not answer"
        time.sleep(0.05)
