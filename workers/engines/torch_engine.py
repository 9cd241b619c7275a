"""The reference: sentence-transformers itself, in float32 on the CPU.

Its loader reads folders only, so the files go for a moment into a private
folder in memory (tmpfs), which is deleted as soon as the model is loaded.
"""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

from ...wire.errors import ConfigurationError, EngineError, ModelError
from .base import EmbedRequest, EmbedResult, Precision, check_request
from .files import ModelFiles
from .machine import usable_cores
from .sentence_model import TextReader, read_sentence_model

_OFFLINE = ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "HF_HUB_DISABLE_TELEMETRY", "DO_NOT_TRACK")
_SUFFIXES = frozenset({".json", ".txt", ".safetensors", ".model"})
SHARED_MEMORY = Path("/dev/shm")  # noqa: S108  (memory, not a disk: _in_memory checks it)


class TorchEngine:
    """A sentence-transformers model run by that library; see :class:`Engine`.

    :param files: the model; copied once into the process.
    :param precision: ``"auto"`` or ``"f32"``.
    :param threads: torch's threads, for the whole process; None takes every core that it may use.
    :raises ModelError: the model is malformed or of a kind that is not supported.
    :raises ConfigurationError: ``EXTRA_MISSING``, ``ENGINE_BAD_SETTING``, ``ENGINE_PRECISION_UNAVAILABLE`` or
        ``ENGINE_NO_MEMORY_FOLDER``.
    """

    name = "sentence-transformers"
    backend = "torch"
    precision = "f32"
    tasks = frozenset({"embed"})

    def __init__(
        self, files: ModelFiles, *, precision: Precision = "auto", threads: int | None = None
    ) -> None:
        if precision == "bf16":
            raise ConfigurationError(
                "ENGINE_PRECISION_UNAVAILABLE", "the torch backend computes in float32 only"
            )
        if precision not in ("auto", "f32"):
            raise ConfigurationError("ENGINE_BAD_SETTING", "precision must be auto, f32 or bf16")
        model = read_sentence_model(files)
        self._reader = TextReader(files, model)
        self._library, self._torch = _import_library()
        self._torch.set_num_threads(usable_cores() if threads is None else threads)
        with memory_folder(files) as folder:
            self._model = _load(self._library, folder)
        self.max_tokens = int(self._model.max_seq_length)
        self.model_dimensions = int(self._model.get_embedding_dimension())
        self.version = str(self._library.__version__)
        self._lock = threading.Lock()

    def check(self, request: EmbedRequest) -> None:
        """See :meth:`Engine.check`."""
        check_request(request, self.model_dimensions)

    def run(self, requests: Sequence[EmbedRequest]) -> list[EmbedResult]:
        """See :meth:`Engine.run`; requests of like parameters share their forward passes."""
        for request in requests:
            self.check(request)
        groups: dict[tuple[bool, int | None, str | None], list[int]] = {}
        for index, request in enumerate(requests):
            groups.setdefault((request.normalize, request.dimensions, request.prompt), []).append(index)
        results: dict[int, EmbedResult] = {}
        for members in groups.values():
            together = self._run_alike([requests[i] for i in members])
            results.update(zip(members, together, strict=True))
        return [results[i] for i in range(len(requests))]

    def _run_alike(self, requests: list[EmbedRequest]) -> list[EmbedResult]:
        ids, truncated = self._reader.read([t for r in requests for t in self._reader.prompted(r)])
        rows = self._encode([t for r in requests for t in r.texts], requests[0])
        results, start = [], 0
        for request in requests:
            own = slice(start, start + len(request.texts))
            results.append(EmbedResult(rows[own], [len(i) for i in ids[own]], truncated[own]))
            start = own.stop
        return results

    def _encode(self, texts: list[str], like: EmbedRequest) -> list[bytes]:
        try:
            with self._lock:
                vectors = self._model.encode(
                    texts,
                    prompt=like.prompt,
                    normalize_embeddings=like.normalize,
                    truncate_dim=like.dimensions,
                    show_progress_bar=False,
                )
        except Exception:  # anything may come out of the library, and its text may quote the input
            raise EngineError("ENGINE_FAILED", "the forward pass failed") from None
        if not self._torch.isfinite(self._torch.from_numpy(vectors)).all():
            raise EngineError("ENGINE_NOT_FINITE", "the model gave numbers that are not finite")
        return [row.astype("<f4").tobytes() for row in vectors]


def _import_library() -> tuple[Any, Any]:
    for name in _OFFLINE:
        os.environ[name] = "1"
    try:
        import sentence_transformers
        import torch
        import transformers
    except ImportError:
        message = "the torch backend is not installed: pip install 'ephemeralml[worker-torch]'"
        raise ConfigurationError("EXTRA_MISSING", message) from None
    quiet: Any = transformers.utils.logging
    quiet.disable_progress_bar()
    return sentence_transformers, torch


def _load(library: Any, folder: Path) -> Any:
    try:
        return library.SentenceTransformer(
            str(folder),
            device="cpu",
            local_files_only=True,
            trust_remote_code=False,
            model_kwargs={"use_safetensors": True, "dtype": "float32"},
        )
    except Exception:  # anything may come out of the library, and its text names the folder
        raise ModelError("MODEL_UNSUPPORTED", "sentence-transformers cannot load this model") from None


@contextmanager
def memory_folder(files: ModelFiles, root: Path = SHARED_MEMORY) -> Iterator[Path]:
    """Lay the files into a private folder in memory for the time of the ``with`` block.

    :raises ConfigurationError: ``ENGINE_NO_MEMORY_FOLDER`` when ``root`` is not memory-backed or is full.
    :raises ModelError: ``MODEL_FILE_MALFORMED`` for a name that leaves the folder.
    """
    if not _in_memory(root):
        raise ConfigurationError("ENGINE_NO_MEMORY_FOLDER", "the torch backend needs a tmpfs at /dev/shm")
    folder = Path(tempfile.mkdtemp(prefix=f"ephemeralml-{os.getpid()}-", dir=root))
    try:
        for name, content in files.items():
            _write(folder, PurePosixPath(name), content)
        yield folder
    except OSError:
        raise ConfigurationError("ENGINE_NO_MEMORY_FOLDER", "the model does not fit into /dev/shm") from None
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _write(folder: Path, name: PurePosixPath, content: Any) -> None:
    if name.is_absolute() or ".." in name.parts or not name.parts or "\x00" in str(name):
        raise ModelError("MODEL_FILE_MALFORMED", "a file name leaves the model's folder")
    if name.suffix not in _SUFFIXES:  # README and the like, and never a pickle or a script
        return
    path = folder / name
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.write_bytes(content)


def _in_memory(root: Path) -> bool:
    try:
        mounts = [line.split() for line in Path("/proc/mounts").read_text(encoding="utf-8").splitlines()]
    except OSError:
        return False
    return any(len(m) > 2 and m[1] == str(root) and m[2] in ("tmpfs", "ramfs") for m in mounts)
