#!/usr/bin/env python3
"""Carries connections between TCP, unix and vsock sockets; in an enclave, also starts the worker.

An enclave has no network: every host that its worker asks is an address of the loopback, from
which this forwards over vsock to the parent's ``vsock-proxy``. It carries bytes and nothing else;
TLS begins in the worker and ends at the service. The standard library alone, Python 3.9 or newer,
because it also runs on the parent and is measured in every image.

``bridge.py run FILE`` (enclave): loopback up, names into /etc/hosts, forwards, policy, control, the worker.
``bridge.py forward LISTEN TO`` (anywhere): one forward until SIGTERM.
``bridge.py serve LISTEN FILE`` (parent): gives every connection the file as it is now: the policy.
``bridge.py ask CONTROL drain|watch`` (parent): ask an enclave; prints the worker's exit status.

Addresses: ``tcp:127.0.0.10:443``, ``unix:/path``, ``vsock:CID:PORT``; ``vsock:PORT`` to listen.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import signal
import socket
import struct
import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

MAX_CONNECTIONS = 256
PIECE_BYTES = 64 << 10
CONNECT_TIMEOUT_S = 10.0
MAX_CONFIG_BYTES = 64 << 10
MAX_POLICY_BYTES = 1 << 20
POLICY_POLL_S = 30.0
POLICY_START_TRIES = 60
# linux/if.h and linux/sockios.h
SIOCGIFFLAGS, SIOCSIFFLAGS, SIOCSIFADDR, IFF_UP, IFF_RUNNING = 0x8913, 0x8914, 0x8916, 0x1, 0x40
#: Where AWS's libraries ask for the instance's credentials: lo takes it, so that Host is right.
INSTANCE_METADATA = "169.254.169.254"
VMADDR_CID_ANY = 0xFFFFFFFF


class BadAddress(ValueError):
    """An address or a configuration that cannot be meant."""


def parse(address: str) -> tuple[int, Any]:
    """Return a socket's family and address."""
    kind, _, rest = address.partition(":")
    try:
        if kind == "tcp":
            host, _, port = rest.rpartition(":")
            packed = socket.inet_pton(socket.AF_INET, host)
            return socket.AF_INET, (socket.inet_ntop(socket.AF_INET, packed), _port(port, 65_535))
        if kind == "unix" and rest.startswith("/"):
            return socket.AF_UNIX, rest
        if kind == "vsock":
            cid, _, port = rest.rpartition(":")
            return socket.AF_VSOCK, (int(cid) if cid else VMADDR_CID_ANY, _port(port, VMADDR_CID_ANY - 1))
    except (ValueError, OSError):
        pass
    raise BadAddress("an address is tcp:IPV4:PORT, unix:/path or vsock:[CID:]PORT")


def _port(text: str, most: int) -> int:
    port = int(text)
    if not 0 <= port <= most:
        raise ValueError
    return port


def listening(address: str) -> socket.socket:
    """Return a socket that listens at an address."""
    family, where = parse(address)
    made = socket.socket(family, socket.SOCK_STREAM)
    try:
        if family == socket.AF_INET:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind(where)
        made.listen(64)
        made.setblocking(False)
    except OSError:
        made.close()
        raise
    return made


