"""Run as a script: load and run the engine in a process that the kernel kills if it talks to anybody.

A seccomp filter (see seccomp(2)) ends the process on connect, sendto, sendmsg and sendmmsg, in native code
and Python alike. ``sealed_process.py FOLDER`` prints what it saw; ``sealed_process.py --connect`` shows that
the filter bites.
"""

from __future__ import annotations

import ctypes
import json
import platform
import socket
import struct
import sys
from pathlib import Path

CALLS = {"x86_64": (42, 44, 46, 307), "aarch64": (203, 206, 211, 269)}
LOAD_NUMBER, JUMP_IF_EQUAL, RETURN = 0x20, 0x15, 0x06
ALLOW, KILL_PROCESS = 0x7FFF0000, 0x80000000


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def forbid_sending() -> None:
    calls = CALLS[platform.machine()]
    lines = [(LOAD_NUMBER, 0, 0, 0)]
    lines += [(JUMP_IF_EQUAL, len(calls) - i, 0, number) for i, number in enumerate(calls)]
    lines += [(RETURN, 0, 0, ALLOW), (RETURN, 0, 0, KILL_PROCESS)]
    program = _Program(len(lines), b"".join(struct.pack("HBBI", *line) for line in lines))
    libc = ctypes.CDLL(None, use_errno=True)
    assert libc.prctl(38, 1, 0, 0, 0) == 0  # PR_SET_NO_NEW_PRIVS
    assert libc.prctl(22, 2, ctypes.byref(program)) == 0  # PR_SET_SECCOMP, SECCOMP_MODE_FILTER


def main(argument: str) -> None:
    forbid_sending()
    if argument == "--connect":
        socket.socket().connect_ex(("127.0.0.1", 9))
        return
    looked_up: list[str] = []
    sys.addaudithook(lambda event, _: looked_up.append(event) if event.startswith("socket.") else None)
    from ephemeralml.workers.engines import EmbedRequest, load_engine

    folder = Path(argument)
    files = {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}
    (result,) = load_engine("openvino", files).run([EmbedRequest(("one", "two"))])
    heavy = {"torch", "transformers", "sentence_transformers", "onnxruntime"} & set(sys.modules)
    telemetry = [n for n, m in sys.modules.items() if n.startswith("openvino_telemetry") and m]
    from openvino.tools.ovc import utils  # the part that would send

    said = {
        "vectors": len(result.vectors),
        "heavy": sorted(heavy),
        "telemetry": telemetry,
        "sockets": looked_up,
        "sender": utils.tm.__name__,
    }
    print(json.dumps(said))


if __name__ == "__main__":
    main(sys.argv[1])
