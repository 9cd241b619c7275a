"""A Nitro parent instance: what its enclave asks for, and what the allocator has set aside.

Files: AWS Nitro Enclaves User Guide, "nitro-cli" ("enclave configuration file", "allocator.yaml").
Linux reports huge pages below ``/sys/devices/system/node`` (kernel documentation, "hugetlbpage").
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from .finding import Finding

DEVICE: Final = "/dev/nitro_enclaves"
ALLOCATOR: Final = "/etc/nitro_enclaves/allocator.yaml"
CONFIG: Final = "/etc/ephemeralml/enclave.json"
POOL_CPUS: Final = "/sys/module/nitro_enclaves/parameters/ne_cpus"
NODES: Final = "/sys/devices/system/node"
VSOCK: Final = "/dev/vsock"
#: AWS Nitro Enclaves User Guide, "Memory requirements": the file lies in memory beside what it holds.
EIF_TIMES: Final = 4
_MIB: Final = 1 << 20
_RESTART: Final = "sudo systemctl restart nitro-enclaves-allocator"


def enclave_host(root: str = "/") -> Iterator[Finding]:
    """Yield what can be said of a parent instance; one line where this is none.

    :param root: where the machine's file system begins.
    """
    if not _at(root, DEVICE).exists():
        yield Finding("ENCLAVE_HOST", "ok", f"not here: {DEVICE} (only on a parent of Nitro Enclaves)")
        return
    yield Finding("ENCLAVE_HOST", "ok", f"here: {DEVICE}")
    if _at(root, VSOCK).exists():
        yield Finding("ENCLAVE_VSOCK", "ok", "vsock is here")
    else:
        yield Finding(
            "ENCLAVE_VSOCK",
            "problem",
            f"there is no {VSOCK}",
            "the enclave has no other way to broker, KMS and blob store",
            "sudo modprobe vsock, then see what the kernel's log says of it",
        )
    wanted = _wanted(root)
    if isinstance(wanted, Finding):
        yield wanted
        return
    yield from _allocated(root, wanted)
    yield _debug(wanted)
    yield _file(root, wanted)


def _wanted(root: str) -> dict[str, Any] | Finding:
    try:
        found = json.loads(_at(root, CONFIG).read_text("utf-8"))
        if all(type(found[name]) is int for name in ("cpu_count", "memory_mib")):
            return dict(found)
    except (OSError, ValueError, KeyError, TypeError):
        pass
    return Finding(
        "ENCLAVE_CONFIG",
        "problem",
        f"{CONFIG} is missing, or has no cpu_count and memory_mib",
        "ephemeralml-enclave.service starts the enclave by that file",
        "run deploy/aws/host/install.sh again (docs/deploy/aws-nitro.md)",
    )


def _allocated(root: str, wanted: dict[str, Any]) -> Iterator[Finding]:
    """Compare the file with what is asked for, and what the kernel gave with both."""
    text = _text(root, ALLOCATOR) or ""
    for code, name, unit, got in (
        ("ENCLAVE_MEMORY", "memory_mib", "MiB", _huge_mib(root)),
        ("ENCLAVE_CPUS", "cpu_count", "CPUs", _cpus(_text(root, POOL_CPUS) or "")),
    ):
        asked = int(wanted[name])
        stated = re.search(rf"^{name}:\s*(\d+)\s*(#.*)?$", text, re.MULTILINE)
        if stated is None or int(stated[1]) < asked:
            most = stated[1] if stated else "none"
            seen = f"the enclave asks for {asked} {unit}, the allocator may set aside {most}"
            fix = f"set {name}: {asked} in {ALLOCATOR}, then {_RESTART}"
            yield Finding(code, "problem", seen, "the enclave cannot start with less than it asks for", fix)
        elif got < asked:
            seen = f"the enclave asks for {asked} {unit}, {got} are set aside"
            cause = "the allocator has not run, or found too little in one piece after a long uptime"
            yield Finding(code, "problem", seen, cause, f"{_RESTART}; if it fails, reboot the instance")
        else:
            yield Finding(code, "ok", f"{got} {unit} are set aside, the enclave asks for {asked}")


def _debug(wanted: dict[str, Any]) -> Finding:
    if wanted.get("debug_mode", False) is not False:
        return Finding(
            "ENCLAVE_DEBUG",
            "problem",
            "debug_mode is on",
            "a debug enclave's measurements are zeros: no KMS releases a key, no client seals to it",
            f'set "debug_mode": false in {CONFIG}',
        )
    return Finding("ENCLAVE_DEBUG", "ok", "debug_mode is off")


def _file(root: str, wanted: dict[str, Any]) -> Finding:
    path = str(wanted.get("eif_path", ""))
    try:
        size = -(-_at(root, path).stat().st_size // _MIB) if path else 0
    except OSError:
        size = 0
    if not size:
        return Finding(
            "ENCLAVE_FILE",
            "problem",
            f"there is no enclave file at {path or 'eif_path'}",
            "there is nothing to start",
            "build it with deploy/aws/build-eif.sh and copy it there",
        )
    if size * EIF_TIMES > int(wanted["memory_mib"]):
        seen = f"the enclave file has {size} MiB, the enclave {wanted['memory_mib']} MiB"
        fix = f"set memory_mib to {size * EIF_TIMES} at least, in {CONFIG} and {ALLOCATOR}"
        return Finding("ENCLAVE_FILE", "warning", seen, f"about {EIF_TIMES} times its size are needed", fix)
    return Finding("ENCLAVE_FILE", "ok", f"the enclave file has {size} MiB")


def _huge_mib(root: str) -> int:
    """Return the MiB of huge pages of the node that has most: an enclave takes them of one."""
    most = 0
    for node in _at(root, NODES).glob("node*"):
        found = 0
        for folder in node.glob("hugepages/hugepages-*kB"):
            pages = _text(root, str(folder / "nr_hugepages")[len(root.rstrip("/")) :]) or "0"
            kib = int(re.sub(r"\D", "", folder.name) or 0)
            found += kib * int(pages) // 1024 if pages.isdecimal() else 0
        most = max(most, found)
    return most


def _cpus(text: str) -> int:
    """Return how many CPUs a list such as ``1,5-7`` names."""
    count = 0
    for part in filter(None, text.split(",")):
        first, _, last = part.partition("-")
        if first.isdecimal() and (not last or last.isdecimal()):
            count += int(last or first) - int(first) + 1
    return count


def _at(root: str, path: str) -> Path:
    return Path(root, path.lstrip("/"))


def _text(root: str, path: str) -> str | None:
    try:
        return _at(root, path).read_text("utf-8", errors="replace").strip()
    except OSError:
        return None
