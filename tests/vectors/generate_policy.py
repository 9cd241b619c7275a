"""Makes spec/vectors/policy: bundles, and what a verifier must say of them.

Everything follows from fixed seeds and times, so the output is the same bytes every
time; CI runs this file and lets ``git diff --exit-code`` judge. Run it as ``python
tests/vectors/generate_policy.py``. It builds bundles from raw parts and shares no code
with the signer that the vectors test, but the CBOR encoder.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ephemeralml.wire.encoding import Tag, encode

FOLDER: Final = Path(__file__).resolve().parents[2] / "spec" / "vectors" / "policy"
SEED: Final = bytes([0x50]) * 32
OTHER_SEED: Final = bytes([0x51]) * 32
NOW: Final = 1_800_000_000
DAY: Final = 86_400
TYPE: Final = "application/vnd.ephemeralml.policy+cbor"
ORDER: Final = 2**252 + 27742317777372353535851937790883648493

Map = dict[object, object]
Vector = dict[str, object]
HEADER: Final[Map] = {1: -8, 3: TYPE}
POLICY: Final[dict[str, object]] = {
    "version": "2027-01",
    "models": [{"id": "minilm", "manifest_hash": "0f" * 32}],
    "platforms": {
        "nitro": [
            {
                "name": "release-1",
                **{f"pcr{index}": f"{index:02x}" * 48 for index in range(3)},
                **{f"pcr{index}": "UNCHECKED" for index in (3, 4, 8)},
            }
        ]
    },
    "security_modes": ["production"],
    "max_evidence_age_s": DAY,
}


def canonical(value: object) -> bytes:
    """Canonical JSON."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def fields(**changes: object) -> Map:
    """The first version's fields; ``_9=1`` sets field 9, None leaves a field out."""
    base: Map = {
        1: 1,
        2: "production",
        3: 1,
        4: NOW - 3600,
        5: NOW,
        6: NOW + 90 * DAY,
        7: canonical(POLICY),
    }
    base.update((int(name[1:]), value) for name, value in changes.items())
    return {key: value for key, value in base.items() if value is not None}


def key(seed: bytes = SEED) -> Ed25519PrivateKey:
    """The private key of a seed."""
    return Ed25519PrivateKey.from_private_bytes(seed)


def root(seed: bytes = SEED) -> str:
    """The policy root of a seed, hexadecimal."""
    return key(seed).public_key().public_bytes_raw().hex()


def bundle(
    payload: bytes,
    *,
    protected: bytes = encode(HEADER),
    unprotected: Map | None = None,
    seed: bytes = SEED,
    signature: bytes | None = None,
) -> bytes:
    """A tagged COSE_Sign1 of raw parts, correctly signed unless a signature is given."""
    signed = key(seed).sign(encode(["Signature1", protected, b"", payload]))
    return encode(
        Tag(18, [protected, unprotected or {}, payload, signed if signature is None else signature])
    )


def of(**changes: object) -> bytes:
    """A correctly signed bundle of changed fields."""
    return bundle(encode(fields(**changes)))


def digest(data: bytes) -> bytes:
    """SHA-256."""
    return hashlib.sha256(data).digest()


def base(name: str, description: str, data: bytes, now: int) -> Vector:
    """What all vectors hold."""
    return {
        "name": name,
        "description": description,
        "policy_root": root(),
        "now": now,
        "bundle": data.hex(),
    }


def valid(
    name: str, description: str, held: bytes | None = None, now: int = NOW, **changes: object
) -> Vector:
    """A bundle that is used."""
    stated = fields(**changes)
    data = bundle(encode(stated))
    made = base(name, description, data, now)
    made["statement"] = {
        **{label: stated[number] for number, label in enumerate(("name", "serial"), 2)},
        **{label: stated[number] for number, label in enumerate(("issued_at", "not_before", "expires"), 4)},
        "policy": stated[7].hex() if isinstance(stated[7], bytes) else "",
        "previous": stated[8].hex() if isinstance(stated.get(8), bytes) else None,  # type: ignore[attr-defined]
        "rollback_of": stated.get(9),
    }
    made["sha256"] = digest(data).hex()
    if held is not None:
        made["held"] = position(held)
    return made


def position(data: bytes, serial: int = 1, name: str = "production") -> Vector:
    """Where somebody stands who holds a bundle."""
    return {"name": name, "serial": serial, "digest": digest(data).hex()}


def invalid(
    name: str, description: str, data: bytes, code: str, *, now: int = NOW, held: Vector | None = None
) -> Vector:
    """A bundle that is refused."""
    made = base(name, description, data, now)
    if held is not None:
        made["held"] = held
    made["code"] = code
    return made


