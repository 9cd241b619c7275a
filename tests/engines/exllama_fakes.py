"""Stand-ins for exllamav2, exllamav3 and torch with CUDA: their interface as far as the engines use it.

Names and parameters are held against the libraries' own sources where they are installed
(``test_exllama.py``), so that the stand-ins cannot drift from what they stand for.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np

#: What the engines call, by source file and qualified name, with the keyword parameters that they give.
INTERFACE: dict[str, dict[str, dict[str, tuple[str, ...]]]] = {
    "exllamav2": {
        "config.py": {
            "ExLlamaV2Config.__init__": ("model_dir",),
            "ExLlamaV2Config.arch_compat_overrides": (),
        },
        "model.py": {
            "ExLlamaV2.__init__": ("config",),
            "ExLlamaV2.load_autosplit": ("cache",),
            "ExLlamaV2.unload": (),
        },
        "cache.py": {"ExLlamaV2Cache.__init__": ("model", "max_seq_len", "lazy")},
        "tokenizer/tokenizer.py": {"ExLlamaV2Tokenizer.__init__": ("config",)},
        "generator/dynamic.py": {
            "ExLlamaV2DynamicGenerator.__init__": (
                *("model", "cache", "tokenizer", "max_batch_size", "max_q_size", "paged"),
            ),
            "ExLlamaV2DynamicGenerator.enqueue": ("job",),
            "ExLlamaV2DynamicGenerator.cancel": ("job",),
            "ExLlamaV2DynamicGenerator.iterate": (),
            "ExLlamaV2DynamicGenerator.reset_page_table": (),
            "ExLlamaV2DynamicJob.__init__": (
                *("input_ids", "max_new_tokens", "gen_settings", "seed", "stop_conditions"),
                *("return_logits", "identifier"),
            ),
        },
        "generator/sampler.py": {
            "ExLlamaV2Sampler.Settings": (
                *("token_repetition_penalty", "token_repetition_range", "token_repetition_decay"),
                *("token_presence_penalty", "token_frequency_penalty"),
                *("temperature", "top_k", "top_p", "min_p"),
            ),
        },
    },
    "exllamav3": {
        "model/config.py": {"Config.from_directory": ("directory",)},
        "model/model.py": {
            "Model.from_config": ("config",),
            "Model.load_gen": ("progressbar",),
            "Model.unload": (),
        },
        "cache/cache.py": {"Cache.__init__": ("model", "max_num_tokens")},
        "tokenizer/tokenizer.py": {"Tokenizer.from_config": ("config",)},
        "generator/generator.py": {
            "Generator.__init__": (
                *("model", "cache", "tokenizer", "max_batch_size", "cpu_cache_size", "disk_cache_dir"),
            ),
            "Generator.enqueue": ("job",),
            "Generator.cancel": ("job",),
            "Generator.iterate": (),
        },
        "generator/pagetable.py": {"PageTable.reset_page_table": ()},
        "generator/job.py": {
            "Job.__init__": (
                *("input_ids", "max_new_tokens", "sampler", "seed", "stop_conditions"),
                *("return_logits", "identifier"),
            ),
        },
        "generator/sampler/presets.py": {
            "ComboSampler.__init__": (
                *("rep_p", "freq_p", "pres_p", "temperature", "min_p", "top_k", "top_p"),
            ),
        },
    },
}


class OutOfMemoryError(RuntimeError):
    """torch.cuda's."""


class Tensor(np.ndarray[Any, Any]):
    """As much of torch's tensor as the engines use, so that these tests need no torch."""

    device = SimpleNamespace(type="cpu")  # type: ignore[assignment]

    def float(self) -> Tensor:
        return self.astype(np.float32).view(Tensor)

    def cpu(self) -> Tensor:
        return self

    def numpy(self) -> Any:
        return self.view(np.ndarray)


def tensor(values: Any, dtype: Any = None) -> Tensor:
    """Return a tensor on the CPU."""
    return np.array(values, dtype=dtype).view(Tensor)


def logits_after(tokens: Sequence[int], vocabulary: int, padded: int) -> Any:
    """Return what a model of no parameters says after these tokens."""
    numbers = np.full(padded, 50.0, dtype=np.float32)  # the padding must never be read
    numbers[:vocabulary] = np.random.default_rng(sum(tokens[-4:])).normal(0, 2, vocabulary)
    numbers[2] = -3.0
    return tensor(numbers)


