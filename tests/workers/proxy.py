"""A TCP proxy that can play a network which silently forgets connections."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress
from types import TracebackType
from typing import Self


class Proxy:
    """Carries bytes both ways; a context manager.

    :param target: port on this machine.
    """

    def __init__(self, target: int) -> None:
        self._target = target
        self._lock = threading.Lock()
        self._pairs: list[tuple[socket.socket, socket.socket, threading.Event]] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._thread = threading.Thread(target=self._accept, daemon=True)

    @property
    def connections(self) -> int:
        """Connections that carry bytes."""
        with self._lock:
            return sum(not swallowed.is_set() for _, _, swallowed in self._pairs)

    def swallow(self) -> int:
        """Carry nothing more over the connections that are open, and close none; return how many."""
        with self._lock:
            for _, _, swallowed in self._pairs:
                swallowed.set()
            return len(self._pairs)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()
        for client, server, _ in self._pairs:
            for end in (client, server):
                with suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)
                end.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return  # the end
            try:
                server = socket.create_connection(("127.0.0.1", self._target))
            except OSError:
                client.close()
                continue
            swallowed = threading.Event()
            with self._lock:
                self._pairs.append((client, server, swallowed))
            for source, sink in ((client, server), (server, client)):
                threading.Thread(target=self._carry, args=(source, sink, swallowed), daemon=True).start()

    @staticmethod
    def _carry(source: socket.socket, sink: socket.socket, swallowed: threading.Event) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                if not swallowed.is_set():
                    sink.sendall(data)
            if not swallowed.is_set():
                sink.shutdown(socket.SHUT_RDWR)
