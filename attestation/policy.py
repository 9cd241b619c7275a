"""What a verifier wants: frozen, closed by default, one JSON document.

An empty policy refuses everything. A register that is not to be checked is
written ``"UNCHECKED"``; measurement sets are matched whole, so that registers of
different releases cannot be mixed.
"""

from __future__ import annotations

import json
from typing import Annotated, Final, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    ValidationError,
    model_validator,
)

from ..wire.errors import MalformedError
from .nitro.verify import AWS_NITRO_ROOT_G1

UNCHECKED: Final = "UNCHECKED"
MAX_POLICY_BYTES: Final = 1 << 20
DEFAULT_MAX_EVIDENCE_AGE_S: Final = 86_400
SecurityMode = Literal["production", "evaluation"]

Sha256Hex = Annotated[str, StringConstraints(pattern=r"^[0-9a-fA-F]{64}$", to_lower=True)]
Sha384Hex = Annotated[str, StringConstraints(pattern=r"^[0-9a-fA-F]{96}$", to_lower=True)]
Register = Literal["UNCHECKED"] | Sha384Hex
Name = Annotated[str, StringConstraints(min_length=1, max_length=256)]


class _Closed(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class MeasurementSet(_Closed):
    """The registers of one release: SHA-384 in hexadecimal, or ``"UNCHECKED"``.

    One of PCR0 (the image), PCR2 (the application) and PCR8 (the image's signer) must be checked;
    a set without any would accept everybody's image.
    """

    name: Name
    pcr0: Register
    pcr1: Register
    pcr2: Register
    pcr3: Register = UNCHECKED
    pcr4: Register = UNCHECKED
    pcr8: Register = UNCHECKED

    @model_validator(mode="after")
    def _checks_something(self) -> MeasurementSet:
        if {self.pcr0, self.pcr2, self.pcr8} == {UNCHECKED}:
            raise ValueError("a measurement set must check pcr0, pcr2 or pcr8")
        return self

    @property
    def registers(self) -> dict[str, str]:
        """The six registers by slot, in order."""
        return {slot: getattr(self, slot) for slot in ("pcr0", "pcr1", "pcr2", "pcr3", "pcr4", "pcr8")}


def _unique(sets: tuple[MeasurementSet, ...]) -> tuple[MeasurementSet, ...]:
    if len({one.name for one in sets}) != len(sets):
        raise ValueError("two measurement sets have one name")
    return sets


MeasurementSets = Annotated[tuple[MeasurementSet, ...], AfterValidator(_unique)]


class SimulatedPolicy(_Closed):
    """Accepts a simulated TEE, which proves nothing: for development only.

    :param root_fingerprint: SHA-256 of the development root, hexadecimal.
    """

    dangerous_allow: Literal[True]
    root_fingerprint: Sha256Hex
    measurement_sets: MeasurementSets = ()

    @model_validator(mode="after")
    def _is_development(self) -> SimulatedPolicy:
        if bytes.fromhex(self.root_fingerprint) == AWS_NITRO_ROOT_G1:
            raise ValueError("the AWS Nitro root is no development root")
        return self


class Platforms(_Closed):
    """Wanted measurement sets by platform; a platform that is not named is refused."""

    nitro: MeasurementSets = ()
    simulated: SimulatedPolicy | None = None


class ModelReference(_Closed):
    """A model that may answer.

    :param manifest_hash: SHA-256 of its manifest, hexadecimal (AIR v1, ``model_hash``).
    """

    id: Name
    manifest_hash: Sha256Hex


class TrustPolicy(_Closed):
    """What evidence, models and modes are accepted.

    :param version: stated in receipts as ``policy_version``.
    :param max_evidence_age_s: oldest evidence, in seconds.
    :param dangerous_allow_debug: accept enclaves whose memory the host may read, as ``evaluation``.
    """

    version: Name
    platforms: Platforms = Platforms()
    models: tuple[ModelReference, ...] = ()
    security_modes: tuple[SecurityMode, ...] = ("production",)
    max_evidence_age_s: int = Field(default=DEFAULT_MAX_EVIDENCE_AGE_S, ge=1, le=10 * 365 * 86_400)
    dangerous_allow_debug: bool = False

    def to_json(self) -> str:
        """Return the policy as JSON that :func:`load_policy` reads."""
        return self.model_dump_json(indent=2)


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
    return ".".join(str(part) for part in location) or "its top"
