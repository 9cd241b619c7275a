"""How fast this machine multiplies matrices: the limit that no engine on it can pass."""

from __future__ import annotations

import time
from functools import cache
from typing import Any, Final

import numpy as np

from ephemeralml.workers.engines.openvino_engine import choose_precision
from ephemeralml.workers.engines.openvino_runtime import op, ov

from .workload import BATCH, TOKENS

#: Rows, inner, columns: a large square, and the model's own products in a batch.
SHAPES: Final = ((2048, 2048, 2048), (BATCH * TOKENS, 384, 1536), (BATCH * TOKENS, 1536, 384))
#: Products in one graph, so that what surrounds a call does not count.
CHAIN: Final = 8


@cache
def _product(shape: tuple[int, int, int], threads: int) -> tuple[Any, Any]:
    """Return a compiled chain of products with constant right sides, and its input."""
    rows, inner, columns = shape
    random = np.random.default_rng(1)
    left = op.parameter([rows, inner], np.float32)
    sides = [random.normal(0, 1, (inner, columns)).astype(np.float32) for _ in range(CHAIN)]
    products = [op.matmul(left, op.constant(side), False, False) for side in sides]
    settings = {
        "INFERENCE_PRECISION_HINT": choose_precision("auto"),
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": 1,
        "INFERENCE_NUM_THREADS": threads,
        "ENABLE_CPU_PINNING": False,
    }
    # Largest values of each product: all of it must be computed, and little is copied.
    ends = [op.reduce_max(product, np.array([0, 1])) for product in products]
    compiled = ov.Core().compile_model(ov.Model(ends, [left], "products"), "CPU", settings)
    return compiled.create_infer_request(), random.normal(0, 1, (rows, inner)).astype(np.float32)


def gflops(threads: int, turns: int = 4) -> float:
    """Return the best rate of any library and shape tried, in GFLOP/s, at the precision our engine uses."""
    best = 0.0
    for shape in SHAPES:
        request, left = _product(shape, threads)
        for _ in range(turns):
            began = time.perf_counter()
            request.infer([left], share_inputs=True)
            best = max(best, CHAIN * _flops(shape) / (time.perf_counter() - began) / 1e9)
    return max(best, _numpy(turns)) if choose_precision("auto") == "f32" else best


def _numpy(turns: int) -> float:
    """Return numpy's rate in float32 (OpenBLAS, all cores)."""
    shape = SHAPES[0]
    left, right = (np.ones((shape[0], shape[1]), np.float32) for _ in range(2))
    best = 0.0
    for _ in range(turns):
        began = time.perf_counter()
        left @ right
        best = max(best, _flops(shape) / (time.perf_counter() - began) / 1e9)
    return best


def _flops(shape: tuple[int, int, int]) -> float:
    return 2.0 * shape[0] * shape[1] * shape[2]