def valid_ones() -> Iterator[Vector]:
    """Bundles at the edge of what is allowed."""
    one = of()
    two = of(_3=2, _8=digest(one))
    yield valid("first", "The first version of a line.")
    yield valid("again", "The held bundle itself.", held=one)
    yield valid("second", "It names the bundle before it.", held=one, _3=2, _8=digest(one))
    yield valid("skipped", "A reader may miss versions.", held=one, _3=3, _8=digest(two))
    yield valid("rollback", "It brings an earlier policy back.", _3=3, _8=digest(two), _9=1)
    yield valid("largest-serial", "A serial of 64 bits.", _3=2**64 - 1, _8=bytes(32), _9=2**64 - 2)
    yield valid("last-second", "One second before it expires.", now=NOW + 90 * DAY - 1)
    yield valid("skew", "300 s before it begins.", now=NOW - 300)
    yield valid("longest-life", "400 days.", _6=NOW + 400 * DAY)
    yield valid("longest-name", "63 bytes.", _2="a" * 63)
    yield valid("smallest-policy", "Fields that are left out have their defaults.", _7=b'{"version":"1"}')
    text = canonical({"version": '\u00e9\u4e2d\U0001f600\u007f\\" \n'})
    yield valid("texts", "What canonical JSON escapes, and what it does not.", _7=text)


def form_faults() -> Iterator[Vector]:
    """What stands around the payload, and the payload's own form."""
    data = of()
    payload = encode(fields())
    yield invalid("empty", "No bytes at all.", b"", "CBOR_TRUNCATED")
    yield invalid("truncated", "The last byte is missing.", data[:-1], "CBOR_TRUNCATED")
    yield invalid("trailing-byte", "One byte follows.", data + b"\x00", "CBOR_TRAILING_BYTES")
    yield invalid("untagged", "Tag 18 is missing.", data[1:], "COSE_SHAPE")
    yield invalid("other-tag", "Tag 17.", b"\xd1" + data[1:], "CBOR_UNEXPECTED_TAG")
    yield invalid("long-tag", "Tag 18 in two bytes.", b"\xd8\x12" + data[1:], "CBOR_NOT_DETERMINISTIC")
    headers: tuple[tuple[str, str, Map], ...] = (
        (
            "other-type",
            "A birth certificate's content type.",
            {1: -8, 3: "application/vnd.ephemeralml.birth+cbor"},
        ),
        ("no-type", "No content type.", {1: -8}),
        ("more-headers", "A kid too.", {**HEADER, 4: b"kid"}),
        ("float-alg", "The algorithm as the float -8.0.", {**HEADER, 1: -8.0}),
        ("other-alg", "ES256.", {**HEADER, 1: -7}),
    )
    for name, description, header in headers:
        yield invalid(name, description, bundle(payload, protected=encode(header)), "POLICY_HEADER")
    loose = bundle(payload, unprotected={4: b"kid"})
    yield invalid("unprotected", "A kid outside the signature.", loose, "POLICY_HEADER")
    yield invalid("not-a-map", "The payload is an array.", bundle(encode([1])), "NOT_A_MAP")
    unsorted = b"\xa7" + b"".join(
        encode(number) + encode(value) for number, value in reversed(list(fields().items()))
    )
    yield invalid(
        "unsorted", "The payload's keys are not sorted.", bundle(unsorted), "CBOR_NOT_DETERMINISTIC"
    )


def field_faults() -> Iterator[Vector]:
    """One field each."""
    faults: tuple[tuple[str, str, dict[str, object], str], ...] = (
        ("version-2", "Another version.", {"_1": 2}, "UNKNOWN_VERSION"),
        ("version-true", "The version as true.", {"_1": True}, "WRONG_TYPE"),
        ("upper-case-name", "A name in upper case.", {"_2": "Production"}, "BAD_POLICY_NAME"),
        ("name-with-newline", "A newline after the name.", {"_2": "production\n"}, "BAD_POLICY_NAME"),
        ("name-with-dash-first", "A dash first.", {"_2": "-a"}, "BAD_POLICY_NAME"),
        ("long-name", "64 bytes.", {"_2": "a" * 64}, "OUT_OF_BOUNDS"),
        ("serial-0", "Serials count from 1.", {"_3": 0}, "OUT_OF_BOUNDS"),
        ("serial-float", "A serial of 1.0.", {"_3": 1.0}, "WRONG_TYPE"),
        ("issued-late", "Issued after it begins.", {"_4": NOW + 1}, "BAD_POLICY_TIMES"),
        ("empty-life", "It ends when it begins.", {"_6": NOW}, "BAD_POLICY_TIMES"),
        ("long-life", "400 days and a second.", {"_6": NOW + 400 * DAY + 1}, "BAD_POLICY_TIMES"),
        ("no-policy", "No policy.", {"_7": None}, "MISSING_FIELD"),
        ("policy-text", "The policy as a text.", {"_7": canonical(POLICY).decode()}, "WRONG_TYPE"),
        ("second-without-first", "A second version that names none.", {"_3": 2}, "BAD_POLICY_HISTORY"),
        ("first-with-previous", "A first version that names one.", {"_8": bytes(32)}, "BAD_POLICY_HISTORY"),
        ("short-previous", "31 bytes.", {"_3": 2, "_8": bytes(31)}, "OUT_OF_BOUNDS"),
        ("rollback-of-itself", "Its own serial.", {"_3": 2, "_8": bytes(32), "_9": 2}, "BAD_POLICY_HISTORY"),
        ("rollback-of-0", "No such serial.", {"_3": 2, "_8": bytes(32), "_9": 0}, "OUT_OF_BOUNDS"),
        ("unknown-field", "A tenth field.", {"_10": 1}, "UNKNOWN_FIELD"),
    )
    for name, description, changes, code in faults:
        yield invalid(name, description, of(**changes), code)


