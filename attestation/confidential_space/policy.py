"""What is wanted of a Confidential Space workload: images by digest, and the machine under them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, StringConstraints, model_validator

from ..closed import Closed, Name, Unchecked, unique_names
from .endorsements import GOOGLE_ISSUER

ImageDigest = Annotated[str, StringConstraints(pattern=r"^sha256:[0-9a-f]{64}$")]
SupportAttribute = Literal["EXPERIMENTAL", "USABLE", "STABLE", "LATEST"]
# GCP_SHIELDED_VM, which tokens may also say, encrypts no memory: it is not on offer.
HardwareModel = Literal["GCP_AMD_SEV", "GCP_AMD_SEV_ES", "GCP_AMD_SEV_SNP", "GCP_INTEL_TDX"]
Version = Annotated[str, StringConstraints(pattern=r"^[0-9]{6,8}$")]


class WorkloadImage(Closed):
    """A workload that may run, by the digest of its container image; it cannot be left unchecked."""

    name: Name
    image_digest: ImageDigest


class ConfidentialSpacePolicy(Closed):
    """What a token must say; every field is checked unless it reads ``"UNCHECKED"``.

    Secure boot and the hardened operating system are always required, production images too (debug
    images are refused before, unless the policy allows debug).

    :param images: the workloads that are wanted.
    :param audience: the one that tokens are made for; a token for somebody else proves nothing here.
    :param hwmodels: the machines that are accepted.
    :param service_accounts: one of the token's must be among them.
    :param min_swversion: oldest release of the operating system, as tokens write it (e.g. ``"251001"``).
    :param gpu_cc_mode: ``"ON"`` where the workload computes on a GPU.
    :param support_attributes: all must be there; ``STABLE`` says that Google supports the image.
    :param env_overrides: variables that whoever starts the machine may set.
    :param cmd_override: ``"NONE"``: the image's own command must run.
    """

    images: Annotated[tuple[WorkloadImage, ...], AfterValidator(unique_names)]
    audience: Annotated[str, StringConstraints(min_length=1, max_length=512)]
    hwmodels: Annotated[tuple[HardwareModel, ...], Field(min_length=1)]
    service_accounts: Unchecked | Annotated[tuple[Name, ...], Field(min_length=1)]
    min_swversion: Unchecked | Version
    gpu_cc_mode: Unchecked | Literal["ON"]
    issuer: Name = GOOGLE_ISSUER
    support_attributes: Unchecked | Annotated[tuple[SupportAttribute, ...], Field(min_length=1)] = ("STABLE",)
    env_overrides: Unchecked | tuple[Name, ...] = ()
    cmd_override: Unchecked | Literal["NONE"] = "NONE"

    @model_validator(mode="after")
    def _images_differ(self) -> ConfidentialSpacePolicy:
        if len({image.image_digest for image in self.images}) != len(self.images):
            raise ValueError("two images have one digest")
        return self
