"""Provenance: which source, by which tools, became which bytes; an in-toto statement in a DSSE envelope.

Formats: in-toto Statement v1 (in-toto Attestation Framework), SLSA Provenance v1 (slsa.dev/provenance/v1),
DSSE v1 (secure-systems-lab/dsse, "protocol"). The signature is Ed25519 (RFC 8032); the key id is the
SHA-256 of the raw public key.
"""

from __future__ import annotations

import base64
import hashlib
import json
import platform
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from artefacts import Source
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from step import NotHeld

STATEMENT_TYPE: Final = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE: Final = "https://slsa.dev/provenance/v1"
PAYLOAD_TYPE: Final = "application/vnd.in-toto+json"
#: Meaning: docs/release.md, "Provenance".
BUILD_TYPE: Final = "urn:ephemeralml:release-check:v1"
BUILDER_ID: Final = "urn:ephemeralml:deploy/release:v1"
SEED_BYTES: Final = 32
MAX_ENVELOPE_BYTES: Final = 1 << 20
_TOOLS: Final = ("build", "hatchling", "packaging")


def statement(
    source: Source,
    artefacts: Mapping[str, bytes],
    materials: Mapping[str, bytes],
    *,
    started_at: int,
    ended_at: int,
    byproducts: Mapping[str, bytes],
) -> dict[str, Any]:
    """Return the statement.

    :param artefacts: names and bytes of what was built. :param materials: files beside the source that it
        depends on (locks, rules), by path. :param byproducts: the check's own reports.
    :param started_at: :param ended_at: Unix seconds.
    """
    tools = [{"uri": f"pkg:pypi/{name}@{version(name)}"} for name in _TOOLS]
    files = [{"uri": f"file:{path}", "digest": _digest(data)} for path, data in sorted(materials.items())]
    commit = {"uri": "git+file:.", "digest": {"gitCommit": source.revision}}
    return {
        "_type": STATEMENT_TYPE,
        "subject": [{"name": name, "digest": _digest(data)} for name, data in sorted(artefacts.items())],
        "predicateType": PREDICATE_TYPE,
        "predicate": {
            "buildDefinition": {
                "buildType": BUILD_TYPE,
                "externalParameters": {"revision": source.revision},
                "internalParameters": {
                    "SOURCE_DATE_EPOCH": str(source.committed_at),
                    "python": platform.python_version(),
                },
                "resolvedDependencies": [commit, *tools, *files],
            },
            "runDetails": {
                "builder": {"id": BUILDER_ID},
                "metadata": {"startedOn": _time(started_at), "finishedOn": _time(ended_at)},
                "byproducts": [
                    {"name": name, "digest": _digest(data)} for name, data in sorted(byproducts.items())
                ],
            },
        },
    }


def encode(value: Mapping[str, Any]) -> bytes:
    """Return JSON whose bytes follow from its content."""
    return json.dumps(value, indent=1, sort_keys=True, ensure_ascii=False).encode() + b"\n"


def sign(payload: bytes, seed: bytes) -> bytes:
    """Return a DSSE envelope over a statement.

    :param seed: Ed25519 private key, 32 bytes.
    :raises NotHeld: it is no such key.
    """
    if len(seed) != SEED_BYTES:
        raise NotHeld("the release key is a file of 32 bytes, an Ed25519 seed")
    key = Ed25519PrivateKey.from_private_bytes(seed)
    keyid = hashlib.sha256(key.public_key().public_bytes_raw()).hexdigest()
    signature = {"keyid": keyid, "sig": base64.b64encode(key.sign(_framed(payload))).decode()}
    envelope = {
        "payload": base64.b64encode(payload).decode(),
        "payloadType": PAYLOAD_TYPE,
        "signatures": [signature],
    }
    return encode(envelope)


def verify(envelope: bytes, public_key: bytes) -> dict[str, Any]:
    """Return the statement of an envelope that a release key has signed.

    1. it is an envelope of one signature over an in-toto payload; 2. this key signed it;
    3. it is a SLSA provenance statement of this project's build type.

    :param public_key: raw Ed25519 key, 32 bytes.
    :raises NotHeld: it is anything else.
    """
    if len(envelope) > MAX_ENVELOPE_BYTES:
        raise NotHeld("the envelope is too large")
    try:  # 1
        value = json.loads(envelope)
        payload = base64.b64decode(value["payload"], validate=True)
        (signature,) = value["signatures"]
        signed = base64.b64decode(signature["sig"], validate=True)
        right_type = value["payloadType"] == PAYLOAD_TYPE
    except (ValueError, KeyError, TypeError):
        raise NotHeld("this is no envelope with one signature") from None
    if not right_type:
        raise NotHeld("the envelope holds something else than an in-toto statement")
    try:  # 2
        Ed25519PublicKey.from_public_bytes(public_key).verify(signed, _framed(payload))
    except (InvalidSignature, ValueError):
        raise NotHeld("the provenance is not signed by this key") from None
    return _statement(payload)  # 3


def _statement(payload: bytes) -> dict[str, Any]:
    try:
        found: dict[str, Any] = json.loads(payload)
        kind = (found["_type"], found["predicateType"], found["predicate"]["buildDefinition"]["buildType"])
    except (ValueError, KeyError, TypeError):
        raise NotHeld("the payload is no provenance") from None
    if kind != (STATEMENT_TYPE, PREDICATE_TYPE, BUILD_TYPE):
        raise NotHeld("the payload is not this project's provenance")
    return found


def check_files(found: Mapping[str, Any], folder: Path, revision: str | None) -> list[str]:
    """Hold files against a verified statement and return a line for each that agrees.

    :param revision: the commit that they must come from, hexadecimal.
    :raises NotHeld: a file is missing or another, or they are of another revision.
    """
    stated = found["predicate"]["buildDefinition"]["externalParameters"]["revision"]
    if revision is not None and stated != revision:
        raise NotHeld(f"the artefacts are of revision {stated}")
    lines = [f"revision {stated}"]
    for subject in found["subject"]:
        path = folder / Path(subject["name"]).name
        if not path.is_file():
            raise NotHeld(f"{path.name} is not there")
        if _digest(path.read_bytes()) != subject["digest"]:
            raise NotHeld(f"{path.name} is not what was built")
        lines.append(f"{path.name}  sha256 {subject['digest']['sha256']}")
    return lines


def _framed(payload: bytes) -> bytes:
    """Return DSSE's pre-authentication encoding."""
    kind = PAYLOAD_TYPE.encode()
    return b"DSSEv1 %d %s %d %s" % (len(kind), kind, len(payload), payload)


def _digest(data: bytes) -> dict[str, str]:
    return {"sha256": hashlib.sha256(data).hexdigest()}


def _time(at: int) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