def policy_faults() -> Iterator[Vector]:
    """Correctly signed policies that are none, or not in their one form."""
    faults: tuple[tuple[str, str, bytes, str], ...] = (
        ("not-json", "No JSON.", b"version", "BAD_POLICY"),
        ("unknown-member", "A member that no policy has.", canonical({"version": "1", "x": 1}), "BAD_POLICY"),
        ("member-twice", "A member twice.", b'{"version":"1","version":"1"}', "BAD_POLICY"),
        ("no-version", "No version.", b"{}", "BAD_POLICY"),
        ("blank", "A blank.", b'{"version": "1"}', "POLICY_NOT_CANONICAL"),
        ("newline", "A newline at the end.", b'{"version":"1"}\n', "POLICY_NOT_CANONICAL"),
        (
            "needless-escape",
            "An escape that JSON does not demand.",
            b'{"version":"\\u0031"}',
            "POLICY_NOT_CANONICAL",
        ),
        ("unsorted-members", "Not sorted.", b'{"version":"1","models":[]}', "POLICY_NOT_CANONICAL"),
    )
    for name, description, policy, code in faults:
        yield invalid(f"policy-{name}", description, of(_7=policy), code)


def signature_faults() -> Iterator[Vector]:
    """Signatures that the root did not make, or not so."""
    payload = encode(fields())
    signature = key().sign(encode(["Signature1", encode(HEADER), b"", payload]))
    yield invalid("other-root", "Signed by another key.", bundle(payload, seed=OTHER_SEED), "SIG_FAILED")
    flipped = signature[:-1] + bytes([signature[-1] ^ 1])
    yield invalid("flipped", "A flipped bit in S.", bundle(payload, signature=flipped), "SIG_FAILED")
    larger = (int.from_bytes(signature[32:], "little") + ORDER).to_bytes(32, "little")
    malleable = bundle(payload, signature=signature[:32] + larger)
    yield invalid("malleable", "S plus the group's order.", malleable, "SIG_FAILED")
    yield invalid("short-signature", "63 bytes.", bundle(payload, signature=signature[:63]), "BAD_SIG_LENGTH")
    changed = encode(fields(_6=NOW + 91 * DAY))
    prolonged = bundle(changed, signature=signature)
    yield invalid("prolonged", "Another end under the same signature.", prolonged, "SIG_FAILED")


def use_faults() -> Iterator[Vector]:
    """Genuine bundles at the wrong time, or after the wrong one."""
    one = of()
    two = of(_3=2, _8=digest(one))
    held = position(two, 2)
    yield invalid("expired", "In its first second out of use.", one, "POLICY_EXPIRED", now=NOW + 90 * DAY)
    yield invalid("not-yet", "301 s before it begins.", one, "POLICY_NOT_YET_VALID", now=NOW - 301)
    yield invalid("downgrade", "The version before the held one.", one, "POLICY_DOWNGRADE", held=held)
    other = of(_3=2, _8=digest(one), _6=NOW + DAY)
    yield invalid("forked", "Another bundle of the held serial.", other, "POLICY_FORKED", held=held)
    named = of(_2="staging", _3=3, _8=digest(two))
    yield invalid("other-name", "A version of another line.", named, "POLICY_OTHER_NAME", held=held)
    broken = of(_3=3, _8=digest(one))
    yield invalid("broken", "It names another predecessor.", broken, "POLICY_HISTORY_BROKEN", held=held)


def main() -> None:
    """Write both files."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    faults = [
        *form_faults(),
        *field_faults(),
        *policy_faults(),
        *signature_faults(),
        *use_faults(),
    ]
    for name, vectors in (("valid", list(valid_ones())), ("invalid", faults)):
        text = json.dumps(vectors, indent=1, ensure_ascii=True) + "\n"
        (FOLDER / f"{name}.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
