#!/usr/bin/env python3
"""Writes ``bridge.json`` of one fleet: which hosts its enclaves reach, and what the worker is told.

    settings.py fleet.env > bridge.json

``fleet.env`` holds ``NAME=value`` lines, all of ``EPHEMERALML_…`` and ``AWS_REGION``; they become part
of the image and of its measurements, so nothing in it is secret and nobody outside can change it.
The vsock ports are those of deploy/aws/host/proxies/.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

PARENT_CID = 3  # AWS Nitro Enclaves User Guide, "Nitro Enclaves concepts": the parent is always 3
CONTROL = "vsock:9000"
STATUS_PORT = 9464
POLICY_PORT, POLICY = 8005, "/run/ephemeralml/policy.bundle"
LINE = re.compile(r"(EPHEMERALML_[A-Z0-9_]+|AWS_REGION)=([\x20-\x7e]*)")
#: What names a secret, and so must never lie in an image that anybody may read.
SECRET = re.compile(r"SECRET|PASSWORD|SESSION_TOKEN|ACCESS_KEY")
S3_URL = re.compile(r"s3://([a-z0-9][a-z0-9.-]{1,61}[a-z0-9])(/.*)?")
#: Without them a worker ends, or asks for keys that are not its fleet's.
NEEDED = ("POOL", "POLICY_ROOT", "MODEL_SIGNER", "FLEET_KEY_ID", "MODEL_KEY_ID")


def forwards(region: str, buckets: list[str]) -> list[dict[str, object]]:
    """Return the enclave's ways out, one loopback address each, and the way in to its status."""
    s3 = f"s3.{region}.amazonaws.com"
    hosts: list[tuple[str, int, list[str]]] = [
        ("127.0.0.11:443", 8001, [f"kms.{region}.amazonaws.com"]),
        ("127.0.0.12:443", 8002, [f"sqs.{region}.amazonaws.com"]),
        # A bucket is asked as a host of its own, and there is no DNS in an enclave.
        ("127.0.0.13:443", 8003, [s3, *(f"{bucket}.{s3}" for bucket in buckets)]),
        ("169.254.169.254:80", 8004, []),
    ]
    out: list[dict[str, object]] = [
        {"listen": f"tcp:{address}", "to": f"vsock:{PARENT_CID}:{port}", "names": names}
        for address, port, names in hosts
    ]
    return [*out, {"listen": f"vsock:{STATUS_PORT}", "to": f"tcp:127.0.0.1:{STATUS_PORT}"}]


def read_env(text: str) -> dict[str, str]:
    """Return the settings of a file; ValueError for anything that is not one."""
    found = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        match = LINE.fullmatch(line)
        if match is None:
            raise ValueError(f"line {number} is not EPHEMERALML_NAME=value or AWS_REGION=value")
        if SECRET.search(match[1]):
            raise ValueError(f"line {number} holds a secret: credentials come from the instance's role")
        found[match[1]] = match[2]
    return found


def config(settings: dict[str, str]) -> dict[str, object]:
    """Return the configuration of ``bridge.py run``."""
    region = settings.get("AWS_REGION", "")
    if not re.fullmatch(r"[a-z]{2}(-[a-z]+)+-[0-9]{1,2}", region):
        raise ValueError("AWS_REGION is missing or not a region")
    blobs = S3_URL.fullmatch(settings.get("EPHEMERALML_BLOB_URL", ""))
    if blobs is None:
        raise ValueError("EPHEMERALML_BLOB_URL is s3://bucket/prefix")
    model = S3_URL.fullmatch(settings.get("EPHEMERALML_WORKER_MODEL", ""))
    if model is None or model[2] in (None, "/"):
        raise ValueError("EPHEMERALML_WORKER_MODEL is s3://bucket/key")
    for name in NEEDED:
        if not settings.get(f"EPHEMERALML_WORKER_{name}"):
            raise ValueError(f"EPHEMERALML_WORKER_{name} is missing")
    told = {
        **settings,
        # Elsewhere boto3 asks the region's own host anyway; there, s3.amazonaws.com.
        "AWS_S3_US_EAST_1_REGIONAL_ENDPOINT": "regional",
        "EPHEMERALML_PROFILE": "sqs",
        "EPHEMERALML_SQS_REGION": region,
        "EPHEMERALML_BLOB_REGION": region,
        "EPHEMERALML_WORKER_PLATFORM": "nitro",
        "EPHEMERALML_WORKER_KMS_REGION": region,
        "EPHEMERALML_WORKER_KMS_INSTANCE_METADATA": "http://169.254.169.254",
        "EPHEMERALML_WORKER_POLICY": POLICY,
        "EPHEMERALML_WORKER_POLICY_MEMORY": "/run/ephemeralml/policy.memory",
        "EPHEMERALML_WORKER_STATUS": f"127.0.0.1:{STATUS_PORT}",
        "EPHEMERALML_LOG": "json",
    }
    return {
        "forwards": forwards(region, sorted({blobs[1], model[1]})),
        "control": CONTROL,
        "policy": {"from": f"vsock:{PARENT_CID}:{POLICY_PORT}", "to": POLICY},
        "command": ["env", *(f"{name}={told[name]}" for name in sorted(told)), "ephemeralml", "worker"],
    }


def main(arguments: list[str]) -> int:
    """Print the configuration; 64 where the settings are wrong."""
    if len(arguments) != 1:
        print("usage: settings.py fleet.env > bridge.json", file=sys.stderr)
        return 64
    try:
        print(json.dumps(config(read_env(Path(arguments[0]).read_text("ascii"))), indent=2))
    except (ValueError, OSError) as error:
        print(f"settings: {error}", file=sys.stderr)
        return 64
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
