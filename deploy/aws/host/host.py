#!/usr/bin/env python3
"""The parent instance's part: starts and watches the enclave, and drains it before the instance goes.

``host.py run``    starts the enclave and ends as its worker ends; SIGTERM drains it first.
``host.py guard``  waits until Auto Scaling or Spot takes the instance away, drains, lets it go.

``host.py policy`` fetches the signed policy bundle again and again, for the enclave to fetch from here.

Environment of ``guard``: AUTO_SCALING_GROUP, LIFECYCLE_HOOK, AWS_REGION; of ``policy``: POLICY_URL,
AWS_REGION. The standard library, the AWS CLI and nitro-cli; Python 3.9 or newer. The parent is not
trusted: nothing here sees a key or a job.

Sources: Amazon EC2 Auto Scaling User Guide, "Retrieve the target lifecycle state through instance
metadata" and "Complete a lifecycle action"; Amazon EC2 User Guide, "Spot Instance interruption notices".
"""

# ruff: noqa: S310, S603, S607 - fixed commands of the instance, and its own metadata service over http
from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

FOLDER = Path(os.environ.get("EPHEMERALML_HOST_FOLDER", "/opt/ephemeralml"))
CONFIG = Path(os.environ.get("EPHEMERALML_HOST_CONFIG", "/etc/ephemeralml/enclave.json"))
METADATA = os.environ.get("AWS_EC2_METADATA_SERVICE_ENDPOINT", "http://169.254.169.254").rstrip("/")
CONTROL = os.environ.get("EPHEMERALML_HOST_CONTROL", "vsock:16:9000")
POLL_S = float(os.environ.get("EPHEMERALML_HOST_POLL_SECONDS", "5"))
HEARTBEAT_S = float(os.environ.get("EPHEMERALML_HOST_HEARTBEAT_SECONDS", "60"))
POLICY_POLL_S = float(os.environ.get("EPHEMERALML_HOST_POLICY_SECONDS", "60"))
START_TIMEOUT_S = 120
TOKEN_S = 300
TERMINATED = "Terminated"


def bridge(word: str) -> subprocess.Popen[bytes]:
    """Ask the enclave to drain, or watch it; the process ends as the worker does."""
    return subprocess.Popen([sys.executable, str(FOLDER / "bridge.py"), "ask", CONTROL, word])


def run() -> int:
    """Start the enclave and return its worker's exit status."""
    subprocess.run(["nitro-cli", "run-enclave", "--config", str(CONFIG)], check=True)
    drains = []

    def drain(*_: object) -> None:
        drains.append(bridge("drain"))

    signal.signal(signal.SIGTERM, drain)
    try:
        return _watch()
    finally:
        for one in drains:
            one.wait()
        name = json.loads(CONFIG.read_text("utf-8"))["enclave_name"]
        subprocess.run(["nitro-cli", "terminate-enclave", "--enclave-name", name], check=False)


def _watch() -> int:
    """Wait for the worker's end; an enclave that boots does not answer yet (69)."""
    deadline = time.monotonic() + START_TIMEOUT_S
    while True:
        status = bridge("watch").wait()
        if status != 69 or time.monotonic() > deadline:
            return status
        time.sleep(min(POLL_S, 1))


def metadata(path: str) -> str | None:
    """Return what the metadata service (version 2) says, or None where it says nothing."""
    ask = urllib.request.Request(METADATA + "/latest/api/token", method="PUT")
    ask.add_header("X-aws-ec2-metadata-token-ttl-seconds", str(TOKEN_S))
    try:
        with urllib.request.urlopen(ask, timeout=2) as answer:
            token = answer.read(1024).decode("ascii")
        want = urllib.request.Request(METADATA + "/latest/meta-data/" + path)
        want.add_header("X-aws-ec2-metadata-token", token)
        with urllib.request.urlopen(want, timeout=2) as answer:
            return answer.read(4096).decode("ascii")
    except (OSError, ValueError):  # urllib's errors are OSErrors; 404: nothing is planned
        return None


def leaving() -> bool:
    """Return whether this instance is being taken away."""
    return (
        metadata("autoscaling/target-lifecycle-state") == TERMINATED
        or metadata("spot/instance-action") is not None
    )


def guard() -> int:
    """Wait until the instance is to go, drain its worker, then let it go."""
    while not leaving():
        time.sleep(POLL_S)
    instance = metadata("instance-id") or ""
    # systemd would start the worker again: stopping the unit is what drains it.
    stop = subprocess.Popen(["systemctl", "stop", "ephemeralml-enclave.service"])
    while True:
        try:
            stop.wait(HEARTBEAT_S)
            break
        except subprocess.TimeoutExpired:
            _lifecycle("record-lifecycle-action-heartbeat", instance)
    return _lifecycle("complete-lifecycle-action", instance, "--lifecycle-action-result", "CONTINUE")


def policy() -> int:
    """Keep the policy bundle beside the enclave; what it says is checked inside, by its signature."""
    file = Path(os.environ.get("EPHEMERALML_HOST_POLICY", "/var/lib/ephemeralml/policy.bundle"))
    draft = file.with_name(file.name + ".new")
    while True:
        command = ["aws", "s3", "cp", "--only-show-errors", "--region", os.environ["AWS_REGION"]]
        if subprocess.run([*command, os.environ["POLICY_URL"], str(draft)], check=False).returncode == 0:
            draft.replace(file)
        time.sleep(POLICY_POLL_S)


def _lifecycle(action: str, instance: str, *more: str) -> int:
    wanted = ("AUTO_SCALING_GROUP", "LIFECYCLE_HOOK", "AWS_REGION")
    group, hook, region = (os.environ[name] for name in wanted)
    command = ["aws", "autoscaling", action, "--auto-scaling-group-name", group]
    command += ["--lifecycle-hook-name", hook, "--instance-id", instance, "--region", region, *more]
    return subprocess.run(command, check=False).returncode


def main(arguments: list[str]) -> int:
    """Run a command; return the exit status."""
    if arguments == ["run"]:
        return run()
    if arguments == ["guard"]:
        return guard()
    if arguments == ["policy"]:
        return policy()
    print("usage: host.py run | guard | policy", file=sys.stderr)
    return 64


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
