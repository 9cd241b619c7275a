"""Engines from elsewhere: closed by default, and the one of docs/engine-plugin.md works as printed."""

from __future__ import annotations

import json
import os
import re
import string
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest

from ephemeralml.wire.errors import ConfigurationError, EngineError, ModelError
from ephemeralml.wire.generation import GenerateParameters
from ephemeralml.workers.engines import EngineSettings, load_any_engine
from ephemeralml.workers.engines.conformance import check_engine
from ephemeralml.workers.engines.generate import GenerateEngine, GenerateRequest
from ephemeralml.workers.engines.generate_backends import EMBED_BACKENDS, GENERATE_BACKENDS
from ephemeralml.workers.engines.generate_loop import GenerateLoop
from ephemeralml.workers.engines.noop_engine import NoopEngine
from ephemeralml.workers.engines.plugins import GROUP, load_plugin
from ephemeralml.workers.settings import BACKENDS, worker_settings

from .script_stepper import ScriptStepper

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "engine-plugin.md").read_text()
SUITE = "ephemeralml.workers.engines.conformance"
GREEDY = GenerateParameters(temperature=0.0)
MORSE = {letter: ".-" * (place % 4 + 1) for place, letter in enumerate(string.ascii_uppercase)}
FILES = {"morse.json": json.dumps(MORSE).encode()}


def printed(language: str) -> str:
    (block,) = re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)
    return str(block)


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Lay the page's package out as pip does: the module, and the metadata of its entry points."""
    (tmp_path / "morse_engine.py").write_text(printed("python"))
    project = tomllib.loads(printed("toml"))["project"]
    metadata = tmp_path / "morse_engine-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: 1.0\n")
    points = project["entry-points"][GROUP]
    lines = "".join(f"{name} = {target}\n" for name, target in points.items())
    (metadata / "entry_points.txt").write_text(f"[{GROUP}]\n{lines}")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    sys.modules.pop("morse_engine", None)


def test_the_engine_of_the_page_has_fifty_lines_of_its_own() -> None:
    lines = [line for line in printed("python").splitlines() if line.strip()]
    assert len(lines) <= 60


def test_the_engine_of_the_page_runs(installed: Path) -> None:
    engine = load_any_engine("morse", FILES, EngineSettings(plugins=("morse",)))
    assert isinstance(engine, GenerateEngine)
    done = engine.submit(GenerateRequest("abc?", GREEDY)).result(30)
    assert (done.text, done.finish_reason) == (".- .-.- .-.-.- ?", "stop")
    with pytest.raises(EngineError, match="ENGINE_BAD_PARAMETERS"):
        engine.submit(GenerateRequest("abc")).result(30)
    engine.close()


def test_the_engine_of_the_page_is_checked_as_the_page_says(installed: Path) -> None:
    folder = installed / "model"
    folder.mkdir()
    (folder / "morse.json").write_bytes(FILES["morse.json"])
    done = subprocess.run(
        [sys.executable, "-m", SUITE, "morse", str(folder), "--plugin", "morse"],
        env={**os.environ, "PYTHONPATH": str(installed)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    lines = done.stdout.splitlines()
    assert len(lines) == 17
    assert sum("refused with ENGINE_BAD_PARAMETERS" in line for line in lines) == 4


def test_what_is_not_allowed_is_not_even_imported(installed: Path) -> None:
    for allowed in ((), ("other",)):
        with pytest.raises(ConfigurationError, match="ENGINE_PLUGIN_NOT_ALLOWED"):
            load_any_engine("morse", FILES, EngineSettings(plugins=allowed))
    assert "morse_engine" not in sys.modules


def test_a_plugin_cannot_take_the_place_of_a_built_in_engine() -> None:
    engine = load_any_engine("noop", {}, EngineSettings(plugins=("noop",)))
    assert isinstance(engine, NoopEngine)


def made(maker: Callable[..., Any], *names: str) -> list[EntryPoint]:
    """Return entry points that load ``maker``."""

    class Point:
        def __init__(self, name: str) -> None:
            self.name = name

        def load(self) -> Callable[..., Any]:
            return maker

    return [Point(name) for name in names]  # type: ignore[misc]


def load(maker: Callable[..., Any], *names: str) -> object:
    return load_plugin("mine", {}, allowed={"mine"}, found=made(maker, *names))


def test_only_one_package_may_offer_a_name() -> None:
    with pytest.raises(ConfigurationError, match="ENGINE_UNKNOWN"):
        load(lambda *_, **__: None, "other")
    with pytest.raises(ConfigurationError, match="ENGINE_PLUGIN_TWICE"):
        load(lambda *_, **__: None, "mine", "mine")


def raising(error: Exception) -> Callable[..., Any]:
    def maker(*_: object, **__: object) -> None:
        raise error

    return maker


def test_what_a_plugin_does_wrong_stays_within_our_errors() -> None:
    with pytest.raises(ModelError, match="MODEL_UNSUPPORTED"):
        load(raising(ModelError("MODEL_UNSUPPORTED")), "mine")
    with pytest.raises(ConfigurationError, match="ENGINE_PLUGIN_BROKEN") as caught:
        load(raising(RuntimeError("/secret/path")), "mine")
    assert "secret" not in str(caught.value)
    with pytest.raises(ConfigurationError, match="ENGINE_PLUGIN_BROKEN"):
        load(lambda *_, **__: object(), "mine")
    with pytest.raises(ConfigurationError, match="ENGINE_PLUGIN_BROKEN"):
        load(lambda *_, **__: NoopEngine(), "mine")  # says that it is another backend


def test_a_plugin_is_given_the_files_and_the_settings() -> None:
    given: dict[str, object] = {}

    def maker(files: object, **settings: object) -> GenerateLoop:
        given.update(settings, files=files)
        stepper = ScriptStepper()
        stepper.backend = "mine"
        return GenerateLoop(stepper)

    found = made(maker, "mine")
    files = {"a": b"b"}
    engine = load_plugin("mine", files, allowed={"mine"}, precision="bf16", threads=3, found=found)
    assert given == {"files": files, "precision": "bf16", "threads": 3}
    assert isinstance(engine, GenerateEngine)
    assert check_engine(engine)[0].passed


def test_settings_refuse_a_backend_that_nobody_allows() -> None:
    """Before any key is asked for."""
    given = {"pool": "p", "policy": "p.json", "model": "m", "model_signer": "0" * 64}
    for backend in sorted(EMBED_BACKENDS | GENERATE_BACKENDS):
        assert worker_settings(**given, backend=backend).backend == backend
    assert BACKENDS == EMBED_BACKENDS | GENERATE_BACKENDS
    with pytest.raises(ConfigurationError, match=r"BAD_SETTINGS.*backend"):
        worker_settings(**given, backend="morse")
    assert worker_settings(**given, backend="morse", engine_plugins=("morse",)).backend == "morse"