async def connect(address: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Return a connection to an address; OSError where there is none in time."""
    family, where = parse(address)
    made = socket.socket(family, socket.SOCK_STREAM)
    made.setblocking(False)
    try:
        loop = asyncio.get_running_loop()
        await asyncio.wait_for(loop.sock_connect(made, where), CONNECT_TIMEOUT_S)
        return await asyncio.open_connection(sock=made, limit=PIECE_BYTES)
    except asyncio.TimeoutError:  # noqa: UP041 - another class before Python 3.11
        made.close()
        raise TimeoutError from None
    except BaseException:
        made.close()
        raise


async def forward(listen: str, to: str) -> asyncio.AbstractServer:
    """Start to carry every connection at ``listen`` to ``to``; beyond a limit they wait."""
    room = asyncio.Semaphore(MAX_CONNECTIONS)

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async with room:
            with contextlib.suppress(OSError):
                far_reader, far_writer = await connect(to)
                try:
                    await asyncio.gather(_pump(reader, far_writer), _pump(far_reader, writer))
                finally:
                    await _close(far_writer)
            await _close(writer)

    parse(to)
    return await asyncio.start_server(carry, sock=listening(listen), limit=PIECE_BYTES)


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Carry one direction; its end is passed on, so that half-closed connections keep their sense."""
    while piece := await reader.read(PIECE_BYTES):
        writer.write(piece)
        await writer.drain()
    writer.write_eof()


async def _close(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()


async def control(address: str, worker: asyncio.subprocess.Process) -> asyncio.AbstractServer:
    """Serve ``drain`` and ``watch``: both are answered when the worker has ended, with its status.

    The parent may ask for a drain; it could as well end the whole enclave. It learns an exit status.
    """

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, ValueError):
            asked = await asyncio.wait_for(reader.readline(), CONNECT_TIMEOUT_S)
            if asked == b"drain\n":
                with contextlib.suppress(ProcessLookupError):
                    worker.send_signal(signal.SIGTERM)
            if asked in (b"drain\n", b"watch\n"):
                status = await worker.wait()
                writer.write(b"ended %d\n" % status)
                await writer.drain()
        await _close(writer)

    return await asyncio.start_server(answer, sock=listening(address), limit=64)


async def ask(address: str, word: str) -> int:
    """Ask an enclave to drain, or watch it; return the worker's exit status, 1 where none was told."""
    reader, writer = await connect(address)
    writer.write(f"{word}\n".encode())
    await writer.drain()
    line = (await reader.readline()).split()
    await _close(writer)
    return abs(int(line[1])) if len(line) == 2 and line[0] == b"ended" else 1


async def fetch_policy(source: str, to: Path) -> None:
    """Fetch the policy bundle and put it in place whole.

    A policy names the image that this is part of, so it cannot lie in it. It comes from the parent,
    whom nobody trusts: the worker checks its signature against the policy root, which is measured.
    """
    reader, writer = await connect(source)
    try:
        data = b""
        while piece := await reader.read(PIECE_BYTES):
            data += piece
            if len(data) > MAX_POLICY_BYTES:
                raise BadAddress("the policy is too large")
    finally:
        await _close(writer)
    if not data or (to.exists() and to.read_bytes() == data):
        return
    to.parent.mkdir(parents=True, exist_ok=True)
    draft = to.with_name(to.name + ".new")
    draft.write_bytes(data)
    draft.replace(to)


async def keep_policy(source: str, to: Path) -> None:
    """Fetch the policy again and again; one that does not come leaves the last, until that has ended."""
    while True:
        await asyncio.sleep(POLICY_POLL_S)
        with contextlib.suppress(OSError, BadAddress):
            await fetch_policy(source, to)


async def first_policy(source: str, to: Path) -> None:
    """Fetch the policy before the worker starts; the parent may be slower than the enclave."""
    for _ in range(POLICY_START_TRIES):
        with contextlib.suppress(OSError, BadAddress):
            await fetch_policy(source, to)
        if to.exists():
            return
        await asyncio.sleep(1)
    raise TimeoutError


async def serve(listen: str, file: str) -> asyncio.AbstractServer:
    """Give every connection the file as it is now."""

    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            writer.write(Path(file).read_bytes())
            await writer.drain()
        await _close(writer)

    return await asyncio.start_server(answer, sock=listening(listen), limit=64)


def read_config(path: str) -> dict[str, Any]:
    """Return an enclave's configuration: ``forwards``, ``control`` and ``command``, nothing else."""
    data = Path(path).read_bytes()
    if len(data) > MAX_CONFIG_BYTES:
        raise BadAddress("the configuration is too large")
    config = json.loads(data)
    if not isinstance(config, dict) or config.keys() != {"forwards", "control", "command", "policy"}:
        raise BadAddress("a configuration has forwards, control, command and policy")
    parse(config["policy"]["from"])
    for one in config["forwards"]:
        if not {"listen", "to"} <= one.keys() <= {"listen", "to", "names"}:
            raise BadAddress("a forward has listen, to and names")
        parse(one["listen"]), parse(one["to"])
    return config


def hosts_lines(config: dict[str, Any]) -> str:
    """Return what /etc/hosts must say, so that names lead to the forwards."""
    lines = ["127.0.0.1 localhost"]
    for one in config["forwards"]:
        for name in one.get("names", ()):
            lines.append(f"{parse(one['listen'])[1][0]} {name}")
    return "\n".join(lines) + "\n"


def loopback_up() -> None:
    """Bring the interface ``lo`` up with the metadata service's address: a fresh enclave has it down.

    Source of the requests: netdevice(7).
    """
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        request = struct.pack("16sH14x", b"lo", 0)
        flags = struct.unpack_from("16sH", fcntl.ioctl(any_socket, SIOCGIFFLAGS, request))[1]
        request = struct.pack("16sH14x", b"lo", flags | IFF_UP | IFF_RUNNING)
        fcntl.ioctl(any_socket, SIOCSIFFLAGS, request)
        address = struct.pack("16sHH4s8x", b"lo:1", socket.AF_INET, 0, socket.inet_aton(INSTANCE_METADATA))
        fcntl.ioctl(any_socket, SIOCSIFADDR, address)


async def supervise(config: dict[str, Any]) -> int:
    """Start the forwards, the worker and its control; return the worker's exit status."""
    servers = [await forward(one["listen"], one["to"]) for one in config["forwards"]]
    source, to = config["policy"]["from"], Path(config["policy"]["to"])
    await first_policy(source, to)
    keeper = asyncio.create_task(keep_policy(source, to))
    worker = await asyncio.create_subprocess_exec(*config["command"])
    servers.append(await control(config["control"], worker))
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, _pass_on, worker)
    status = await worker.wait()
    keeper.cancel()
    for server in servers:
        server.close()
    await asyncio.sleep(0.2)  # so that who waits at the control hears the status
    return status if status >= 0 else 128 - status


