#!/usr/bin/env python3
"""Health of what serves no page: connected.py /proc/PID PORT… ends with 0 where that process holds a TCP
connection to each port, with 1 where it does not. Source: proc(5), on fd and net/tcp.
"""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

ESTABLISHED = "01"  # include/net/tcp_states.h


def remote_ports(process: Path) -> set[int]:
    """Return the ports at the far ends of a process's connections; empty where it cannot be seen."""
    found = set()
    try:
        own = {os.readlink(one) for one in (process / "fd").iterdir()}
        for table in ("tcp", "tcp6"):
            for line in (process / "net" / table).read_text().splitlines()[1:]:
                fields = line.split()
                if fields[3] == ESTABLISHED and f"socket:[{fields[9]}]" in own:
                    found.add(int(fields[2].rpartition(":")[2], 16))
    except OSError:  # it has just ended, or closed what was looked at
        return set()
    return found


def main(words: list[str]) -> int:
    """Return the exit status."""
    if len(words) < 2 or not all(re.fullmatch("[0-9]{1,5}", word) for word in words[1:]):
        print("usage: connected.py /proc/PID PORT...", file=sys.stderr)
        return 64
    return 0 if {int(word) for word in words[1:]} <= remote_ports(Path(words[0])) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
