"""Whether int8 pays on this processor: speed and exactness of five ways, beside float32.

``python -m tests.bench.int8``. OpenVINO with weights in int8 only, with activations quantised by ranges
measured on the examples (with and without the products that widen again), with OpenVINO's dynamic
quantisation; onnxruntime with its own dynamic quantisation. Cosines are with float32 of the same library,
over the texts of the engines' equality tests. See docs/adr/027-no-int8-engine.md.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from ephemeralml.workers.engines.bert_graph import _Builder, constant
from ephemeralml.workers.engines.files import read_weights
from ephemeralml.workers.engines.machine import token_budget
from ephemeralml.workers.engines.openvino_engine import plan_batches
from ephemeralml.workers.engines.openvino_runtime import op, ov
from ephemeralml.workers.engines.sentence_model import TextReader, read_sentence_model

from ..engines.sentences import TEXTS
from . import rivals
from .engines import Runner
from .runner import files_of
from .workload import BATCH, TOKENS, model_folder, sentences, texts_of

Floats = NDArray[np.float32]
Embed = Callable[[list[str]], Floats]
#: Products whose inputs are far wider in range than those of the others.
_WIDE: Final = "output.dense"
LEVELS: Final = 256
TURNS: Final = 20


class Quantised(_Builder):
    """The encoder with int8 weights, and with int8 inputs where a range is known."""

    ranges: dict[str, tuple[float, float]]
    seen: dict[str, Any]

    def linear(self, name: str, x: Any, inputs: int, outputs: int) -> Any:
        """See the base; remembers every product's input."""
        self.seen[name] = x
        weight = self.tensor(f"{name}.weight", outputs, inputs)
        scale = (np.abs(weight).max(1, keepdims=True) / 127).astype(np.float32)
        rounded = np.clip(np.round(weight / scale), -127, 127).astype(np.int8)
        dense = op.multiply(op.convert(op.constant(rounded), np.float32), op.constant(scale))
        if name in self.ranges:
            ends = [op.constant(np.array(end, np.float32)) for end in self.ranges[name]]
            x = op.fake_quantize(x, *ends, *ends, LEVELS)
        return op.add(op.matmul(x, dense, False, True), constant(self.tensor(f"{name}.bias", outputs)))


class Workbench:
    """One model, compiled in several ways."""

    def __init__(self) -> None:
        files = files_of(model_folder()[0])
        self.model = read_sentence_model(files)
        self.weights = read_weights(files, self.model.folder)
        self.reader = TextReader(files, self.model)

    def quantised(self, ranges: dict[str, tuple[float, float]]) -> tuple[Any, dict[str, Any]]:
        """Return the graph and the inputs of its products."""
        builder = Quantised(self.model, self.weights)
        builder.ranges, builder.seen = ranges, {}
        return builder.build(), builder.seen

    def measured_ranges(self) -> dict[str, tuple[float, float]]:
        """Return least and largest input of every product over the examples."""
        graph, seen = self.quantised({})
        axes = np.array([0, 1])
        ends = [reduce(x, axes) for x in seen.values() for reduce in (op.reduce_min, op.reduce_max)]
        request = _compiled(ov.Model(ends, graph.get_parameters(), "ranges")).create_infer_request()
        found: dict[str, tuple[float, float]] = {}
        for row in self.reader.read(sentences()).ids:
            outputs = request.infer([np.array([row], np.int32), np.ones((1, len(row)), np.float32)])
            for index, name in enumerate(seen):
                low, high = found.get(name, (0.0, 0.0))
                low, high = min(low, outputs[2 * index].min()), max(high, outputs[2 * index + 1].max())
                found[name] = (float(low), float(high))
        return found

    def embed(self, graph: Any, **settings: Any) -> Embed:
        """Return what embeds texts by a graph."""
        request = _compiled(graph, **settings).create_infer_request()

        def embed(texts: list[str]) -> Floats:
            ids = self.reader.read(texts).ids
            vectors = np.empty((len(ids), 384), np.float32)
            for batch in plan_batches([len(row) for row in ids], token_budget(os.cpu_count() or 1)):
                shape = (len(batch), max(len(ids[i]) for i in batch))
                padded, mask = np.zeros(shape, np.int32), np.zeros(shape, np.float32)
                for row, index in enumerate(batch):
                    padded[row, : len(ids[index])] = ids[index]
                    mask[row, : len(ids[index])] = 1
                vectors[batch] = request.infer([padded, mask], share_inputs=True)[0]
            return vectors

        return embed


