"""Signed trust policies: one COSE_Sign1 per version, each naming the one before it.

What holds, whoever carries the bytes:

* a bundle is signed by the policy root, an Ed25519 key that its user configured, and by nobody else;
* it is deterministic CBOR and canonical JSON: one policy has one form, and one digest;
* it is not used before its first second nor from its last one on, however it came to be in use;
* versions count upwards only: a smaller serial is a downgrade, an equal one with other bytes a fork,
  a successor that does not name its predecessor a broken history. What was wanted before comes back
  as a new version that says so.

The payload is ``{1: 1, 2: name, 3: serial, 4: issued at, 5: not before, 6: expires, 7: policy, 8: SHA-256
of the bundle before, 9: rollback of}`` (spec/policy-bundle.md). Nothing here reads a file or a clock.
"""

from __future__ import annotations

import json
import re
from dataclasses import InitVar, dataclass, field
from hmac import compare_digest
from typing import Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ..wire.cose import ALG_EDDSA, HEADER_ALG, HEADER_CONTENT_TYPE, Sign1, decode_sign1, sign1, verify_sign1
from ..wire.encoding import decode, encode, sha256
from ..wire.errors import AppraisalError, EndorsementsError, MalformedError
from ..wire.fields import Fields
from .appraise import CLOCK_SKEW_S
from .policy import MAX_POLICY_BYTES, TrustPolicy, load_policy

CONTENT_TYPE: Final = "application/vnd.ephemeralml.policy+cbor"
VERSION: Final = 1
MAX_BUNDLE_BYTES: Final = MAX_POLICY_BYTES + 1024
MAX_LIFETIME_S: Final = 400 * 86_400
"""A year and a month: a policy that nobody looks after must end."""

_PROTECTED: Final[dict[int, object]] = {HEADER_ALG: ALG_EDDSA, HEADER_CONTENT_TYPE: CONTENT_TYPE}
_MAX_TIME: Final = 1 << 40
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
_TOKEN: Final = object()


@dataclass(frozen=True, slots=True)
class PolicyStatement:
    """What a bundle says; whether the policy root says it is :func:`verify_policy_bundle`'s to tell.

    :param name: of the line of versions, e.g. ``"production"``: lower-case letters, digits, dashes.
    :param serial: its number in that line, from 1.
    :param issued_at: :param not_before: :param expires: Unix seconds; ``expires`` is its first second
        out of use.
    :param policy: the policy's canonical JSON, see :func:`canonical_policy`.
    :param previous: SHA-256 of the bundle before it, 32 bytes; None for the first.
    :param rollback_of: serial of the version whose policy this one brings back.
    """

    name: str
    serial: int
    issued_at: int
    not_before: int
    expires: int
    policy: bytes = field(repr=False)
    previous: bytes | None = None
    rollback_of: int | None = None

    def encode(self) -> bytes:
        """Return the payload bytes."""
        fields: dict[int, object] = {
            1: VERSION,
            2: self.name,
            3: self.serial,
            4: self.issued_at,
            5: self.not_before,
            6: self.expires,
            7: self.policy,
        }
        if self.previous is not None:
            fields[8] = self.previous
        if self.rollback_of is not None:
            fields[9] = self.rollback_of
        return encode(fields)


@dataclass(frozen=True, slots=True)
class Position:
    """Where in a line of versions somebody stands: at the bundle of this name, serial and SHA-256."""

    name: str
    serial: int
    digest: bytes


@dataclass(frozen=True, slots=True)
class PolicyBundle:
    """A bundle that the policy root signed; made by :func:`open_policy_bundle` only.

    :param data: the bundle's bytes.
    """

    statement: PolicyStatement
    policy: TrustPolicy
    data: bytes = field(repr=False)
    token: InitVar[object]

    def __post_init__(self, token: object) -> None:
        if token is not _TOKEN:
            raise TypeError("a PolicyBundle comes from open_policy_bundle() only")

    @property
    def position(self) -> Position:
        """Its place in its line of versions."""
        return Position(self.statement.name, self.statement.serial, sha256(self.data))

    @property
    def label(self) -> str:
        """``name#serial``: what receipts state as their ``policy_version``."""
        return f"{self.statement.name}#{self.statement.serial}"


