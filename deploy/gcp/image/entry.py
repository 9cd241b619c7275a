#!/usr/bin/env python3
"""Starts the worker in Confidential Space with the trust policy of the day, and keeps that fresh.

A policy names the image that this is part of, so it cannot lie in it. It is fetched from Cloud Storage,
which nobody trusts: the worker checks its signature against the policy root, which is measured.

    entry.py COMMAND…

EPHEMERALML_POLICY_URL is gs://bucket/object, EPHEMERALML_WORKER_POLICY the file. SIGTERM goes to the
worker, whose exit status is this one's. The standard library alone: it is measured.
"""

# ruff: noqa: S310, S603 - two fixed services, and the image's own command
from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path
from urllib.parse import quote

METADATA = "http://metadata.google.internal"
STORAGE = "https://storage.googleapis.com"
TOKEN_PATH = "/computeMetadata/v1/instance/service-accounts/default/token"  # noqa: S105 - a path
MAX_BYTES = 1 << 20
TIMEOUT_S = 10
POLL_S = 30.0
TRIES = 60
URL = re.compile(r"gs://([a-z0-9][a-z0-9._-]{1,61}[a-z0-9])/([A-Za-z0-9._/-]{1,200})")


def read(url: str, **headers: str) -> bytes:
    """Return an answer's bytes; OSError where there is none, or it is too large."""
    request = urllib.request.Request(
        url, headers={name.replace("_", "-"): text for name, text in headers.items()}
    )
    with urllib.request.urlopen(request, timeout=TIMEOUT_S) as answer:
        data = bytes(answer.read(MAX_BYTES + 1))
    if not 0 < len(data) <= MAX_BYTES:
        raise OSError("the answer is empty or too large")
    return data


def fetch(bucket: str, name: str, to: Path, *, metadata: str = METADATA, storage: str = STORAGE) -> None:
    """Put the policy bundle in place whole; OSError where it cannot be had."""
    try:
        token = json.loads(read(metadata + TOKEN_PATH, Metadata_Flavor="Google"))["access_token"]
    except (ValueError, KeyError, TypeError):
        raise OSError("the metadata service gives no token") from None
    address = f"{storage}/storage/v1/b/{bucket}/o/{quote(name, safe='')}?alt=media"
    data = read(address, Authorization=f"Bearer {token}")
    if to.exists() and to.read_bytes() == data:
        return
    to.parent.mkdir(parents=True, exist_ok=True)
    draft = to.with_name(to.name + ".new")
    draft.write_bytes(data)
    draft.replace(to)


def keep(bucket: str, name: str, to: Path) -> None:
    """Fetch again and again; a policy that does not come leaves the last, until that has ended."""
    while True:
        time.sleep(POLL_S)
        try:
            fetch(bucket, name, to)
        except OSError:
            continue


def main(command: list[str]) -> int:
    """Run the command; return its exit status, 78 where settings are wrong, 69 without a policy."""
    match = URL.fullmatch(os.environ.get("EPHEMERALML_POLICY_URL", ""))
    place = os.environ.get("EPHEMERALML_WORKER_POLICY", "")
    if match is None or not place or not command:
        print(
            "entry: EPHEMERALML_POLICY_URL is gs://bucket/object, with EPHEMERALML_WORKER_POLICY",
            file=sys.stderr,
        )
        return 78
    bucket, name, to = match[1], match[2], Path(place)
    for tries_left in reversed(range(TRIES)):
        try:
            fetch(bucket, name, to)
            break
        except OSError:
            if not tries_left:
                print("entry: the policy bundle cannot be fetched", file=sys.stderr)
                return 69
            time.sleep(1)
    worker = subprocess.Popen(command)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: worker.send_signal(signal.SIGTERM))
    threading.Thread(target=keep, args=(bucket, name, to), daemon=True).start()
    status = worker.wait()
    return status if status >= 0 else 128 - status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