def _pass_on(worker: asyncio.subprocess.Process) -> None:
    with contextlib.suppress(ProcessLookupError):
        worker.send_signal(signal.SIGTERM)


async def _until_told(starting: Coroutine[Any, Any, asyncio.AbstractServer]) -> int:
    server = await starting
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ended.set)
    print("ready", flush=True)
    await ended.wait()
    server.close()
    return 0


def _action(arguments: list[str]) -> Coroutine[Any, Any, int]:
    if len(arguments) == 2 and arguments[0] == "run":
        config = read_config(arguments[1])
        loopback_up()
        Path("/etc/hosts").write_text(hosts_lines(config), encoding="ascii")
        return supervise(config)
    if len(arguments) == 3 and arguments[0] == "forward":
        parse(arguments[1]), parse(arguments[2])
        return _until_told(forward(arguments[1], arguments[2]))
    if len(arguments) == 3 and arguments[0] == "serve":
        parse(arguments[1])
        return _until_told(serve(arguments[1], arguments[2]))
    if len(arguments) == 3 and arguments[0] == "ask" and arguments[2] in ("drain", "watch"):
        parse(arguments[1])
        return ask(arguments[1], arguments[2])
    raise BadAddress(
        "usage: bridge.py run FILE | forward LISTEN TO | serve LISTEN FILE | ask CONTROL drain|watch"
    )


def main(arguments: list[str]) -> int:
    """Run a command; return the exit status."""
    try:
        return asyncio.run(_action(arguments))
    except (BadAddress, ValueError) as error:
        print(f"bridge: {error}", file=sys.stderr)
        return 64
    except OSError as error:
        print(f"bridge: {error.strerror or 'no answer in time'}", file=sys.stderr)
        return 69


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
