"""A Cloud Storage server of our own: the part of the JSON API that packages need, generations included."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit


class Gcs:
    """Objects by ``bucket/name``: generation, bytes, metadata; what should go wrong is set from outside."""

    def __init__(self) -> None:
        self.objects: dict[str, tuple[int, bytes, dict[str, str]]] = {}
        self.sessions: dict[str, tuple[str, dict[str, str], bytearray]] = {}
        self.fail_puts = 0
        self.status = 0
        self.endpoint = ""

    def store(self, name: str, data: bytes, metadata: dict[str, str]) -> None:
        generation = self.objects[name][0] + 1 if name in self.objects else 1
        self.objects[name] = (generation, data, metadata)


@contextmanager
def gcs_server() -> Iterator[Gcs]:
    state = Gcs()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: Any) -> None:
            pass

        def answer(self, status: int, body: bytes = b"", **headers: str) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name.replace("_", "-"), value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_GET(self) -> None:
            url = urlsplit(self.path)
            query = parse_qs(url.query)
            _, _, _, _, bucket, _, name = url.path.split("/", 6)
            found = state.objects.get(f"{bucket}/{unquote(name)}")
            wanted = query.get("generation")
            if state.status:
                return self.answer(state.status)
            if found is None or (wanted and wanted != [str(found[0])]):
                return self.answer(404)
            generation, data, metadata = found
            if query.get("alt") != ["media"]:
                told = {"size": str(len(data)), "generation": str(generation), "metadata": metadata}
                return self.answer(200, json.dumps(told).encode())
            start, stop = map(int, re.findall(r"\d+", self.headers["Range"]))
            place = f"bytes {start}-{stop}/{len(data)}"
            return self.answer(206, data[start : stop + 1], Content_Range=place)

        def do_POST(self) -> None:
            url = urlsplit(self.path)
            query = parse_qs(url.query)
            name = f"{url.path.split('/')[5]}/{query['name'][0]}"
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if query["ifGenerationMatch"] == ["0"] and name in state.objects:
                return self.answer(412)
            session = str(len(state.sessions))
            state.sessions[session] = (name, body["metadata"], bytearray())
            return self.answer(200, Location=f"{state.endpoint}/session/{session}")

        def do_PUT(self) -> None:
            name, metadata, received = state.sessions[self.path.split("/")[-1]]
            body = self.rfile.read(int(self.headers["Content-Length"]))
            size = int(self.headers["Content-Range"].split("/")[1])
            if body and state.fail_puts:
                state.fail_puts -= 1
                received += body[: len(body) // 2]
                return self.answer(503)
            received += body
            if len(received) < size:
                if not received:
                    return self.answer(308)
                return self.answer(308, Range=f"bytes=0-{len(received) - 1}")
            if name in state.objects:
                return self.answer(412)
            state.store(name, bytes(received), metadata)
            return self.answer(200)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    state.endpoint = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
