"""What a verifier wants: frozen, closed by default, one JSON document.

An empty policy refuses everything. A register that is not to be checked is
written ``"UNCHECKED"``; measurement sets are matched whole, so that registers of
different releases cannot be mixed.
"""

from __future__ import annotations

import json
import re
from typing import Final, Literal

from pydantic import Field, ValidationError

from ..wire.errors import MalformedError
from .closed import Closed, Name, Sha256Hex
from .confidential_space.policy import ConfidentialSpacePolicy
from .nitro.policy import MeasurementSets
from .nvidia.policy import NvidiaPolicy
from .simulated.policy import SimulatedPolicy
from .tdx.policy import TdxPolicy

MAX_POLICY_BYTES: Final = 1 << 20
DEFAULT_MAX_EVIDENCE_AGE_S: Final = 86_400
_FIELD: Final = re.compile(r"[A-Za-z0-9_-]{1,32}")
SecurityMode = Literal["production", "evaluation"]


class Platforms(Closed):
    """What is wanted by platform; a platform that is not named is refused."""

    nitro: MeasurementSets = ()
    simulated: SimulatedPolicy | None = None
    confidential_space: ConfidentialSpacePolicy | None = Field(default=None, alias="confidential-space")
    nvidia: NvidiaPolicy | None = None
    tdx: TdxPolicy | None = None

    def names(self, platform: str) -> bool:
        """Return whether anything is wanted of a platform."""
        match platform:
            case "nitro":
                return bool(self.nitro)
            case "simulated":
                return self.simulated is not None
            case "confidential-space":
                return self.confidential_space is not None
            case "nvidia":
                return self.nvidia is not None
            case "tdx":
                return self.tdx is not None
            case _:
                return False

    def required_with(self, platform: str) -> frozenset[str]:
        """Return the platforms whose evidence must accompany this platform's."""
        own = self.tdx.requires if platform == "tdx" and self.tdx is not None else ()
        needed = self.nvidia is not None and platform in self.nvidia.required_with
        return frozenset(own) | (frozenset({"nvidia"}) if needed else frozenset())


class ModelReference(Closed):
    """A model that may answer.

    :param manifest_hash: SHA-256 of its manifest, hexadecimal (AIR v1, ``model_hash``).
    """

    id: Name
    manifest_hash: Sha256Hex


class PoolOperator(Closed):
    """Who may end the epochs of pools: nobody else can make workers change or drop a fleet key early.

    :param key: raw Ed25519 public key, hexadecimal. :param pools: by name; there is no "all".
    """

    key: Sha256Hex
    pools: tuple[Name, ...] = Field(min_length=1)


class TrustPolicy(Closed):
    """What evidence, models and modes are accepted.

    :param version: stated in receipts as ``policy_version``.
    :param max_evidence_age_s: oldest evidence, in seconds.
    :param operators: whose orders about fleet keys are obeyed; by default nobody's.
    :param dangerous_allow_debug: accept enclaves whose memory the host may read, as ``evaluation``.
    """

    version: Name
    platforms: Platforms = Platforms()
    models: tuple[ModelReference, ...] = ()
    security_modes: tuple[SecurityMode, ...] = ("production",)
    max_evidence_age_s: int = Field(default=DEFAULT_MAX_EVIDENCE_AGE_S, ge=1, le=10 * 365 * 86_400)
    operators: tuple[PoolOperator, ...] = Field(default=(), max_length=16)
    dangerous_allow_debug: bool = False

    def operators_of(self, pool: str) -> tuple[str, ...]:
        """Return the keys (hexadecimal) whose orders a pool obeys."""
        return tuple(one.key for one in self.operators if pool in one.pools)

    def to_json(self) -> str:
        """Return the policy as JSON that :func:`load_policy` reads."""
        return self.model_dump_json(indent=2, by_alias=True)


def load_policy(data: bytes) -> TrustPolicy:
    """Read a policy from JSON.

    :raises MalformedError: ``BAD_POLICY``; names the fields, never their values.
    """
    if len(data) > MAX_POLICY_BYTES:
        raise MalformedError("BAD_POLICY", f"the policy has more than {MAX_POLICY_BYTES} bytes")
    try:
        json.loads(data, object_pairs_hook=_no_duplicates)
        return TrustPolicy.model_validate_json(data)
    except ValidationError as error:
        wrong = "; ".join(
            f"{_place(item['loc'])}: {item['msg']}" for item in error.errors(include_input=False)[:5]
        )
        raise MalformedError("BAD_POLICY", f"the policy is wrong at {wrong}") from None
    except _DuplicateError as error:
        raise MalformedError("BAD_POLICY", str(error)) from None
    except (ValueError, RecursionError):
        raise MalformedError("BAD_POLICY", "the policy is not JSON") from None


class _DuplicateError(Exception):
    pass


def _no_duplicates(pairs: list[tuple[str, object]]) -> dict[str, object]:
    if len({key for key, _ in pairs}) != len(pairs):
        raise _DuplicateError("the policy names a field twice")
    return dict(pairs)


def _place(location: tuple[int | str, ...]) -> str:
    """Name where it is wrong; a name that could be no field's is the text's own, and is not repeated."""
    return (
        ".".join(str(part) if _FIELD.fullmatch(str(part)) else "(a name)" for part in location) or "its top"
    )
