"""Run as a script in onnxruntime's environment: write the int8 form of an ONNX file, weights per channel.

``quantize_onnx.py SOURCE TARGET``: onnxruntime's dynamic quantisation in a reduced range, which processors
without VNNI need for exactness (onnxruntime.ai/docs/performance/model-optimizations/quantization.html).
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Any

if __name__ == "__main__":
    library: Any = import_module("onnxruntime.quantization")
    library.quantize_dynamic(
        sys.argv[1], sys.argv[2], weight_type=library.QuantType.QInt8, per_channel=True, reduce_range=True
    )
