"""The attester of a Confidential Space workload: asks the launcher for tokens.

>>> from ephemeralml.attestation.attest.confidential_space import ConfidentialSpaceAttester
>>> from ephemeralml.attestation.attest.launcher import Launcher
>>> from ephemeralml.wire.errors import ConfigurationError
>>> attester = ConfidentialSpaceAttester("my-verifiers", launcher=Launcher("/nonexistent"))
>>> try:
...     attester.attest(nonce=b"challenge")
... except ConfigurationError as error:
...     print(error.code)
NO_LAUNCHER
"""

from __future__ import annotations

from typing import Final, Literal

from ...wire.errors import MalformedError
from ..confidential_space.details import nonces_for
from ..confidential_space.parse import parse
from .launcher import Launcher, TokenKind

__all__ = ["ConfidentialSpaceAttester"]


class ConfidentialSpaceAttester:
    """Makes tokens about the workload that it runs in.

    :param audience: who the tokens are for; what policies call ``audience``. It must not be one that a
        workload identity pool accepts: published evidence would then be a credential.
    :param kind: ``"PKI"`` verifies offline with the pinned root, now and years later; ``"OIDC"`` needs
        the issuer's keys of its day.
    """

    platform: Final[Literal["confidential-space"]] = "confidential-space"

    def __init__(self, audience: str, *, kind: TokenKind = "PKI", launcher: Launcher | None = None) -> None:
        self.audience = audience
        self._kind = kind
        self._launcher = Launcher() if launcher is None else launcher

    def measurements(self) -> None:
        """Return None: AIR v1 has no slot for what this platform measures."""
        return

    def attest(
        self, *, public_key: bytes | None = None, user_data: bytes | None = None, nonce: bytes | None = None
    ) -> bytes:
        """Return a fresh token that vouches for these values.

        The token is read again before it is handed out: one that vouches for something else would be
        noticed by every verifier, but here it can still be said why.

        :param public_key: any bytes. :param user_data: a SHA-256 digest. :param nonce: 4 to 32 bytes.
        :raises MalformedError: ``OUT_OF_BOUNDS`` (also when all three are None),
            ``LAUNCHER_BAD_ANSWER``, or ``LAUNCHER_WRONG_ANSWER``: a token that does not carry the values.
        :raises Error: as :meth:`.launcher.Launcher.token`.
        """
        nonces = nonces_for(public_key=public_key, user_data=user_data, nonce=nonce)
        data = self._launcher.token(audience=self.audience, nonces=nonces, kind=self._kind)
        try:
            token = parse(data)
        except MalformedError:
            raise MalformedError(
                "LAUNCHER_BAD_ANSWER", "the launcher's token does not follow its format"
            ) from None
        is_kind = bool(token.chain) == (self._kind == "PKI")
        if token.audience != self.audience or set(token.nonces) != set(nonces) or not is_kind:
            raise MalformedError("LAUNCHER_WRONG_ANSWER", "the launcher's token carries other values")
        return data
