"""The one import of OpenVINO, with its telemetry taken out first.

A confidential worker sends nothing to anybody. ``import openvino`` reaches for
its conversion tools, which import ``openvino_telemetry``; with None in its place
that import fails, and they fall back to their own silent stub.
"""

from __future__ import annotations

import sys

sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]

import openvino as ov  # noqa: E402
import openvino.opset13 as op  # noqa: E402

__all__ = ["op", "ov"]