def canonical_policy(policy: TrustPolicy) -> bytes:
    """Return the policy's only signed form: every field written out, keys sorted, no blanks, UTF-8.

    This is RFC 8785 for what a policy can hold: names in ASCII, integers, texts. Defaults are written
    out, so that a later release's defaults do not change what was signed.
    """
    return _canonical(policy.model_dump(mode="json", by_alias=True))


def make_policy_bundle(statement: PolicyStatement, key: Ed25519PrivateKey) -> bytes:
    """Sign a statement with the policy root's private key.

    :raises MalformedError: it is no statement that a verifier would read; the codes of
        :func:`peek_policy_bundle` and :func:`.policy.load_policy`.
    """
    data = sign1(statement.encode(), key, protected=_PROTECTED)
    _policy(peek_policy_bundle(data).policy)
    return data


def peek_policy_bundle(data: bytes) -> PolicyStatement:
    """Read what a bundle says, without asking who signed it.

    :raises MalformedError: the codes of :func:`~ephemeralml.wire.cose.decode_sign1` and
        :class:`~ephemeralml.wire.fields.Fields`, ``POLICY_HEADER``, ``BAD_POLICY_NAME``,
        ``BAD_POLICY_TIMES``, ``BAD_POLICY_HISTORY``.
    """
    return _statement(_message(data).payload)


def open_policy_bundle(data: bytes, policy_root: bytes) -> PolicyBundle:
    """Verify a bundle's form and signature, but not its time: history and expired bundles are read so.

    1. form: one tagged COSE_Sign1 with exactly our protected header, a closed payload;
    2. signature by the policy root;
    3. the policy itself, which is parsed only now: valid, and in its canonical form.

    :param policy_root: the root's raw Ed25519 public key, 32 bytes.
    :raises MalformedError: the codes of :func:`peek_policy_bundle`, ``BAD_POLICY``, ``POLICY_NOT_CANONICAL``.
    :raises VerificationError: ``SIG_FAILED`` or ``BAD_SIG_LENGTH``.
    :raises EndorsementsError: ``BAD_POLICY_ROOT``: the root is no Ed25519 public key.
    """
    if len(policy_root) != 32:
        raise EndorsementsError("BAD_POLICY_ROOT", "a policy root is an Ed25519 public key of 32 bytes")
    message = _message(data)  # 1
    statement = _statement(message.payload)
    verify_sign1(message, policy_root)  # 2
    return PolicyBundle(statement, _policy(statement.policy), bytes(data), _TOKEN)  # 3


def verify_policy_bundle(data: bytes, policy_root: bytes, now: int) -> PolicyBundle:
    """Verify a bundle that is to be used now.

    :param policy_root: the root's raw Ed25519 public key, 32 bytes. :param now: Unix seconds.
    :raises Error: as :func:`open_policy_bundle` and :func:`check_in_time`.
    """
    bundle = open_policy_bundle(data, policy_root)
    check_in_time(bundle, now)
    return bundle


def check_in_time(bundle: PolicyBundle, now: int) -> None:
    """Refuse a bundle outside its time; for one in use, again at every use.

    A clock may be 300 s behind the signer's; for the end there is no such grace.

    :raises AppraisalError: ``POLICY_EXPIRED`` or ``POLICY_NOT_YET_VALID``.
    """
    statement = bundle.statement
    if now >= statement.expires:
        raise _refusal(
            "POLICY_EXPIRED", f"the policy bundle {bundle.label} ended {now - statement.expires} s ago"
        )
    if now + CLOCK_SKEW_S < statement.not_before:
        wait = statement.not_before - now
        raise _refusal("POLICY_NOT_YET_VALID", f"the policy bundle {bundle.label} begins in {wait} s")


