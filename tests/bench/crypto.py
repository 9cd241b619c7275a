"""What sealing, receipts and opening cost per job: one table, beside the raw primitives.

A part of ``make bench``, which keeps the figures; ``python -m tests.bench.page`` writes the table between the
markers in README.md. Each figure is the best of several rounds on one thread.
"""

from __future__ import annotations

import os
import platform
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from ephemeralml.attestation.evidence import Measurements
from ephemeralml.receipts.claims import Claims
from ephemeralml.receipts.issue import issue
from ephemeralml.receipts.verify import ReceiptPolicy, verify_receipt
from ephemeralml.wire.encoding import sha256
from ephemeralml.wire.header import JobHeader, ReplyHeader
from ephemeralml.wire.job import Embedding, EngineInfo, Job, Response, Result
from ephemeralml.wire.opening import Opener
from ephemeralml.wire.pack import SealedJob, decode_jobs, encode_jobs
from ephemeralml.wire.private_keys import PrivateKey
from ephemeralml.wire.sealing import Sealer

ROUNDS: Final = 25
LOOPS: Final = 60
PACK: Final = 32
#: What a job needs besides its inference.
STEPS: Final = ("seal job", "open job", "issue receipt", "seal result", "open result")
SENTENCE: Final = (
    "The nurse wrote down the temperature of every patient before the morning round began today."
)


def microseconds(acts: dict[str, Callable[[], object]]) -> dict[str, float]:
    """Return the best time of one call of each act, in microseconds.

    The acts take turns, so that a disturbance of the machine falls on all of them alike,
    and the best of the rounds is the one that was disturbed least.
    """
    best = dict.fromkeys(acts, float("inf"))
    for _ in range(ROUNDS):
        for name, act in acts.items():
            started = time.perf_counter()
            for _ in range(LOOPS):
                act()
            best[name] = min(best[name], (time.perf_counter() - started) / LOOPS * 1e6)
    return best


def claims_for(request: bytes, response: bytes, nonce: bytes) -> Claims:
    """Return plausible claims of one inference."""
    return Claims(
        iss="ephemeralml",
        iat=int(time.time()),
        cti=os.urandom(16),
        eat_nonce=nonce,
        model_id="all-MiniLM-L6-v2",
        model_version="1.0.0",
        model_hash=sha256(b"model"),
        request_hash=sha256(request),
        response_hash=sha256(response),
        attestation_doc_hash=sha256(b"evidence"),
        enclave_measurements=Measurements(
            "nitro-pcr", {name: os.urandom(48) for name in ("pcr0", "pcr1", "pcr2")}
        ),
        policy_version="bench",
        sequence_number=1,
        execution_time_ms=3,
        memory_peak_mb=300,
        security_mode="evaluation",
        model_hash_scheme="sha256-manifest",
    )


def figures_of_steps() -> dict[str, float]:
    """Return microseconds per job of each step, and of the raw primitives."""
    fleet, reply = PrivateKey.generate(), PrivateKey.generate()
    job = Job(
        "all-MiniLM-L6-v2", "embed", (SENTENCE,), {}, os.urandom(32), os.urandom(16), reply.public_key, 2**31
    )
    request = job.encode()
    reply_to = "reply." + "0" * 32
    header = JobHeader(os.urandom(16), "minilm", fleet.public_key.key_id, reply_to, 2**31).encode()
    sealer = Sealer(fleet.public_key, "job", monotonic=time.monotonic)
    opener = Opener([fleet], "job")
    sealed = sealer.seal(header, request)
    engine = EngineInfo("openvino", "openvino", "bf16", "1")
    outputs = (Embedding(os.urandom(1536), 20, False),)
    answer = Response(os.urandom(16), job.model, sha256(b"model"), "embed", outputs, engine, job.salt)
    response = answer.encode()
    key = Ed25519PrivateKey.generate()
    public = key.public_key().public_bytes_raw()
    claims = claims_for(request, response, job.nonce)
    receipt = issue(claims, key)
    result = Result(response, receipt).encode()
    reply_header = ReplyHeader(os.urandom(16), "minilm", reply.public_key.key_id).encode()
    back = Sealer(reply.public_key, "result", monotonic=time.monotonic)
    sealed_result = back.seal(reply_header, result)
    client_opener = Opener([reply], "result")
    pack = encode_jobs("minilm", [SealedJob(header, sealed)] * PACK)
    message = signed = os.urandom(600)
    signature, verifier = key.sign(signed), Ed25519PublicKey.from_public_bytes(public)
    aead, iv = AESGCM(os.urandom(32)), os.urandom(12)
    now = int(time.time())
    policy = ReceiptPolicy(security_modes=("evaluation",))
    jobs = [SealedJob(header, sealed)] * PACK
    figures = microseconds(
        {
            "seal job": lambda: sealer.seal(header, job.encode()),
            "open job": lambda: Job.decode(opener.open(header, sealed)),
            "issue receipt": lambda: issue(claims, key),
            "seal result": lambda: back.seal(reply_header, Result(answer.encode(), receipt).encode()),
            "open result": lambda: Response.decode(
                Result.decode(client_opener.open(reply_header, sealed_result)).response
            ),
            "verify receipt": lambda: verify_receipt(receipt, public, policy, now),
            "pack, encode (per job)": lambda: encode_jobs("minilm", jobs),
            "pack, decode (per job)": lambda: decode_jobs(pack),
            "raw: Ed25519 sign": lambda: key.sign(message),
            "raw: Ed25519 verify": lambda: verifier.verify(signature, signed),
            "raw: AES-256-GCM of the result": lambda: aead.encrypt(iv, result, header),
            "once per sealer: X-Wing encapsulation": lambda: Sealer(
                fleet.public_key, "job", monotonic=time.monotonic
            ),
        }
    )
    for name in figures:
        if name.startswith("pack"):
            figures[name] /= PACK
    return figures


def machine() -> str:
    """Return the machine in words."""
    text = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace")
    names = re.findall(r"model name\s*:\s*(.+)", text)
    processor = names[0] if names else platform.machine()
    return f"{processor}, {os.cpu_count()} cores, Python {platform.python_version()}"


def measure() -> dict[str, Any]:
    """Return the figures as this part keeps them."""
    return {"microseconds": figures_of_steps()}


def table(found: dict[str, Any]) -> str:
    """Return the Markdown table with ratios to the raw primitives."""
    figures: dict[str, float] = found["microseconds"]
    raw = {
        "issue receipt": figures["raw: Ed25519 sign"],
        "verify receipt": figures["raw: Ed25519 verify"],
    }
    lines = ["| step | µs per job | beside the raw primitive |", "|---|---:|---|"]
    for name, value in figures.items():
        ratio = f"{value / raw[name]:.2f} × raw Ed25519" if name in raw else ""
        lines.append(f"| {name} | {value:.1f} | {ratio} |")
    beside = "the reference system (Rust): 164"
    lines.append(f"| **seal, open, receipt, seal, open** | **{per_job(figures):.1f}** | {beside} |")
    lines += ["", f"One thread, best of {ROUNDS} rounds, warm sealers, X-Wing, a sentence of 15 words, "]
    lines[-1] += "384 numbers back."
    return "\n".join(lines)


def per_job(figures: dict[str, float]) -> float:
    """Return microseconds of seal, open, receipt, seal, open."""
    return sum(figures[name] for name in STEPS)


if __name__ == "__main__":
    print(table(measure()))
