"""Writes spec/vectors/wire/: ``python tests/vectors/generate_wire.py [FOLDER]``.

Every byte follows from fixed seeds, so that a second run changes nothing. HPKE and the
IVs are random by design; their examples are kept from the published file, opened and
checked again, and made only where there are none yet.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

if __package__:
    from . import wire_samples as samples
    from .wire_invalid import READERS, cases
else:  # as a script
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
    from tests.vectors import wire_samples as samples
    from tests.vectors.wire_invalid import READERS, cases

from ephemeralml.wire.announcement import Announcement
from ephemeralml.wire.encoding import encode, sha256
from ephemeralml.wire.errors import MalformedError
from ephemeralml.wire.job import Result
from ephemeralml.wire.keys import SUITES, SuiteName
from ephemeralml.wire.opening import Opener
from ephemeralml.wire.pack import PackReference, encode_jobs, encode_message, encode_replies
from ephemeralml.wire.padding import pad, padme
from ephemeralml.wire.sealing import Purpose, Sealed, Sealer, content_aad, recipient_info, to_cose_encrypt

PUBLISHED = Path(__file__).resolve().parents[2] / "spec" / "vectors" / "wire"
PURPOSES: tuple[Purpose, ...] = ("job", "result")
Vectors = list[dict[str, Any]]


def _hashed(name: str, data: bytes, **more: Any) -> dict[str, Any]:
    return {"name": name, **more, "cbor": data.hex(), "sha256": sha256(data).hex()}


def keys() -> Vectors:
    """Return public keys and key ids of some seeds in both suites."""
    vectors: Vectors = []
    for suite in samples.SUITES:
        for start in (0, 1, 2, 0xE0):
            key = samples.public_key(suite, start)
            seed = samples.filled(start, 32).hex()
            vectors.append(
                {"suite": suite, "seed": seed, "public_key": key.raw.hex(), "key_id": key.key_id.hex()}
            )
    return vectors


def encoding() -> Vectors:
    """Return values, as JSON where JSON can say them, and their only encoding."""
    values: list[object] = [
        *(0, 23, 24, 255, 256, 65_535, 65_536, 2**32 - 1, 2**32, 2**64 - 1, -1, -24, -25, -(2**64)),
        *(0.0, -0.0, 1.0, 1.5, 65_504.0, 100_000.0, 0.1, 5.960464477539063e-08, 1e300, -4.1),
        *("", "a", "ü", "水", "𐅑", [], [1, [2, 3]], {}, {"b": 1, "a": 2, "aa": 3}, None, True, False),
    ]
    vectors: Vectors = [{"value": value, "cbor": encode(value).hex()} for value in values]
    vectors.append({"diagnostic": "{10: 1, 100: 2, -1: 3, 'z': 4, \"aa\": 5}"})
    vectors[-1]["cbor"] = encode({"aa": 5, b"z": 4, -1: 3, 100: 2, 10: 1}).hex()
    for name, value in (("Infinity", float("inf")), ("-Infinity", float("-inf")), ("NaN", float("nan"))):
        vectors.append({"diagnostic": name, "cbor": encode(value).hex()})
    return vectors


def padding() -> Vectors:
    """Return padded lengths, and the padded form of short contents."""
    sizes = [*range(40), 60, 61, 100, 508, 1000, 1020, 1024, 4096, 65_532, 10**6, 10**9]
    vectors: Vectors = [{"content_bytes": size, "padded_bytes": padme(size + 4)} for size in sizes]
    for vector in vectors[:12]:
        content = samples.filled(1, vector["content_bytes"])
        vector |= {"content": content.hex(), "padded": pad(content).hex()}
    return vectors


def headers() -> Vectors:
    """Return headers of jobs and replies."""
    vectors = [_hashed(n, h.encode(), kind="job-header") for n, h in samples.job_headers().items()]
    return vectors + [_hashed(n, h.encode(), kind="reply-header") for n, h in samples.reply_headers().items()]


def jobs() -> Vectors:
    """Return canonical request and response bytes with the hashes that receipts hold, and a result."""
    vectors = [_hashed(name, job.encode(), kind="job") for name, job in samples.jobs().items()]
    responses = samples.responses()
    vectors += [_hashed(name, response.encode(), kind="response") for name, response in responses.items()]
    result = Result(responses["embed"].encode(), samples.filled(0x50, 100))
    return [*vectors, _hashed("embed", result.encode(), kind="result")]


def packs() -> Vectors:
    """Return packs and messages; recipients and ciphertexts are placeholders."""
    jobs_pack = encode_jobs("minilm", samples.sealed_jobs())
    replies_pack = encode_replies("minilm", samples.sealed_replies())
    reference = PackReference(sha256(jobs_pack), len(jobs_pack))
    return [
        _hashed("three-jobs-two-recipients", jobs_pack, kind="job-pack"),
        _hashed("one-job", encode_jobs("minilm", samples.sealed_jobs()[:1]), kind="job-pack"),
        _hashed("success-and-failure", replies_pack, kind="reply-pack"),
        _hashed("inline", encode_message(jobs_pack), kind="message"),
        _hashed("reference", encode_message(reference), kind="message"),
    ]


def announcements() -> Vectors:
    """Return bodies in both suites and a whole announcement with placeholder evidence."""
    vectors: Vectors = []
    for suite in samples.SUITES:
        body = samples.announcement_body(suite).encode()
        vectors.append(_hashed(suite, body, kind="announcement-body"))
        whole = Announcement(body, samples.bundle(), samples.filled(4, 64))
        vectors.append(_hashed(suite, whole.encode(), kind="announcement"))
    return vectors


def invalid() -> Vectors:
    """Return what must be refused, each checked against its reader.

    :raises AssertionError: when a reader refuses with another code or not at all.
    """
    vectors: Vectors = []
    for reader, name, data, code in cases():
        try:
            READERS[reader](data)
        except MalformedError as error:
            if error.code != code:
                raise AssertionError(f"{reader}/{name}: {error.code} instead of {code}") from None
        else:
            raise AssertionError(f"{reader}/{name} was accepted")
        vectors.append({"reader": reader, "name": name, "bytes": data.hex(), "error": code})
    return vectors


def sealed_message(vector: dict[str, Any]) -> Sealed:
    """Return the sealed message of a vector."""
    return Sealed(*(bytes.fromhex(vector[name]) for name in ("recipient", "iv", "ciphertext")))


def sealed(published: Path) -> Vectors:
    """Return sealed examples of both suites and purposes; the published ones where there are any.

    :raises SealingError: when a published example does not open.
    """
    path = published / "sealed.json"
    known = {v["name"]: v for v in json.loads(path.read_text())} if path.exists() else {}
    return [
        _sealed_example(suite, purpose, known.get(f"{suite}-{purpose}"))
        for suite in samples.SUITES
        for purpose in PURPOSES
    ]


def _sealed_example(suite: SuiteName, purpose: Purpose, known: dict[str, Any] | None) -> dict[str, Any]:
    header = (samples.job_headers if purpose == "job" else samples.reply_headers)()["single"].encode()
    plaintext = (samples.jobs()["embed"] if purpose == "job" else samples.responses()["embed"]).encode()
    private = samples.private_key(suite)
    if known is not None:
        message = sealed_message(known)
    else:
        message = Sealer(private.public_key, purpose, monotonic=time.monotonic).seal(header, plaintext)
    if Opener([private], purpose).open(header, message) != plaintext:
        raise AssertionError(f"{suite}-{purpose} opens to something else")
    protected = encode({1: SUITES[suite].algorithm, 4: private.public_key.key_id})
    return {
        "name": f"{suite}-{purpose}",
        "suite": suite,
        "purpose": purpose,
        "seed": samples.filled(1, 32).hex(),
        "header": header.hex(),
        "plaintext": plaintext.hex(),
        "info": recipient_info(SUITES[suite], protected, purpose).hex(),
        "aad": content_aad(header).hex(),
        "recipient": message.recipient.hex(),
        "iv": message.iv.hex(),
        "ciphertext": message.ciphertext.hex(),
        "cose_encrypt": to_cose_encrypt(message).hex(),
    }


def build(published: Path = PUBLISHED) -> dict[str, str]:
    """Return every file's text by name."""
    vectors = {
        "keys": keys(),
        "encoding": encoding(),
        "padding": padding(),
        "headers": headers(),
        "jobs": jobs(),
        "packs": packs(),
        "announcements": announcements(),
        "invalid": invalid(),
        "sealed": sealed(published),
    }
    return {f"{name}.json": json.dumps(v, indent=1, ensure_ascii=True) + "\n" for name, v in vectors.items()}


def main(folder: Path) -> None:
    """Write every file into ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in build().items():
        (folder / name).write_text(text)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else PUBLISHED)
