"""What holds for every test."""

from __future__ import annotations

MAX_SHOWN_BYTES = 16


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """Name long byte strings by their argument: random ones would give each test process other names."""
    if isinstance(val, bytes) and len(val) > MAX_SHOWN_BYTES:
        return f"{argname}-bytes"
    return None