def _compiled(graph: Any, **settings: Any) -> Any:
    fixed = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": 1}
    return ov.Core().compile_model(graph, "CPU", {**fixed, **settings})


def openvino_ways(bench: Workbench) -> dict[str, Embed]:
    """Return float32 and the ways of OpenVINO, by name."""
    ranges = bench.measured_ranges()
    narrow = {n: r for n, r in ranges.items() if "attention" in n or not n.endswith(_WIDE)}
    return {
        "float32": bench.embed(_Builder(bench.model, bench.weights).build()),
        "weights only": bench.embed(bench.quantised({})[0]),
        "weights, dynamic activations": bench.embed(
            bench.quantised({})[0], DYNAMIC_QUANTIZATION_GROUP_SIZE=384
        ),
        "weights and activations": bench.embed(bench.quantised(ranges)[0]),
        "the same, but for the widest products": bench.embed(bench.quantised(narrow)[0]),
    }


def onnxruntime_ways() -> tuple[dict[str, Embed], list[Runner]]:
    """Return float32 and int8 of onnxruntime, by name, and the processes to end.

    :raises Unavailable: it cannot be installed here.
    """
    python = rivals.python_of("onnxruntime")
    source = rivals.environment_of("onnxruntime", model_folder()[0])["ONNX_MODEL"]
    target = str(Path(source).with_suffix(".int8.onnx"))
    script = str(Path(__file__).with_name("quantize_onnx.py"))
    subprocess.run([python, script, source, target], check=True, capture_output=True)
    threads = os.cpu_count() or 1
    plain, small = Runner("onnxruntime", threads), Runner("onnxruntime", threads, ONNX_MODEL=target)

    def embed(runner: Runner) -> Embed:
        return lambda texts: np.array(runner.ask(vectors=texts), np.float32)

    return {"onnxruntime, float32": embed(plain), "onnxruntime, dynamic": embed(small)}, [plain, small]


def best(act: Callable[[], object]) -> float:
    """Return the shortest of some turns, in seconds."""
    times = []
    for _ in range(TURNS):
        began = time.perf_counter()
        act()
        times.append(time.perf_counter() - began)
    return min(times)


def row(name: str, single: float, batch: float, vectors: Floats, wanted: Floats) -> str:
    """Return one line of the table."""
    lengths = np.linalg.norm(vectors, axis=1) * np.linalg.norm(wanted, axis=1)
    cosines = (vectors * wanted).sum(1) / lengths
    figures = f"{single * 1e3:.2f} | {BATCH / batch:.0f} | {cosines.min():.4f} | {cosines.mean():.4f}"
    return f"| {name} | {figures} |"


def main() -> None:
    """Print the table."""
    texts = texts_of(TOKENS, BATCH)
    print("| int8 | single, ms | batch, texts/s | least cosine | mean cosine |\n|---|---:|---:|---:|---:|")
    wanted = None
    for name, embed in openvino_ways(Workbench()).items():
        vectors = embed(list(TEXTS))
        wanted = vectors if wanted is None else wanted
        single, batch = best(lambda: embed(texts[:1])), best(lambda: embed(texts))  # noqa: B023
        print(row(f"OpenVINO, {name}", single, batch, vectors, wanted), flush=True)
    try:
        ways, running = onnxruntime_ways()
    except rivals.Unavailable as reason:
        sys.exit(f"left out: {reason}")
    wanted = None
    for (name, embed), runner in zip(ways.items(), running, strict=True):
        vectors = embed(list(TEXTS))
        wanted = vectors if wanted is None else wanted
        single, batch = runner.best([texts[:1]], TURNS), runner.best([texts], TURNS)
        print(row(name, single, batch, vectors, wanted), flush=True)
        runner.end()


if __name__ == "__main__":
    main()
