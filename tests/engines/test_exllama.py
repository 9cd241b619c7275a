"""Both ExLlama engines: against stand-ins, the libraries' own sources, and a GPU where there is one."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from ephemeralml.attestation.attest.nvml import CcState, NvmlLibrary
from ephemeralml.wire.errors import ConfigurationError, EngineError, ModelError
from ephemeralml.wire.generation import GenerateParameters
from ephemeralml.workers.engines import EngineSettings, load_any_engine
from ephemeralml.workers.engines.conformance import check_engine
from ephemeralml.workers.engines.exllamav2 import sampling as sampling_v2
from ephemeralml.workers.engines.exllamav3 import sampling as sampling_v3
from ephemeralml.workers.engines.generate import GenerateEngine, GenerateRequest
from ephemeralml.workers.engines.generate_loop import GenerateLoop

from .exllama_fakes import INTERFACE, OutOfMemoryError, Recorder, fake_exllamav2, fake_exllamav3, tensor
from .generate_models import tiny_files

FAKES: dict[str, Callable[[Recorder], dict[str, Any]]] = {
    "exllamav2": fake_exllamav2,
    "exllamav3": fake_exllamav3,
}
GIB = 1 << 30


class Cuda:
    """torch.cuda of a machine with GPUs that are not there."""

    OutOfMemoryError = OutOfMemoryError

    def __init__(self, devices: int = 1) -> None:
        self.devices = devices
        self.fractions: list[tuple[float, int]] = []
        self.emptied = 0

    def is_available(self) -> bool:
        return self.devices > 0

    def device_count(self) -> int:
        return self.devices

    def get_device_properties(self, device: int) -> Any:
        return SimpleNamespace(total_memory=80 * GIB)

    def set_per_process_memory_fraction(self, fraction: float, device: int) -> None:
        self.fractions.append((fraction, device))

    def empty_cache(self) -> None:
        self.emptied += 1


class Machine:
    """What the engines import and ask on a machine of the test's making."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.cuda = Cuda()
        self.state = CcState(on=True, dev_tools=False)
        self.recorder = Recorder(vocabulary=len(vocabulary()))
        self.absent: set[str] = set()
        self.uncompiled: set[str] = set()
        torch = SimpleNamespace(cuda=self.cuda, tensor=tensor, long=np.int64)

        def imported(name: str) -> Any:
            if name in self.absent:
                raise ImportError(name)
            if name in self.uncompiled:
                raise RuntimeError("/usr/local/cuda is not there")
            modules = {"torch": torch, **fake_exllamav2(self.recorder), **fake_exllamav3(self.recorder)}
            return modules[name]

        monkeypatch.setattr(importlib, "import_module", imported)
        monkeypatch.setattr(NvmlLibrary, "__init__", lambda _: None)
        monkeypatch.setattr(NvmlLibrary, "state", lambda _: self.state)


def vocabulary() -> dict[str, int]:
    found: dict[str, int] = json.loads(tiny_files()["tokenizer.json"])["model"]["vocab"]
    return found


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(monkeypatch)


@pytest.fixture(params=list(FAKES))
def backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def load(backend: str, **settings: Any) -> GenerateLoop:
    engine = load_any_engine(backend, tiny_files(), EngineSettings(**settings))
    assert isinstance(engine, GenerateLoop)
    return engine


@pytest.fixture
def engine(machine: Machine, backend: str) -> Iterator[GenerateLoop]:
    with load(backend) as made:
        yield made


def run(engine: GenerateEngine, prompt: str, **parameters: Any) -> Any:
    return engine.submit(GenerateRequest(prompt, GenerateParameters(**parameters), 3)).result(60)


def test_the_engine_conforms(engine: GenerateLoop) -> None:
    assert [finding for finding in check_engine(engine) if not finding.passed] == []


def test_jobs_share_one_running_batch(machine: Machine, engine: GenerateLoop) -> None:
    prompts = [f"number {n} and some words" for n in range(12)]
    texts = [engine.submit(GenerateRequest(p, GenerateParameters(max_tokens=40), 1)) for p in prompts]
    done = [text.result(60) for text in texts]
    assert machine.recorder.generator is not None
    assert machine.recorder.generator.most > 4
    assert all(1 <= item.output_tokens <= 40 for item in done)


def test_texts_that_are_done_leave_no_pages_behind(machine: Machine, engine: GenerateLoop) -> None:
    """A prompt that begins like somebody else's would be quicker, which says that there was one."""
    run(engine, "one", max_tokens=3)
    assert machine.recorder.generator is not None
    assert machine.recorder.generator.resets == 1


