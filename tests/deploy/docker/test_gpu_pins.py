"""The GPU image's versions hang together: driver, CUDA, torch, flash-attn, exllamav2, Python."""

from __future__ import annotations

import copy
import re
import tomllib
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from packaging.version import Version

from .files import HERE, PROJECT, ROOT, bases, dockerfile, lock

Pins = dict[str, dict[str, Any]]
Facts = dict[str, Any]
PINS: Pins = tomllib.loads((HERE / "gpu-pins.toml").read_text())
#: The driver's branch of each toolkit. Source: CUDA Toolkit release notes, "CUDA Toolkit and Corresponding
#: Driver Versions".
BRANCHES = {"12.0": 525, "12.1": 530, "12.2": 535, "12.3": 545, "12.4": 550, "12.5": 555, "12.6": 560}


def facts() -> Facts:
    """Return what the image is really made of."""
    gpu = "\n".join(PROJECT["project"]["optional-dependencies"]["worker-exllamav2"])
    return {
        "lock": {name: version for name, (version, _) in lock("worker-gpu").items()},
        "bases": {name: reference for name, (reference, _) in bases().items() if name.startswith("cuda-")},
        "dockerfile": dockerfile("worker-gpu"),
        "extra": gpu,
        "lock_script": (HERE / "lock").read_text(),
    }


def driver_loads_cuda(pins: Pins, found: Facts) -> Iterator[str]:
    """The driver's branch is at least that of the newest toolkit named, and no toolkit is newer."""
    newest = pins["driver"]["newest_cuda"]
    if int(pins["driver"]["version"].split(".")[0]) < BRANCHES[newest]:
        yield "the driver is older than its newest toolkit"
    if Version(pins["cuda"]["base"]) >= Version(f"{newest}.99"):
        yield "the base is newer than the driver"
    for name, reference in found["bases"].items():
        if f":{pins['cuda']['base']}-" not in reference:
            yield name
    if len(found["bases"]) != 2:
        yield "bases"


def torch_fits_the_driver(pins: Pins, found: Facts) -> Iterator[str]:
    """torch's own CUDA is no newer than the driver's, of nvcc's major version, and all of one release."""
    torch = pins["torch"]
    if found["lock"]["torch"] != torch["version"]:
        yield "torch"
    if Version(torch["cuda"]) > Version(pins["driver"]["newest_cuda"]):
        yield "torch is built for a newer CUDA than the driver loads"
    if torch["cuda"].split(".")[0] != pins["cuda"]["base"].split(".")[0]:
        yield "nvcc and torch differ in the major version"
    if found["lock"][torch["runtime_package"]] != torch["runtime_version"]:
        yield "runtime"
    if not torch["runtime_version"].startswith(torch["cuda"] + "."):
        yield "the runtime is of another CUDA"
    for part in ("cuda-nvrtc", "cuda-cupti", "nvtx", "nvjitlink"):
        if found["lock"][f"nvidia-{part}-cu12"] != torch["runtime_version"]:
            yield part
    if any(re.fullmatch(r"nvidia-.*-cu\d+", name) and not name.endswith("-cu12") for name in found["lock"]):
        yield "libraries of another CUDA"


def what_compiles_fits_torch(pins: Pins, found: Facts) -> Iterator[str]:
    """exllamav2 and flash-attn take this torch, each other, and this compiler."""
    exllama, flash, torch = pins["exllamav2"], pins["flash-attn"], Version(pins["torch"]["version"])
    if found["lock"]["exllamav2"] != exllama["version"]:
        yield "exllamav2"
    if f"exllamav2=={exllama['version']}" not in found["extra"]:
        yield "the extra asks for another exllamav2"
    if found["lock"]["flash-attn"] != flash["version"]:
        yield "flash-attn"
    if Version(flash["version"]) < Version(flash["least_for_exllamav2"]):
        yield "exllamav2 asks for a newer flash-attn"
    if f"flash-attn>={flash['least_for_exllamav2']}" not in found["extra"]:
        yield "the extra asks for another flash-attn"
    if torch < Version(exllama["least_torch"]) or torch < Version(flash["least_torch"]):
        yield "torch is too old"
    if Version(pins["cuda"]["base"]) < Version(flash["least_nvcc"]):
        yield "nvcc is too old"
    if Version(found["lock"]["numpy"]) >= Version("2.3"):
        yield "numpy"