def check_succession(bundle: PolicyBundle, held: Position, *, unbroken: bool = False) -> None:
    """Refuse a bundle that does not come after the one that is held.

    :param unbroken: demand that it names the held one as its predecessor. Without it, versions may have
        been missed: a client that was off for a month sees the newest only.
    :raises AppraisalError: ``POLICY_OTHER_NAME``, ``POLICY_DOWNGRADE``, ``POLICY_FORKED`` or
        ``POLICY_HISTORY_BROKEN``.
    """
    new = bundle.statement
    if new.name != held.name:
        raise _refusal("POLICY_OTHER_NAME", f"{bundle.label} is no version of the policy {held.name!r}")
    if new.serial < held.serial:
        raise _refusal("POLICY_DOWNGRADE", f"{bundle.label} is older than serial {held.serial}, seen before")
    if new.serial == held.serial:
        if not compare_digest(sha256(bundle.data), held.digest):
            raise _refusal("POLICY_FORKED", f"another bundle is {bundle.label} already")
        return
    follows = compare_digest(new.previous or b"", held.digest)
    if not follows and (unbroken or new.serial == held.serial + 1):
        raise _refusal(
            "POLICY_HISTORY_BROKEN", f"{bundle.label} does not name the bundle of serial {held.serial}"
        )


def _refusal(code: str, message: str) -> AppraisalError:
    return AppraisalError(code, message, findings=((code, message),))


def _message(data: bytes) -> Sign1:
    message = decode_sign1(data, max_bytes=MAX_BUNDLE_BYTES)
    # By bytes: as values, -8.0 would equal -8.
    if message.protected_bytes != encode(_PROTECTED) or message.unprotected:
        raise MalformedError("POLICY_HEADER", "the bundle's header is not the one it must have")
    return message


def _statement(payload: bytes) -> PolicyStatement:
    fields = Fields(decode(payload, max_bytes=MAX_BUNDLE_BYTES), "policy bundle", range(1, 10))
    fields.version(1, VERSION)
    name = fields.text(2, 1, 63)
    if not _NAME.fullmatch(name):
        raise MalformedError("BAD_POLICY_NAME", "a policy's name is lower-case letters, digits and dashes")
    statement = PolicyStatement(
        name=name,
        serial=fields.uint(3, minimum=1),
        issued_at=fields.uint(4, maximum=_MAX_TIME),
        not_before=fields.uint(5, maximum=_MAX_TIME),
        expires=fields.uint(6, maximum=_MAX_TIME),
        policy=fields.octets(7, 1, MAX_POLICY_BYTES),
        previous=fields.octets(8, 32) if 8 in fields else None,
        rollback_of=fields.uint(9, minimum=1) if 9 in fields else None,
    )
    _check_consistent(statement)
    return statement


def _check_consistent(statement: PolicyStatement) -> None:
    begins, ends = statement.not_before, statement.expires
    if not statement.issued_at <= begins < ends or ends - begins > MAX_LIFETIME_S:
        raise MalformedError(
            "BAD_POLICY_TIMES", "issued at, not before and expires do not follow one another within 400 days"
        )
    if (statement.serial == 1) != (statement.previous is None):
        raise MalformedError("BAD_POLICY_HISTORY", "every bundle but the first names the one before it")
    if statement.rollback_of is not None and statement.rollback_of >= statement.serial:
        raise MalformedError("BAD_POLICY_HISTORY", "a bundle brings back an earlier version only")


def _policy(data: bytes) -> TrustPolicy:
    policy = load_policy(data)
    if _canonical(json.loads(data)) != data:
        raise MalformedError("POLICY_NOT_CANONICAL", "the policy is not in its canonical form")
    return policy


def _canonical(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
