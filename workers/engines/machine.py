"""What this machine gives an engine: cores that it may use, and a size of batch that feeds them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

#: Padded tokens of one forward pass for each thread: best of 512 to 8192 in all on two cores, where more only
#: leaves the cache and less leaves threads idle between passes.
TOKENS_PER_THREAD: Final = 512
LEAST_BUDGET: Final = 1024
MOST_BUDGET: Final = 8192
_OWN_GROUP: Final = Path("/proc/self/cgroup")
_GROUPS: Final = Path("/sys/fs/cgroup")


def usable_cores(own_group: Path = _OWN_GROUP, groups: Path = _GROUPS) -> int:
    """Return how many cores this process may keep busy, at least 1.

    That is its affinity, or less where a container's quota of CPU time is less: threads beyond the quota
    run for a part of each period and are then all stopped, in the midst of a matrix product.
    Source: docs.kernel.org, "Control Group v2", ``cpu.max``.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = _quota(own_group, groups)
    return cores if quota is None else max(1, min(cores, int(quota)))


def token_budget(threads: int) -> int:
    """Return how many padded tokens one forward pass of so many threads should have."""
    return max(LEAST_BUDGET, min(MOST_BUDGET, TOKENS_PER_THREAD * threads))


def _quota(own_group: Path, groups: Path) -> float | None:
    """Return the least quota of this process's control group and those above it, in cores; None: none."""
    try:
        lines = own_group.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return None
    own = next((line.removeprefix("0::/") for line in lines if line.startswith("0::/")), None)
    if own is None or ".." in Path(own).parts:
        return None
    folder = groups / own
    found = [quota for path in (folder, *folder.parents) if (quota := _quota_of(path / "cpu.max", groups))]
    return min(found, default=None)


def _quota_of(file: Path, groups: Path) -> float | None:
    """Read one ``cpu.max``: ``max`` or microseconds in each period of microseconds."""
    if not file.is_relative_to(groups):
        return None
    try:
        quota, period = file.read_text(encoding="ascii").split()
        return int(quota) / int(period)
    except (OSError, ValueError, ZeroDivisionError):
        return None  # "max" too
