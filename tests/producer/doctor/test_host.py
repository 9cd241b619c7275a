"""A Nitro parent as ``doctor`` sees it, in a folder that looks like one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ephemeralml.producer.cli.doctor.host import (
    ALLOCATOR,
    CONFIG,
    DEVICE,
    NODES,
    POOL_CPUS,
    VSOCK,
    enclave_host,
)

EIF = "/opt/ephemeralml/worker.eif"
ENCLAVE = {"cpu_count": 2, "memory_mib": 4096, "eif_path": EIF, "debug_mode": False}


def place(root: Path, path: str, text: str = "") -> None:
    file = root / path.lstrip("/")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)


@pytest.fixture
def parent(tmp_path: Path) -> Path:
    """A parent on which all is well: two nodes, pages of two sizes on the second."""
    for path in (DEVICE, VSOCK):
        place(tmp_path, path)
    place(tmp_path, ALLOCATOR, "---\n# sizes\nmemory_mib: 4096  # as enclave.json\ncpu_count: 2\n")
    place(tmp_path, CONFIG, json.dumps(ENCLAVE))
    place(tmp_path, POOL_CPUS, "1,5\n")
    place(tmp_path, f"{NODES}/node0/hugepages/hugepages-2048kB/nr_hugepages", "100\n")
    place(tmp_path, f"{NODES}/node1/hugepages/hugepages-2048kB/nr_hugepages", "512\n")
    place(tmp_path, f"{NODES}/node1/hugepages/hugepages-1048576kB/nr_hugepages", "3\n")
    place(tmp_path, EIF, "e" * (1 << 20))
    return tmp_path


def verdicts(root: Path) -> dict[str, str]:
    return {finding.code: finding.verdict for finding in enclave_host(str(root))}


def test_a_machine_that_is_no_parent_has_no_problem(tmp_path: Path) -> None:
    assert verdicts(tmp_path) == {"ENCLAVE_HOST": "ok"}


def test_a_good_parent_has_no_problem(parent: Path) -> None:
    found = {finding.code: finding for finding in enclave_host(str(parent))}
    assert {finding.verdict for finding in found.values()} == {"ok"}
    assert set(found) == {
        "ENCLAVE_HOST",
        "ENCLAVE_VSOCK",
        "ENCLAVE_MEMORY",
        "ENCLAVE_CPUS",
        "ENCLAVE_DEBUG",
        "ENCLAVE_FILE",
    }
    assert found["ENCLAVE_MEMORY"].seen.startswith("4096 MiB are set aside")
    assert found["ENCLAVE_CPUS"].seen.startswith("2 CPUs")


@pytest.mark.parametrize(
    ("path", "text", "code", "verdict", "words"),
    [
        (ALLOCATOR, "memory_mib: 2048\ncpu_count: 2\n", "ENCLAVE_MEMORY", "problem", "set memory_mib: 4096"),
        (ALLOCATOR, "memory_mib: 4096\n", "ENCLAVE_CPUS", "problem", "set cpu_count: 2"),
        (POOL_CPUS, "1\n", "ENCLAVE_CPUS", "problem", "systemctl restart"),
        (POOL_CPUS, "\n", "ENCLAVE_CPUS", "problem", "systemctl restart"),
        (POOL_CPUS, "2-3,6-7\n", "ENCLAVE_CPUS", "ok", ""),
        (
            f"{NODES}/node1/hugepages/hugepages-2048kB/nr_hugepages",
            "511",
            "ENCLAVE_MEMORY",
            "problem",
            "reboot",
        ),
        (CONFIG, "{}", "ENCLAVE_CONFIG", "problem", "install.sh"),
        (CONFIG, '{"cpu_count": "2", "memory_mib": 1}', "ENCLAVE_CONFIG", "problem", "install.sh"),
        (CONFIG, json.dumps({**ENCLAVE, "debug_mode": True}), "ENCLAVE_DEBUG", "problem", "false"),
        (CONFIG, json.dumps({**ENCLAVE, "eif_path": "/nowhere"}), "ENCLAVE_FILE", "problem", "build-eif"),
        (EIF, "", "ENCLAVE_FILE", "problem", "build-eif"),
    ],
)
def test_what_is_wrong_is_said_with_its_mend(
    parent: Path, path: str, text: str, code: str, verdict: str, words: str
) -> None:
    place(parent, path, text)
    found: dict[str, Any] = {finding.code: finding for finding in enclave_host(str(parent))}
    assert found[code].verdict == verdict
    assert words in found[code].fix


def test_an_enclave_too_small_for_its_file_is_warned_of(parent: Path) -> None:
    with (parent / EIF.lstrip("/")).open("r+b") as file:
        file.truncate(1025 << 20)
    assert verdicts(parent)["ENCLAVE_FILE"] == "warning"


def test_a_parent_without_vsock_has_a_problem(parent: Path) -> None:
    (parent / VSOCK.lstrip("/")).unlink()
    assert verdicts(parent)["ENCLAVE_VSOCK"] == "problem"
