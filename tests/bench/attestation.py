"""What verifying evidence costs: cold and warm, beside the raw signature checks that it must contain.

Run by ``python -m tests.bench.attestation``. *Cold* forgets every remembered certificate before each
turn; *warm* has seen the chain. Recorded evidence where the corpus is here, else the tests' own. Each
figure is the best of many turns on one thread.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256, SHA384

from ephemeralml.attestation.confidential_space.verify import verify as verify_confidential_space
from ephemeralml.attestation.nitro import NitroEndorsements, chain
from ephemeralml.attestation.nitro.parse import parse
from ephemeralml.attestation.nitro.verify import verify as verify_nitro
from ephemeralml.attestation.nvidia.verify import verify as verify_nvidia
from ephemeralml.attestation.tdx.endorsements import TdxEndorsements
from ephemeralml.attestation.tdx.verify import verify as verify_tdx

from ..attestation.confidential_space import forge as confidential_space
from ..attestation.nitro import forge as nitro
from ..attestation.nvidia import forge as nvidia
from ..fuzz.seeds import recorded

TURNS: Final = 100
WARM_UP: Final = 1
Raw = dict[str, Callable[[], object]]


@dataclass(frozen=True)
class Case:
    """One verification.

    :param before: done before each turn, and not measured. :param raw: the signature checks that it must
        contain, by kind and number.
    """

    name: str
    act: Callable[[], object]
    before: Callable[[], object]
    raw: Sequence[tuple[str, int]]


def forget() -> None:
    """Empty every bounded memory of the verifiers."""
    for name, module in list(sys.modules.items()):
        if name.startswith("ephemeralml.attestation."):
            for value in list(vars(module).values()):
                clear = getattr(value, "cache_clear", None)
                if clear is not None:
                    clear()


def raw_checks() -> Raw:
    """Return one signature check of each kind, over 600 bytes."""
    message = bytes(600)
    checks: Raw = {}
    for name, curve, digest in (("P-256", ec.SECP256R1(), SHA256()), ("P-384", ec.SECP384R1(), SHA384())):
        key = ec.generate_private_key(curve)
        checks[name] = _check(key.public_key(), key.sign(message, ec.ECDSA(digest)), message, digest)
    for bits in (2048, 4096):
        private = rsa.generate_private_key(65_537, bits)
        signature = private.sign(message, padding.PKCS1v15(), SHA256())
        checks[f"RSA-{bits}"] = _check_rsa(private.public_key(), signature, message)
    return checks


def _check(
    key: ec.EllipticCurvePublicKey, signature: bytes, message: bytes, digest: SHA256 | SHA384
) -> Callable[[], object]:
    return lambda: key.verify(signature, message, ec.ECDSA(digest))


def _check_rsa(key: rsa.RSAPublicKey, signature: bytes, message: bytes) -> Callable[[], object]:
    return lambda: key.verify(signature, message, padding.PKCS1v15(), SHA256())


def cases() -> list[Case]:
    """Return every verification that is measured."""
    return [*_nitro(), *_tdx(), *_confidential_space(), *_nvidia()]


def nothing() -> None:
    """Prepare nothing."""


def _nitro() -> list[Case]:
    real = next(iter(recorded("nitro/evervault_2022_prod.bin")), None)
    made = nitro.make_chain()
    document = nitro.make_document(made) if real is None else real
    roots = NitroEndorsements(made.roots) if real is None else NitroEndorsements()
    now = parse(document).timestamp_ms // 1000

    def act() -> object:
        return verify_nitro(document, roots, now)

    return [
        Case("nitro, cold", act, forget, [("P-384", 5)]),
        Case("nitro, another host of a known zone", act, lambda: know(document, 3), [("P-384", 3)]),
        Case("nitro, another enclave of a known host", act, lambda: know(document, 4), [("P-384", 2)]),
        Case("nitro, warm", act, nothing, [("P-384", 1)]),
    ]


def know(document: bytes, count: int) -> None:
    """Remember the first certificates of a chain only, as a verifier does that meets a new enclave."""
    forget()
    for issuer, below in pairwise(parse(document).cabundle[:count]):
        chain._check_issued(issuer, below)


def _tdx() -> list[Case]:
    """A recorded quote: its own two signatures, its chain's two, the collateral's five; all of it twice.

    Two verifiers must agree; the second is a library's, which remembers nothing.
    """
    quotes = recorded("tdx/phala_v4_b0c06f.quote")
    if not quotes:
        return []
    collateral = recorded("tdx/collateral/mit_b0c06f_2025-06-19/collateral.json")
    endorsements = TdxEndorsements().with_files({"collateral.json": collateral[0]})

    def act() -> object:
        return verify_tdx(quotes[0], endorsements, 1_751_624_191)

    return [
        Case("tdx with collateral, cold", act, forget, [("P-256", 18)]),
        Case("tdx with collateral, warm", act, nothing, [("P-256", 11)]),
    ]


def _confidential_space() -> list[Case]:
    token = confidential_space.pki()
    endorsements = confidential_space.issuer()

    def act() -> object:
        return verify_confidential_space(token, endorsements, confidential_space.NOW)

    return [
        Case("confidential-space (PKI), cold", act, forget, [("RSA-2048", 3)]),
        Case("confidential-space (PKI), warm", act, nothing, [("RSA-2048", 1)]),
    ]


def _nvidia() -> list[Case]:
    evidence = nvidia.make_evidence()
    endorsements = nvidia.endorsements()

    def act() -> object:
        return verify_nvidia(evidence, endorsements, nvidia.NOW)

    return [
        Case("nvidia (1 GPU, 2 manifests, OCSP), cold", act, forget, ()),
        Case("nvidia (1 GPU, 2 manifests, OCSP), warm", act, nothing, ()),
    ]


def timings() -> tuple[dict[str, float], dict[str, tuple[float, float | None]]]:
    """Return raw checks, and for each case its time and that of its raw checks, in microseconds.

    All take turns, so that a disturbance of the machine falls on all of them alike, and the best of the
    turns is the one that was disturbed least.
    """
    wanted = cases()
    turns = [Case(name, check, nothing, ()) for name, check in raw_checks().items()]
    best = {case.name: float("inf") for case in (*turns, *wanted)}
    for _ in range(TURNS):
        for case in (*turns, *wanted):
            case.before()
            for _ in range(WARM_UP if case.before is nothing else 0):
                case.act()
            started = time.perf_counter()
            case.act()
            best[case.name] = min(best[case.name], (time.perf_counter() - started) * 1e6)
    raw = {case.name: best[case.name] for case in turns}
    floors = {case.name: sum(raw[kind] * count for kind, count in case.raw) or None for case in wanted}
    return raw, {case.name: (best[case.name], floors[case.name]) for case in wanted}


def measure() -> dict[str, Any]:
    """Return the figures as this part keeps them."""
    raw, results = timings()
    return {"raw": raw, "checks": results}


def table(found: dict[str, Any]) -> str:
    """Return the Markdown table."""
    lines = ["| verification | ms | its raw signature checks, ms | beside them |", "|---|---:|---:|---|"]
    for name, (cost, floor) in found["checks"].items():
        beside = ("-", "-") if floor is None else (f"{floor / 1e3:.2f}", f"{cost / floor:.2f} ×")
        lines.append(f"| {name} | {cost / 1e3:.2f} | {beside[0]} | {beside[1]} |")
    kinds = ", ".join(f"{name} {cost:.0f}" for name, cost in found["raw"].items())
    return "\n".join([*lines, "", f"One raw check, µs: {kinds}. One thread, best of {TURNS} turns."])


if __name__ == "__main__":
    print(table(measure()))
