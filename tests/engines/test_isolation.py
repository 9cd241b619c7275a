"""The worker's process holds no torch and tells nobody anything."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

SCRIPT = str(Path(__file__).with_name("sealed_process.py"))


def run(argument: str, home: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "HOME": str(home)}
    return subprocess.run(
        [sys.executable, SCRIPT, argument],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
        cwd=home,
    )


def test_openvino_runs_without_torch_network_or_telemetry(model_folder: Path, tmp_path: Path) -> None:
    done = run(str(model_folder), tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    said = json.loads(done.stdout)
    sender = said.pop("sender")
    assert said == {"vectors": 2, "heavy": [], "telemetry": [], "sockets": []}
    assert sender == "openvino.tools.ovc.telemetry_stub"
    assert list(tmp_path.iterdir()) == []  # no consent file, no client id


def test_the_filter_kills_whoever_connects(tmp_path: Path) -> None:
    assert run("--connect", tmp_path).returncode == -signal.SIGSYS