@dataclass
class FakeJob:
    """A job of either library."""

    input_ids: Any
    max_new_tokens: int
    stop_conditions: list[int]
    return_logits: bool
    identifier: int
    seed: int
    greedy: bool
    settings: dict[str, Any]
    tokens: list[int] = field(default_factory=list)
    held: list[tuple[int, Any]] = field(default_factory=list)
    given: int = 0

    def __post_init__(self) -> None:
        assert all(ids.device.type == "cpu" for ids in self.input_ids)
        assert self.input_ids.shape[0] == 1
        self.random = random.Random(self.seed)  # noqa: S311
        self.tokens = self.input_ids[0].tolist()


class FakeGenerator:
    """Continuous batching as both libraries do it: results as dictionaries, output held back at times."""

    def __init__(self, *, batch: int, total: int, vocabulary: int) -> None:
        self.batch, self.total, self.vocabulary = batch, total, vocabulary
        self.padded = -(-vocabulary // 32) * 32 + 32
        self.pending: list[FakeJob] = []
        self.active: list[FakeJob] = []
        self.most = 0
        self.resets = 0
        self.fail: dict[str, Any] | None = None
        self.cancelled: list[int] = []

    def enqueue(self, job: FakeJob) -> int:
        assert len(job.tokens) + 1 <= self.total, "Job requires more pages than there are"
        self.pending.append(job)
        return len(self.pending)

    def cancel(self, job: FakeJob) -> None:
        self.cancelled.append(job.identifier)
        self.pending = [other for other in self.pending if other is not job]
        self.active = [other for other in self.active if other is not job]

    def reset_page_table(self) -> None:
        assert not self.active
        assert not self.pending
        self.resets += 1

    def iterate(self) -> list[dict[str, Any]]:
        results: list[dict[str, Any]] = []
        while self.pending and len(self.active) < self.batch:
            job = self.pending.pop(0)
            self.active.append(job)
            results.append({"job": job, "stage": "started", "eos": False, "identifier": job.identifier})
            results.append({"job": job, "stage": "prefill", "eos": False, "identifier": job.identifier})
        self.most = max(self.most, len(self.active))
        if self.fail is not None and self.active:
            failed, self.fail = self.active.pop(), None
            results.append({"job": failed, "stage": "error", "eos": True, "error": ValueError("a prompt")})
        for job in list(self.active):
            results.append(self._one(job))
        return results

    def _one(self, job: FakeJob) -> dict[str, Any]:
        logits = logits_after(job.tokens, self.vocabulary, self.padded)
        values = logits[: self.vocabulary].numpy().astype(np.float64)
        powers = np.exp(values - values.max())
        draw = job.random.random() * powers.sum()
        token = int(values.argmax()) if job.greedy else int(np.searchsorted(powers.cumsum(), draw))
        job.tokens.append(token)
        job.held.append((token, logits))
        job.given += 1
        result: dict[str, Any] = {
            "job": job,
            "stage": "streaming",
            "eos": False,
            "identifier": job.identifier,
        }
        if token in job.stop_conditions:
            result |= {"eos": True, "eos_reason": "stop_token", "eos_triggering_token_id": token}
            result["held"] = self._emit(job)
            self.active.remove(job)
        elif job.given >= job.max_new_tokens:
            result |= {"eos": True, "eos_reason": "max_new_tokens", **self._emit(job)}
            self.active.remove(job)
        elif token % 3:  # some output is held back for a step, as half characters are
            result |= self._emit(job)
        return result

    def _emit(self, job: FakeJob) -> dict[str, Any]:
        held, job.held = job.held, []
        part: dict[str, Any] = {"token_ids": tensor([[token for token, _ in held]])}
        if job.return_logits:
            part["logits"] = tensor([[logits for _, logits in held]])
        return part


class Recorder:
    """What was asked of a library while it loaded."""

    def __init__(self, *, flash: bool = True, vocabulary: int = 0) -> None:
        self.flash, self.vocabulary = flash, vocabulary
        self.calls: dict[str, dict[str, Any]] = {}
        self.generator: FakeGenerator | None = None
        self.out_of_memory = False

    def note(self, name: str, **values: Any) -> None:
        self.calls[name] = values


def fake_exllamav2(recorder: Recorder) -> dict[str, Any]:
    """Return the modules that ``exllamav2`` consists of, by name."""

    class Config:
        def __init__(self, model_dir: str) -> None:
            self.max_input_len, self.vocab_size, self.no_flash_attn = 2048, recorder.vocabulary, False
            self.max_seq_len = 0
            recorder.note("config", folder=model_dir)
            recorder.calls["object"] = {"config": self}

        def arch_compat_overrides(self) -> None:
            recorder.note("overrides")

    class Model:
        def __init__(self, config: Config) -> None:
            self.config = config

        def load_autosplit(self, cache: Any) -> None:
            if recorder.out_of_memory:
                raise OutOfMemoryError
            recorder.note("load", cache=cache)

        def unload(self) -> None:
            recorder.note("unload")

    class Cache:
        def __init__(self, model: Model, *, max_seq_len: int, lazy: bool) -> None:
            assert lazy
            assert max_seq_len % 256 == 0
            self.max_seq_len = max_seq_len
            recorder.note("cache", tokens=max_seq_len)

    def generator(
        *, model: Model, cache: Cache, tokenizer: Any, max_batch_size: int, max_q_size: int, paged: bool
    ) -> Any:
        assert recorder.flash or not paged, "Paged attention required Flash Attention 2.5.7 or later"
        assert max_batch_size * max_q_size <= model.config.max_input_len
        recorder.note("generator", batch=max_batch_size, paged=paged)
        recorder.generator = FakeGenerator(
            batch=max_batch_size, total=cache.max_seq_len, vocabulary=recorder.vocabulary
        )
        return recorder.generator

    def settings(**values: Any) -> dict[str, Any]:
        return values

    def job(*, gen_settings: dict[str, Any], **values: Any) -> FakeJob:
        return FakeJob(**values, greedy=gen_settings["top_k"] == 1 or gen_settings["min_p"] == 1.0
                       or 0 < gen_settings["top_p"] < 1e-3, settings=gen_settings)  # fmt: skip

    library = SimpleNamespace(
        ExLlamaV2Config=Config,
        ExLlamaV2=Model,
        ExLlamaV2Cache=Cache,
        ExLlamaV2Tokenizer=lambda config: config,
    )
    generators = SimpleNamespace(
        ExLlamaV2DynamicGenerator=generator,
        ExLlamaV2DynamicJob=job,
        ExLlamaV2Sampler=SimpleNamespace(Settings=settings),
    )
    return {
        "exllamav2": library,
        "exllamav2.generator": generators,
        "exllamav2.version": SimpleNamespace(__version__="0.3.2"),
        "exllamav2.attn": SimpleNamespace(has_flash_attn_with_paged=recorder.flash),
    }


def fake_exllamav3(recorder: Recorder) -> dict[str, Any]:
    """Return the modules that ``exllamav3`` consists of, by name."""

    class Model:
        @staticmethod
        def from_config(config: Any) -> Model:
            return Model()

        def load(self, *, progressbar: bool) -> None:
            if recorder.out_of_memory:
                raise OutOfMemoryError
            assert "cache" in recorder.calls, "Construct the Cache BEFORE calling model.load()"

        def unload(self) -> None:
            recorder.note("unload")

    def from_directory(directory: str) -> Any:
        recorder.note("config", folder=directory)
        return SimpleNamespace(vocab_size=recorder.vocabulary)

    def cache(model: Model, *, max_num_tokens: int) -> Any:
        assert max_num_tokens % 256 == 0
        recorder.note("cache", tokens=max_num_tokens)
        return SimpleNamespace(tokens=max_num_tokens)

    def generator(
        *,
        model: Model,
        cache: Any,
        tokenizer: Any,
        max_batch_size: int,
        cpu_cache_size: int,
        disk_cache_dir: None,
    ) -> Any:
        recorder.note("generator", batch=max_batch_size, cpu_cache=cpu_cache_size, disk_cache=disk_cache_dir)
        made = FakeGenerator(batch=max_batch_size, total=cache.tokens, vocabulary=recorder.vocabulary)
        recorder.generator = made
        made.pagetable = SimpleNamespace(reset_page_table=made.reset_page_table)  # type: ignore[attr-defined]
        return made

    def job(*, sampler: dict[str, Any], **values: Any) -> FakeJob:
        greedy = sampler["temperature"] == 0.0 or sampler["top_k"] == 1 or sampler["min_p"] == 1.0
        return FakeJob(**values, greedy=greedy or sampler["top_p"] < 1e-3, settings=sampler)

    library = SimpleNamespace(
        Config=SimpleNamespace(from_directory=from_directory),
        Model=Model,
        Cache=cache,
        Tokenizer=SimpleNamespace(from_config=lambda config: config),
        Generator=generator,
        Job=job,
        ComboSampler=lambda **values: values,
    )
    return {"exllamav3": library, "exllamav3.version": SimpleNamespace(__version__="1.6.5")}
