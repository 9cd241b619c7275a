#!/usr/bin/env python3
"""Starts the worker in Confidential Space with what it cannot hold itself, and keeps that fresh.

    entry.py COMMAND…

A trust policy names the image that this is part of, so it cannot lie in it; the vendors' collateral for TDX
and GPUs ends every month. Both come from Cloud Storage, which nobody trusts: the worker checks the policy's
signature against the policy root, which is measured, and whoever judges evidence checks collateral against
its vendor's root.

EPHEMERALML_POLICY_URL is gs://bucket/object, EPHEMERALML_WORKER_POLICY the file. EPHEMERALML_COLLATERAL_URL
is gs://bucket/folder with objects ``tdx/…`` and ``nvidia/…``, EPHEMERALML_WORKER_COLLATERAL the folder.
SIGTERM goes to the worker, whose exit status is this one's. The standard library alone: it is measured.

GCE_METADATA_HOST and STORAGE_EMULATOR_HOST are for tests: the image's label lets nobody set them.
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
from urllib.parse import quote, urlencode

METADATA = "http://" + os.environ.get("GCE_METADATA_HOST", "metadata.google.internal")
STORAGE = os.environ.get("STORAGE_EMULATOR_HOST", "https://storage.googleapis.com")
POLL_S = float(os.environ.get("EPHEMERALML_ENTRY_POLL_SECONDS", "30"))
TOKEN_PATH = "/computeMetadata/v1/instance/service-accounts/default/token"  # noqa: S105 - a path
MAX_BYTES = 1 << 20
MAX_FILES = 64
TIMEOUT_S = 10
TRIES = 60
URL = re.compile(r"gs://([a-z0-9][a-z0-9._-]{1,61}[a-z0-9])/([A-Za-z0-9._/-]{1,200})")
COLLATERAL = re.compile(r"(tdx|nvidia)/[A-Za-z0-9_-][A-Za-z0-9._-]{0,127}")


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


class Bucket:
    """A bucket, asked as the machine's service account; OSError where it does not answer."""

    def __init__(self, name: str) -> None:
        try:
            token = json.loads(read(METADATA + TOKEN_PATH, Metadata_Flavor="Google"))["access_token"]
        except (ValueError, KeyError, TypeError):
            raise OSError("the metadata service gives no token") from None
        self._objects = f"{STORAGE}/storage/v1/b/{name}/o"
        self._bearer = f"Bearer {token}"

    def get(self, name: str) -> bytes:
        """Return an object."""
        return read(f"{self._objects}/{quote(name, safe='')}?alt=media", Authorization=self._bearer)

    def names(self, prefix: str) -> list[str]:
        """Return the names of the objects under a prefix, without it."""
        query = urlencode({"prefix": prefix, "maxResults": 1000, "fields": "items(name)"})
        try:
            items = json.loads(read(f"{self._objects}?{query}", Authorization=self._bearer)).get("items", [])
            return [str(item["name"]).removeprefix(prefix) for item in items]
        except (ValueError, KeyError, TypeError, AttributeError):
            raise OSError("the bucket is listed in no known form") from None


def put(to: Path, data: bytes) -> None:
    """Put a file in place whole, unless it is there as it is to be."""
    if to.exists() and to.read_bytes() == data:
        return
    to.parent.mkdir(parents=True, exist_ok=True)
    draft = to.parent.with_name(to.parent.name + "." + to.name + ".new")
    draft.write_bytes(data)
    draft.replace(to)


def fetch_policy(bucket: str, name: str, to: Path) -> None:
    """Put the policy bundle in place; OSError where it cannot be had."""
    put(to, Bucket(bucket).get(name))


def fetch_collateral(bucket: str, folder: str, to: Path) -> None:
    """Make a folder hold the collateral that a bucket's folder holds; OSError where it cannot be had.

    All is read before anything is written, so that a bucket that fails takes nothing away.
    """
    store, prefix = Bucket(bucket), folder.rstrip("/") + "/"
    names = [name for name in store.names(prefix) if COLLATERAL.fullmatch(name)][:MAX_FILES]
    if not names:
        raise OSError("there is no collateral")
    files = {to / name: store.get(prefix + name) for name in names}
    for path, data in files.items():
        put(path, data)
    for path in to.glob("*/*"):
        if path not in files:
            path.unlink(missing_ok=True)


class Kept:
    """One thing of the bucket that the worker reads from a file or folder."""

    def __init__(self, url: str, to: str) -> None:
        match = URL.fullmatch(os.environ.get(url, ""))
        place = os.environ.get(to, "")
        if match is None or not place:
            raise ValueError(f"{url} is gs://bucket/name, with {to}")
        self._fetch = fetch_policy if to.endswith("_POLICY") else fetch_collateral
        self._bucket, self._name, self._to = match[1], match[2], Path(place)

    def fetch(self) -> bool:
        """Fetch it; False where it cannot be had: the last one stays, until that has ended."""
        try:
            self._fetch(self._bucket, self._name, self._to)
        except OSError:
            return False
        return True


def wanted() -> list[Kept]:
    """Return what is to be kept; ValueError where settings are wrong."""
    found = [Kept("EPHEMERALML_POLICY_URL", "EPHEMERALML_WORKER_POLICY")]
    if os.environ.get("EPHEMERALML_COLLATERAL_URL"):
        found.append(Kept("EPHEMERALML_COLLATERAL_URL", "EPHEMERALML_WORKER_COLLATERAL"))
    return found


def keep(several: list[Kept]) -> None:
    """Fetch again and again."""
    while True:
        time.sleep(POLL_S)
        for one in several:
            one.fetch()


def main(command: list[str]) -> int:
    """Run the command; return its exit status, 78 with wrong settings, 69 without policy or collateral."""
    try:
        several = wanted()
        if not command:
            raise ValueError("what is to be started?")
    except ValueError as error:
        print(f"entry: {error}", file=sys.stderr)
        return 78
    missing = several
    for _ in range(TRIES):
        missing = [one for one in missing if not one.fetch()]
        if not missing:
            break
        time.sleep(min(1, POLL_S))
    else:
        print("entry: policy or collateral cannot be fetched", file=sys.stderr)
        return 69
    worker = subprocess.Popen(command)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: worker.send_signal(signal.SIGTERM))
    threading.Thread(target=keep, args=(several,), daemon=True).start()
    status = worker.wait()
    return status if status >= 0 else 128 - status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
