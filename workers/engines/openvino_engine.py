"""The fast default: OpenVINO's CPU runtime and ``tokenizers``, no torch in the process."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...wire.errors import ConfigurationError, EngineError, ModelError
from .base import EmbedRequest, EmbedResult, Precision, check_request
from .bert_graph import build
from .files import ModelFiles, read_weights
from .machine import token_budget, usable_cores
from .openvino_runtime import ov
from .sentence_model import TextReader, read_sentence_model

_BF16_FLAGS = frozenset({"avx512_bf16", "amx_bf16"})
Floats = NDArray[np.float32]


def cpu_has_bf16(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Whether the CPU multiplies bfloat16 matrices itself (Intel AMX or AVX512_BF16)."""
    try:
        lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return False
    return any(_BF16_FLAGS & set(line.split()) for line in lines if line.startswith("flags"))


def plan_batches(lengths: Sequence[int], budget: int) -> list[list[int]]:
    """Split items into batches of like length, each at most ``budget`` tokens once padded (or one item).

    :param lengths: tokens per item.
    :returns: indices of items, shortest first.
    """
    batches: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lengths.__getitem__):
        if batches and (len(batches[-1]) + 1) * lengths[index] <= budget:
            batches[-1].append(index)
        else:
            batches.append([index])
    return batches


class OpenVinoEngine:
    """A sentence-transformers model of the BERT family on OpenVINO; see :class:`Engine`.

    :param files: the model; its weights are shared where they are writable, so they must stay unchanged.
    :param precision: ``"auto"`` takes bf16 where the CPU has it.
    :param threads: threads of one forward pass; None takes every core that this process may use.
    :raises ModelError: the model is malformed or of a kind that is not supported.
    :raises ConfigurationError: ``ENGINE_BAD_SETTING``, or ``ENGINE_PRECISION_UNAVAILABLE`` on this CPU.
    """

    name = "openvino"
    backend = "openvino"
    tasks = frozenset({"embed"})

    def __init__(
        self, files: ModelFiles, *, precision: Precision = "auto", threads: int | None = None
    ) -> None:
        model = read_sentence_model(files)
        self._reader = TextReader(files, model)
        self._normalizes = model.normalizes
        self.max_tokens = model.max_tokens
        threads = usable_cores() if threads is None else threads
        self.token_budget = token_budget(threads)
        graph = build(model, read_weights(files, model.folder))
        self._compiled = _compile(graph, choose_precision(precision), threads)
        hint = self._compiled.get_property("INFERENCE_PRECISION_HINT")
        self.precision = "bf16" if hint == ov.Type.bf16 else "f32"
        self.version = str(ov.__version__).partition("-")[0]
        self.model_dimensions = int(self._compiled.output(0).partial_shape[1].get_length())
        if self._reader.vocabulary > int(model.config.get("vocab_size") or 0):
            raise ModelError("MODEL_FILE_MALFORMED", "the tokenizer has more words than the model")
        self._request = self._compiled.create_infer_request()
        self._lock = threading.Lock()

    def check(self, request: EmbedRequest) -> None:
        """See :meth:`Engine.check`."""
        check_request(request, self.model_dimensions)

    def run(self, requests: Sequence[EmbedRequest]) -> list[EmbedResult]:
        """See :meth:`Engine.run`."""
        for request in requests:
            self.check(request)
        ids, truncated = self._reader.read([t for r in requests for t in self._reader.prompted(r)])
        pooled = self._forward(ids)
        if self._normalizes:
            pooled = unit_length(pooled)
        results, start = [], 0
        for request in requests:
            rows = slice(start, start + len(request.texts))
            vectors = finish(pooled[rows], request, self._normalizes)
            results.append(EmbedResult(vectors, [len(i) for i in ids[rows]], truncated[rows]))
            start = rows.stop
        return results

    def _forward(self, ids: list[list[int]]) -> Floats:
        pooled = np.empty((len(ids), self.model_dimensions), np.float32)
        try:
            for batch in plan_batches([len(i) for i in ids], self.token_budget):
                pooled[batch] = self._infer([ids[i] for i in batch])
        except RuntimeError:
            raise EngineError("ENGINE_FAILED", "the forward pass failed") from None
        if not np.isfinite(pooled).all():
            raise EngineError("ENGINE_NOT_FINITE", "the model gave numbers that are not finite")
        return pooled

    def _infer(self, rows: list[list[int]]) -> Floats:
        shape = (len(rows), max(map(len, rows)))
        padded, mask = np.zeros(shape, np.int32), np.zeros(shape, np.float32)
        for index, row in enumerate(rows):
            padded[index, : len(row)] = row
            mask[index, : len(row)] = 1.0
        with self._lock:
            output = self._request.infer([padded, mask], share_inputs=True, share_outputs=True)
            copied: Floats = np.array(output[0], dtype=np.float32)
            return copied


def choose_precision(wanted: Precision) -> str:
    """Turn a setting into ``"f32"`` or ``"bf16"``.

    :raises ConfigurationError: ``ENGINE_BAD_SETTING`` or ``ENGINE_PRECISION_UNAVAILABLE``.
    """
    if wanted not in ("auto", "f32", "bf16"):
        raise ConfigurationError("ENGINE_BAD_SETTING", "precision must be auto, f32 or bf16")
    if wanted == "bf16" and not cpu_has_bf16():
        raise ConfigurationError("ENGINE_PRECISION_UNAVAILABLE", "this CPU has neither AVX512_BF16 nor AMX")
    if wanted == "auto":
        return "bf16" if cpu_has_bf16() else "f32"
    return wanted


def _compile(graph: ov.Model, precision: str, threads: int) -> ov.CompiledModel:
    settings: dict[str, Any] = {
        "INFERENCE_PRECISION_HINT": precision,
        "PERFORMANCE_HINT": "LATENCY",
        "NUM_STREAMS": 1,
        "ENABLE_CPU_PINNING": False,  # two workers on one machine must not be pinned to the same core
        "INFERENCE_NUM_THREADS": threads,
    }
    try:
        return ov.Core().compile_model(graph, "CPU", settings)
    except RuntimeError:
        raise ModelError("MODEL_UNSUPPORTED", "the runtime cannot compile this model") from None


def unit_length(vectors: Floats) -> Floats:
    """Scale rows to length 1; as torch's ``normalize``, a zero row stays zero."""
    norms = np.sqrt(np.einsum("ij,ij->i", vectors, vectors, dtype=np.float64))
    scaled: Floats = (vectors / np.maximum(norms, 1e-12)[:, None]).astype(np.float32)
    return scaled


def finish(pooled: Floats, request: EmbedRequest, is_unit: bool) -> list[bytes]:
    """Cut, normalise and serialise the vectors of one request."""
    if request.dimensions is not None and request.dimensions < pooled.shape[1]:
        pooled, is_unit = pooled[:, : request.dimensions], False
    if request.normalize and not is_unit:
        pooled = unit_length(pooled)
    return [row.tobytes() for row in np.ascontiguousarray(pooled, dtype="<f4")]
