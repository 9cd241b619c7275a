"""How fast a package opens, against the ciphers and hashes it is made of.

``python -m tests.bench.models``: packages MiniLM, opens it, and gives CPU and wall time beside
raw AES-256-GCM and SHA-256 of the same bytes. The best of many interleaved turns counts, because the
machine is shared.
"""

from __future__ import annotations

import hashlib
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from ephemeralml.attestation.key_release.protocol import DataKey
from ephemeralml.workers.models import folder_files, open_package, package_model
from ephemeralml.workers.models.memory import anonymous_memory

from .workload import model_folder

CHUNK = 1 << 20
TURNS = 15


def steps(package: Path, size: int, signer: bytes) -> dict[str, Callable[[], object]]:
    """Return what is timed, by name."""
    aead = AESGCM(bytes(32))
    sealed = [aead.encrypt(i.to_bytes(12, "big"), bytes(CHUNK), b"") for i in range(size // CHUNK)]
    ready = memoryview(bytearray(size))

    def decrypt(into: memoryview, digest: Callable[[memoryview], object] = lambda _: None) -> None:
        for i, chunk in enumerate(sealed):
            window = into[i * CHUNK : (i + 1) * CHUNK]
            aead.decrypt_into(i.to_bytes(12, "big"), chunk, b"", window)
            digest(window)

    def opened() -> None:
        with package.open("rb") as file:
            open_package(file, lambda *_: bytes(32), trusted_signers=(signer,), expected_manifest_hash=None)

    return {
        "open_package": opened,
        "AES-256-GCM": lambda: decrypt(ready),
        "AES-256-GCM, fresh memory": lambda: decrypt(anonymous_memory(size)),
        "SHA-256": lambda: hashlib.sha256(ready).digest(),
        "AES-256-GCM + SHA-256": lambda: decrypt(anonymous_memory(size), hashlib.sha256().update),
    }


def measure() -> dict[str, Any]:
    """Return megabytes, and the best wall and CPU seconds of each step."""
    key = Ed25519PrivateKey.generate()
    with tempfile.TemporaryDirectory() as folder:
        package = Path(folder) / "minilm.eml"
        made = package_model(
            folder_files(model_folder()[0]),
            package,
            model_id="minilm",
            model_version="1",
            signing_key=key,
            data_key=lambda _: DataKey(bytes(32), b"wrapped"),
        )
        timed = steps(package, made.size, key.public_key().public_bytes_raw())
        best = dict.fromkeys(timed, (9.0, 9.0))
        for _ in range(TURNS):
            for name, step in timed.items():
                wall, cpu = time.perf_counter(), time.process_time()
                step()
                turn = (time.perf_counter() - wall, time.process_time() - cpu)
                best[name] = (min(best[name][0], turn[0]), min(best[name][1], turn[1]))
    return {"megabytes": made.size / 1e6, "seconds": best}


def table(found: dict[str, Any]) -> str:
    """Return the Markdown table."""
    best = found["seconds"]
    lines = ["| of one package | wall, ms | CPU, ms | beside raw AES |", "|---|---:|---:|---:|"]
    for name, (wall, cpu) in best.items():
        ratio = best["AES-256-GCM"][1] / cpu
        lines.append(f"| {name} | {wall * 1e3:.1f} | {cpu * 1e3:.1f} | {ratio:.0%} |")
    return "\n".join([*lines, "", f"{found['megabytes']:.0f} MB, best of {TURNS} turns."])


if __name__ == "__main__":
    print(table(measure()))