def image_does_as_pinned(pins: Pins, found: Facts) -> Iterator[str]:
    """The Dockerfile's Python is the locks', it compiles for the H100, by hash, and fetches no binary."""
    text, python = found["dockerfile"], pins["python"]["version"]
    if {*re.findall(r"python(3\.\d+)", text)} != {python}:
        yield "Python"
    if f"--python-version {python}" not in found["lock_script"]:
        yield "the locks are for another Python"
    if Version(python) not in _supported():
        yield "pyproject.toml"
    if "TORCH_CUDA_ARCH_LIST=9.0 " not in text or "FLASH_ATTN_CUDA_ARCHS=90 " not in text:
        yield "architecture"
    if "FLASH_ATTENTION_FORCE_BUILD=TRUE" not in text or "--no-binary flash-attn " not in text:
        yield "flash-attn's setup may fetch a binary"
    if "-c 'import exllamav2'" not in text or "/extensions/exllamav2_ext/exllamav2_ext.so" not in text:
        yield "exllamav2 would compile in a runtime without nvcc"


def _supported() -> Any:
    from packaging.specifiers import SpecifierSet

    return SpecifierSet(PROJECT["project"]["requires-python"])


RULES: tuple[Callable[[Pins, Facts], Iterator[str]], ...] = (
    driver_loads_cuda, torch_fits_the_driver, what_compiles_fits_torch, image_does_as_pinned,
)  # fmt: skip


@pytest.mark.parametrize("rule", RULES)
def test_rule(rule: Callable[[Pins, Facts], Iterator[str]]) -> None:
    assert list(rule(PINS, facts())) == []


def test_every_pin_names_its_source() -> None:
    assert all(table["source"] for table in PINS.values())


@pytest.mark.parametrize(
    ("table", "key", "value"),
    [
        ("driver", "version", "470.57.02"),
        ("driver", "newest_cuda", "12.0"),
        ("cuda", "base", "12.4.1"),
        ("cuda", "base", "11.6.0"),
        ("torch", "version", "2.5.1"),
        ("torch", "cuda", "12.4"),
        ("torch", "runtime_version", "12.4.127"),
        ("exllamav2", "version", "0.3.1"),
        ("exllamav2", "least_torch", "2.6"),
        ("flash-attn", "version", "2.5.6"),
        ("flash-attn", "least_nvcc", "12.3"),
        ("python", "version", "3.12"),
    ],
)
def test_a_changed_pin_is_noticed(table: str, key: str, value: str) -> None:
    pins = copy.deepcopy(PINS)
    assert pins[table][key] != value
    pins[table][key] = value
    assert [wrong for rule in RULES for wrong in rule(pins, facts())]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("TORCH_CUDA_ARCH_LIST=9.0 ", ""),
        ("FLASH_ATTENTION_FORCE_BUILD=TRUE", ""),
        ("python3.11", "python3.12"),
        ("-c 'import exllamav2'", "--version"),
    ],
)
def test_a_changed_dockerfile_is_noticed(old: str, new: str) -> None:
    found = facts()
    assert old in found["dockerfile"]
    found["dockerfile"] = found["dockerfile"].replace(old, new)
    assert list(image_does_as_pinned(PINS, found))


@pytest.mark.parametrize(
    ("package", "version"), [("torch", "2.6.0"), ("nvidia-nvjitlink-cu12", "12.4.127"), ("numpy", "2.3.1"),
                             ("flash-attn", "2.8.0"), ("nvidia-cublas-cu13", "13.0")]
)  # fmt: skip
def test_a_changed_lock_is_noticed(package: str, version: str) -> None:
    found = facts()
    found["lock"][package] = version
    assert [wrong for rule in RULES for wrong in rule(PINS, found)]


def test_the_page_names_the_pins() -> None:
    page = (ROOT / "docs" / "deploy" / "images.md").read_text()
    for table in ("driver", "torch", "exllamav2", "flash-attn"):
        assert PINS[table]["version"] in page
