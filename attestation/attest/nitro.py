"""The attester of a Nitro Enclave: asks its security module for documents.

>>> from ephemeralml.attestation.attest.nitro import NitroAttester
>>> from ephemeralml.wire.errors import ConfigurationError
>>> try:
...     NitroAttester.of(device="/nonexistent").attest(nonce=b"challenge")
... except ConfigurationError as error:
...     print(error.code)
NO_NSM
"""

from __future__ import annotations

from typing import Final, Literal

from ...wire.errors import MalformedError
from ..evidence import Measurements
from ..nitro.details import NITRO_REGISTERS, nitro_measurements
from ..nitro.parse import MAX_BOUND_BYTES, parse
from .nsm import NitroSecurityModule
from .nsm_device import DEVICE, Ioctl

__all__ = ["NitroAttester", "nsm_random"]


class NitroAttester:
    """Makes attestation documents of the enclave that it runs in.

    :param module: the enclave's security module.
    """

    platform: Final[Literal["nitro"]] = "nitro"

    def __init__(self, module: NitroSecurityModule | None = None) -> None:
        self._module = NitroSecurityModule() if module is None else module

    @classmethod
    def of(cls, *, device: str = DEVICE, ioctl: Ioctl | None = None) -> NitroAttester:
        """Return the attester of a security module that stands elsewhere, e.g. an emulated one."""
        return cls(NitroSecurityModule(device) if ioctl is None else NitroSecurityModule(device, ioctl=ioctl))

    def measurements(self) -> Measurements:
        """Return PCR0 to PCR4 and PCR8, asked one by one.

        :raises Error: as :meth:`.nsm.NitroSecurityModule.describe_pcr`.
        """
        return nitro_measurements(
            {index: self._module.describe_pcr(index).value for index in NITRO_REGISTERS}
        )

    def attest(
        self, *, public_key: bytes | None = None, user_data: bytes | None = None, nonce: bytes | None = None
    ) -> bytes:
        """Return a fresh document that carries these values.

        The document is read again before it is handed out: one that vouches for something else would
        be noticed by every verifier, but here it can still be said why.

        :param public_key: :param user_data: :param nonce: at most 1,024 bytes each.
        :raises MalformedError: ``OUT_OF_BOUNDS``, ``NSM_BAD_ANSWER``, or ``NSM_WRONG_ANSWER``: a document
            that does not carry the values.
        :raises ConfigurationError: as :meth:`.nsm.NitroSecurityModule.attestation`.
        """
        asked = (public_key, user_data, nonce)
        if any(value is not None and len(value) > MAX_BOUND_BYTES for value in asked):
            raise MalformedError("OUT_OF_BOUNDS", "a value to attest has more than 1,024 bytes")
        data = self._module.attestation(public_key=public_key, user_data=user_data, nonce=nonce)
        try:
            document = parse(data)
        except MalformedError:
            raise MalformedError(
                "NSM_BAD_ANSWER", "the security module's document does not follow its format"
            ) from None
        carried = (document.public_key, document.user_data, document.nonce)
        # Nothing and the empty string are one to some modules.
        if any((wanted or b"") != (found or b"") for wanted, found in zip(asked, carried, strict=True)):
            raise MalformedError("NSM_WRONG_ANSWER", "the security module's document carries other values")
        return data


def nsm_random(size: int, module: NitroSecurityModule | None = None) -> bytes:
    """Return random bytes of the enclave's security module.

    :param size: 0 to 65,536 bytes.
    :raises Error: as :meth:`.nsm.NitroSecurityModule.random`.
    """
    return (NitroSecurityModule() if module is None else module).random(size)
