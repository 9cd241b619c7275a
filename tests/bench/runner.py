"""Run as a script: one engine in a process of its own, told line by line what to compute.

``runner.py KIND FOLDER THREADS``. Runs in whatever environment has the engine's library, so it imports
nothing at the top but the standard library. A line of JSON comes in, one goes out: ``{"load": …}`` first,
then for ``{"texts": [[…], …], "turns": N}`` the seconds of each turn (all the batches, one after another),
for ``{"vectors": […]}`` the vectors, for ``{"memory": true}`` MiB resident now and at most.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

#: Texts in, vectors out (anything with ``len`` whose items are rows of numbers).
Embed = Callable[[list[str]], Any]


def ours(folder: Path, threads: int) -> tuple[Embed, str]:
    """Our engine, as the worker uses it."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[2] / ".editable"))
    engines = import_module("ephemeralml.workers.engines")
    engine = engines.load_engine("openvino", files_of(folder), threads=threads)

    def embed(texts: list[str]) -> Any:
        (result,) = engine.run([engines.EmbedRequest(tuple(texts))])
        return [memoryview(vector).cast("f") for vector in result.vectors]

    return embed, f"openvino {engine.version} {engine.precision}"


def raw_openvino(folder: Path, threads: int) -> tuple[Embed, str]:
    """The same graph, settings and batches with nothing around: tokenize, pad, infer, scale."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[2] / ".editable"))
    np = import_module("numpy")
    openvino = import_module("ephemeralml.workers.engines.openvino_engine")
    engine = openvino.OpenVinoEngine(files_of(folder), threads=threads)
    request = engine._compiled.create_infer_request()
    tokenizer = _tokenizer(folder)

    def embed(texts: list[str]) -> Any:
        ids = [encoding.ids for encoding in tokenizer.encode_batch_fast(texts)]
        vectors = np.empty((len(ids), engine.model_dimensions), np.float32)
        for batch in openvino.plan_batches([len(row) for row in ids], engine.token_budget):
            padded, mask = _padded(np, [ids[i] for i in batch], np.int32)
            vectors[batch] = request.infer([padded, mask.astype(np.float32)], share_inputs=True)[0]
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)

    return embed, f"openvino {engine.version} {engine.precision}"


def sentence_transformers(folder: Path, threads: int) -> tuple[Embed, str]:
    """sentence-transformers on torch."""
    torch = import_module("torch")
    torch.set_num_threads(threads)
    library = import_module("sentence_transformers")
    model = library.SentenceTransformer(
        str(folder), device="cpu", local_files_only=True, model_kwargs={"dtype": "float32"}
    )
    return (
        lambda texts: model.encode(texts, batch_size=32, show_progress_bar=False, normalize_embeddings=True)
    ), f"sentence-transformers {library.__version__}, torch {torch.__version__}"


def onnxruntime(folder: Path, threads: int) -> tuple[Embed, str]:
    """onnxruntime with tokenizers; the exported graph lies where ``ONNX_MODEL`` says."""
    np, library = import_module("numpy"), import_module("onnxruntime")
    options = library.SessionOptions()
    options.intra_op_num_threads = threads
    session = library.InferenceSession(os.environ["ONNX_MODEL"], options, providers=["CPUExecutionProvider"])
    tokenizer = _tokenizer(folder)

    def embed(texts: list[str]) -> Any:
        ids = [encoding.ids for encoding in tokenizer.encode_batch_fast(texts)]
        order = sorted(range(len(ids)), key=lambda i: len(ids[i]))
        vectors = np.empty((len(ids), 384), np.float32)
        for start in range(0, len(order), 32):
            batch = order[start : start + 32]
            padded, mask = _padded(np, [ids[i] for i in batch], np.int64)
            vectors[batch] = session.run(None, {"ids": padded, "mask": mask})[0]
        return vectors

    return embed, f"onnxruntime {library.__version__}"


def candle(folder: Path, threads: int) -> tuple[Embed, str]:
    """candle through embed_anything, offline: the model lies in a folder of the hub's shape."""
    os.environ["RAYON_NUM_THREADS"] = str(threads)
    name, revision = "sentence-transformers/all-MiniLM-L6-v2", "0" * 40
    hub = Path(os.environ["HF_HUB_CACHE"]) / ("models--" + name.replace("/", "--"))
    snapshot = hub / "snapshots" / revision
    (hub / "refs").mkdir(parents=True, exist_ok=True)
    (hub / "refs" / "main").write_text(revision)
    for source in (path for path in folder.rglob("*") if path.is_file()):
        target = snapshot / source.relative_to(folder)
        target.parent.mkdir(parents=True, exist_ok=True)
        if not target.exists():
            target.symlink_to(source)
    library: Any = import_module("embed_anything")
    model = library.EmbeddingModel.from_pretrained_hf(name)
    config = library.TextEmbedConfig(batch_size=32)
    version = import_module("importlib.metadata").version("embed_anything")
    return (
        lambda texts: [found.embedding for found in library.embed_query(texts, model, config)]
    ), f"candle (embed_anything {version})"


KINDS = {
    "ours": ours,
    "raw openvino": raw_openvino,
    "sentence-transformers": sentence_transformers,
    "onnxruntime": onnxruntime,
    "candle": candle,
}


def files_of(folder: Path) -> dict[str, memoryview]:
    return {
        path.relative_to(folder).as_posix(): memoryview(bytearray(path.read_bytes()))
        for path in folder.rglob("*")
        if path.is_file()
    }


def _tokenizer(folder: Path) -> Any:
    tokenizer = import_module("tokenizers").Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.enable_truncation(256)
    return tokenizer


def _padded(np: Any, rows: list[list[int]], kind: Any) -> tuple[Any, Any]:
    shape = (len(rows), max(map(len, rows)))
    ids, mask = np.zeros(shape, kind), np.zeros(shape, kind)
    for index, row in enumerate(rows):
        ids[index, : len(row)] = row
        mask[index, : len(row)] = 1
    return ids, mask


def _memory() -> dict[str, float]:
    """Return resident memory now and at most, in MiB (proc(5), status)."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    fields = dict(line.split(":", 1) for line in lines if ":" in line)
    return {name: int(fields[key].split()[0]) / 1024 for name, key in (("now", "VmRSS"), ("most", "VmHWM"))}


def answer(embed: Embed, asked: dict[str, Any]) -> Any:
    """Do what one line asks."""
    if "texts" in asked:
        seconds = []
        for _ in range(asked["turns"]):
            began = time.perf_counter()
            for batch in asked["texts"]:
                embed(batch)
            seconds.append(time.perf_counter() - began)
        return seconds
    if "vectors" in asked:
        return [[float(number) for number in row] for row in embed(asked["vectors"])]
    return _memory()


def main() -> None:
    """Load, then answer line by line until standard input ends."""
    said = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # libraries print; the answers have a line of their own
    kind, folder, threads = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_HUB_DISABLE_TELEMETRY"):
        os.environ[name] = "1"
    began = time.perf_counter()
    embed, about = KINDS[kind](folder, threads)
    embed(["The first sentence."])
    print(json.dumps({"load": time.perf_counter() - began, "about": about}), file=said, flush=True)
    for line in sys.stdin:
        print(json.dumps(answer(embed, json.loads(line))), file=said, flush=True)


if __name__ == "__main__":
    main()