def test_a_stop_text_ends_the_librarys_job(machine: Machine, engine: GenerateLoop) -> None:
    whole = run(engine, "one", max_tokens=30, temperature=0.0).text
    done = run(engine, "one", max_tokens=30, temperature=0.0, stop=(whole[3:5],))
    assert done.finish_reason == "stop"
    assert machine.recorder.generator is not None
    assert machine.recorder.generator.active == []


def test_logprobs_leave_the_padded_vocabulary_out(engine: GenerateLoop) -> None:
    done = run(engine, "one", max_tokens=5, temperature=0.0, logprobs=True, top_logprobs=2)
    for token in done.logprobs:
        assert token.top[0][1] == pytest.approx(token.logprob)
        assert token.logprob > -20


def test_a_job_that_the_library_gives_up_fails_alone(machine: Machine, engine: GenerateLoop) -> None:
    assert machine.recorder.generator is not None
    machine.recorder.generator.fail = {}
    with pytest.raises(EngineError, match="ENGINE_FAILED") as caught:
        run(engine, "one", max_tokens=5)
    assert "prompt" not in str(caught.value)
    assert run(engine, "one", max_tokens=5).output_tokens


def test_closing_frees_the_gpu(machine: Machine, backend: str) -> None:
    load(backend).close()
    assert machine.cuda.emptied == 1
    assert "unload" in machine.recorder.calls


def test_no_gpu_is_an_error_and_never_a_cpu(machine: Machine, backend: str) -> None:
    machine.cuda.devices = 0
    with pytest.raises(ConfigurationError, match="NO_GPU"):
        load(backend)
    assert machine.recorder.calls == {}


@pytest.mark.parametrize("state", [CcState(on=False, dev_tools=False), CcState(on=True, dev_tools=True)])
def test_a_gpu_that_is_not_confidential_is_refused_in_production(
    machine: Machine, backend: str, state: CcState
) -> None:
    machine.state = state
    with pytest.raises(ConfigurationError, match="GPU_NOT_CONFIDENTIAL"):
        load(backend)
    assert machine.recorder.calls == {}
    load(backend, require_cc=False).close()


def test_memory_is_capped_before_anything_is_loaded(machine: Machine, backend: str) -> None:
    machine.cuda.devices = 2
    load(backend, gpu_memory_gib=20).close()
    assert machine.cuda.fractions == [(0.25, 0), (0.25, 1)]
    with pytest.raises(ConfigurationError, match="GPU_MEMORY"):
        load(backend, gpu_memory_gib=81)


def test_a_model_that_does_not_fit_says_so(machine: Machine, backend: str) -> None:
    machine.recorder.out_of_memory = True
    with pytest.raises(ConfigurationError, match="GPU_MEMORY"):
        load(backend)


def test_what_is_missing_is_named(machine: Machine, backend: str) -> None:
    machine.absent = {backend}
    with pytest.raises(ConfigurationError, match=f"EXTRA_MISSING.*worker-{backend}"):
        load(backend)
    machine.absent, machine.uncompiled = set(), {backend}
    with pytest.raises(ConfigurationError, match="ENGINE_NOT_COMPILED") as caught:
        load(backend)
    assert "/usr" not in str(caught.value)


def test_without_flash_attention_exllamav2_takes_one_text_at_a_time(machine: Machine) -> None:
    machine.recorder.flash = False
    with load("exllamav2") as engine:
        assert "flash-attn" in engine.notice
        texts = [engine.submit(GenerateRequest("one", GenerateParameters(max_tokens=5), n)) for n in range(5)]
        assert all(text.result(60).output_tokens for text in texts)
    assert machine.recorder.calls["generator"] == {"batch": 1, "paged": False}
    assert machine.recorder.generator is not None
    assert machine.recorder.generator.most == 1


def test_context_and_cache_follow_the_settings(machine: Machine, backend: str) -> None:
    with load(backend, context_tokens=100, cache_tokens=1000, max_sequences=3) as engine:
        assert engine.max_tokens == 100
    assert machine.recorder.calls["cache"]["tokens"] == 1024
    assert machine.recorder.calls["generator"]["batch"] == 3
    for wrong in ({"context_tokens": 513}, {"cache_tokens": 100}):
        with pytest.raises((ConfigurationError, ModelError), match="ENGINE_BAD_SETTING"):
            load(backend, **wrong)


def test_exllamav3_keeps_nothing_outside_the_gpu(machine: Machine) -> None:
    load("exllamav3").close()
    generator = machine.recorder.calls["generator"]
    assert (generator["cpu_cache"], generator["disk_cache"]) == (0, None)


