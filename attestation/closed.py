"""The ground of every policy: closed models, and the words that all of them use.

A value that is not to be checked is written ``"UNCHECKED"``, never left out and
never null: a policy that says nothing accepts nothing.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal, Protocol, TypeVar

from pydantic import BaseModel, ConfigDict, StringConstraints

UNCHECKED: Final = "UNCHECKED"

Unchecked = Literal["UNCHECKED"]
Sha256Hex = Annotated[str, StringConstraints(pattern=r"^[0-9a-fA-F]{64}$", to_lower=True)]
Sha384Hex = Annotated[str, StringConstraints(pattern=r"^[0-9a-fA-F]{96}$", to_lower=True)]
Register = Unchecked | Sha384Hex
Name = Annotated[str, StringConstraints(min_length=1, max_length=256)]


class Closed(BaseModel):
    """A frozen model that refuses unknown fields and converts nothing."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, populate_by_name=True)


class Named(Protocol):
    """Anything with a name, e.g. a measurement set."""

    @property
    def name(self) -> str:
        """Unique within its list."""
        ...


SetT = TypeVar("SetT", bound=Named)


def unique_names(sets: tuple[SetT, ...]) -> tuple[SetT, ...]:
    """Refuse two entries of one name (a pydantic ``AfterValidator``)."""
    if len({one.name for one in sets}) != len(sets):
        raise ValueError("two measurement sets have one name")
    return sets