def test_the_model_lies_in_memory_and_only_while_it_loads(machine: Machine, backend: str) -> None:
    load(backend).close()
    folder = Path(machine.recorder.calls["config"]["folder"])
    assert folder.is_relative_to("/dev/shm")  # noqa: S108
    assert not folder.exists()


def test_a_model_quantised_for_another_library_is_refused(machine: Machine, backend: str) -> None:
    files = {**tiny_files()}
    for method in ("gptq", "exl3" if backend == "exllamav2" else "exl2"):
        config = (
            b'{"max_position_embeddings": 512, "quantization_config": {"quant_method": "%s"}}'
            % method.encode()
        )
        with pytest.raises(ConfigurationError, match="ENGINE_PRECISION_UNAVAILABLE"):
            load_any_engine(backend, {**files, "config.json": config}, EngineSettings())


def test_sampling_is_passed_on_in_full() -> None:
    given = GenerateParameters(
        temperature=0.7, top_k=40, top_p=0.9, min_p=0.05, repetition_penalty=1.1, presence_penalty=0.2,
        frequency_penalty=0.3,
    )  # fmt: skip
    two, three = sampling_v2(given), sampling_v3(given)
    assert sorted(two.values()) == sorted([1.1, -1, 0, 0.2, 0.3, 0.7, 40, 0.9, 0.05])
    assert sorted(three.values()) == sorted([1.1, 0.2, 0.3, 0.7, 40, 0.9, 0.05])
    assert sampling_v2(GenerateParameters())["top_p"] == 0.0
    assert sampling_v2(GenerateParameters(temperature=0.0))["top_k"] == 1


# ------------------------------------------------------------------ the libraries' own sources


def source_of(library: str) -> Path | None:
    """Return the folder of a library's sources: installed, or where EXLLAMA_SOURCES has them."""
    elsewhere = os.environ.get("EXLLAMA_SOURCES")
    if elsewhere and (Path(elsewhere) / library).is_dir():
        return Path(elsewhere) / library
    found = importlib.util.find_spec(library)
    return None if found is None or found.origin is None else Path(found.origin).parent


def parameters_of(tree: ast.Module, name: str) -> set[str] | None:
    """Return the parameters of a function, or the fields of a class, by qualified name."""
    nodes: list[ast.stmt] = tree.body
    found: ast.stmt | None = None
    for part in name.split("."):
        found = next((node for node in nodes if getattr(node, "name", None) == part), None)
        nodes = getattr(found, "body", [])
    if isinstance(found, ast.FunctionDef):
        return {argument.arg for argument in [*found.args.args, *found.args.kwonlyargs]}
    if isinstance(found, ast.ClassDef):
        return {
            n.target.id for n in found.body if isinstance(n, ast.AnnAssign) and isinstance(n.target, ast.Name)
        }
    return None


@pytest.mark.parametrize("library", list(INTERFACE))
def test_the_stand_ins_are_true_to_the_library(library: str) -> None:
    folder = source_of(library)
    if folder is None:
        pytest.skip(f"{library} is not installed (and EXLLAMA_SOURCES is not set)")
    for file, names in INTERFACE[library].items():
        tree = ast.parse((folder / file).read_text(encoding="utf-8"))
        for name, wanted in names.items():
            known = parameters_of(tree, name)
            assert known is not None, f"{file}: {name} is not there"
            assert set(wanted) <= known, f"{file}: {name} lacks {set(wanted) - known}"


# --------------------------------------------------------------------------------- on a GPU


def has_gpu() -> bool:
    torch = importlib.import_module("torch")
    return bool(torch.cuda.is_available())


@pytest.mark.gpu
@pytest.mark.parametrize("library", list(FAKES))
def test_on_a_gpu(library: str) -> None:
    if importlib.util.find_spec(library) is None or not has_gpu():
        pytest.skip(f"needs a CUDA GPU and {library}")
    from .generate_models import llama_files

    files = llama_files(context=512, hidden=256, layers=2, dtype="float16")
    engine = load_any_engine(library, files, EngineSettings(require_cc=False, max_sequences=8))
    assert isinstance(engine, GenerateLoop)
    prompts = [f"Once upon a time {n}" for n in range(16)]
    greedy = GenerateParameters(max_tokens=64, temperature=0.0)
    texts = [engine.submit(GenerateRequest(prompt, greedy, 1)) for prompt in prompts]
    assert all(text.result(120).output_tokens for text in texts)
    if not engine.notice:
        assert engine.most_running > 1
    findings = check_engine(engine, exact=False)
    assert [finding for finding in findings if not finding.passed] == []
