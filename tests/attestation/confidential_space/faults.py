"""Tokens with exactly one thing wrong, each with the code that refuses it."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial

from asn1crypto.x509 import Certificate, TbsCertificate  # type: ignore[import-untyped]
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from ephemeralml.attestation.confidential_space import ConfidentialSpaceEndorsements

from .forge import (
    DAY,
    HOUR,
    NOW,
    Chain,
    Link,
    b64,
    claims,
    good_chain,
    issuer,
    links,
    make_chain,
    oidc,
    pki,
    rsa_key,
    sign,
    x5c,
)

HEADER = {"alg": "RS256", "kid": "key-1", "typ": "JWT"}
REQUIRED = (
    "iss",
    "aud",
    "sub",
    "iat",
    "nbf",
    "exp",
    "dbgstat",
    "secboot",
    "hwmodel",
    "swname",
    "swversion",
    "submods",
    "submods/container",
    "submods/container/image_digest",
    "submods/container/image_reference",
)
TYPED = (
    *REQUIRED,
    "eat_nonce",
    "google_service_accounts",
    "submods/confidential_space",
    "submods/confidential_space/support_attributes",
    "submods/container/args",
    "submods/container/cmd_override",
    "submods/container/env",
    "submods/container/env_override",
    "submods/container/restart_policy",
    "submods/gce",
    "submods/gce/zone",
    "submods/nvidia_gpu",
    "submods/nvidia_gpu/cc_mode",
)


@dataclass
class Fault:
    """A token, how it is verified, and the code that comes out."""

    name: str
    code: str
    token: Callable[[], bytes]
    endorsements: Callable[[], ConfidentialSpaceEndorsements] = field(default=issuer)
    now: int = NOW


def all_faults() -> list[Fault]:
    """Return every fault."""
    return [
        *envelope(),
        *headers(),
        *signatures(),
        *times(),
        *said(),
        *chains(),
        *rewritten(),
        *shown_chains(),
    ]


def envelope() -> Iterator[Fault]:
    """What is no token at all, or has more than one reading."""
    good = oidc()
    head, body, signature = good.split(b".")
    last = b"BAECAwQFBgcICQ"  # 10 octets; four spellings of the last character mean them
    yield Fault("empty", "BAD_JWT", lambda: b"")
    yield Fault("two parts", "BAD_JWT", lambda: head + b"." + body)
    yield Fault("four parts", "BAD_JWT", lambda: good + b"." + signature)
    yield Fault("trailing dot", "BAD_JWT", lambda: good + b".")
    yield Fault("no signature", "BAD_JWT", lambda: head + b"." + body + b".")
    yield Fault("JSON serialisation", "BAD_JWT", lambda: b'{"payload":"e30","signatures":[]}')
    yield Fault("leading space", "BAD_BASE64", lambda: b" " + good)
    yield Fault("trailing newline", "BAD_BASE64", lambda: good + b"\n")
    yield Fault("trailing NUL", "BAD_BASE64", lambda: good + b"\0")
    yield Fault("padded", "BAD_BASE64", lambda: good + b"==")
    yield Fault("not ASCII", "BAD_BASE64", lambda: head + b"." + body + b"." + "sïgn".encode())
    yield Fault("standard base64", "BAD_BASE64", lambda: head + b"." + body + b"." + b"+/+/")
    yield Fault("loose bits", "BAD_BASE64", lambda: head + b"." + body + b"." + last[:-1] + b"R")
    yield Fault("odd length", "BAD_BASE64", lambda: head + b"." + body + b".AAAAA")
    yield Fault("huge", "TOO_LARGE", lambda: oidc({"padding": "x" * 40_000}))
    yield Fault("huge signature", "TOO_LARGE", lambda: head + b"." + body + b"." + b64(bytes(1_025)))
    yield Fault("many entries", "TOO_LARGE", lambda: sign(HEADER, _many()))
    yield Fault("deep", "TOO_DEEP", lambda: sign(HEADER, b'{"a":' + b"[" * 20 + b"]" * 20 + b"}"))
    yield Fault("deeper than Python", "TOO_DEEP", lambda: sign(HEADER, b'{"a":' + b"[" * 20_000))
    texts = {
        "no JSON": b"claims",
        "cut": json.dumps(claims()).encode()[:-1],
        "two texts": json.dumps(claims()).encode() + b"{}",
        "NaN": b'{"iat":NaN}',
        "infinity": b'{"iat":1e999}',
        "long number": b'{"iat":' + b"1" * 21 + b"}",
        "lone surrogate": b'{"iss":"\\ud800"}',
        "surrogate name": b'{"\\udfff":1}',
        "not UTF-8": b'{"iss":"\xff"}',
        "byte order mark": b"\xef\xbb\xbf{}",
        "UTF-16": '{"iss":"x"}'.encode("utf-16"),
        "array": b"[]",
        "null": b"null",
    }
    for name, text in texts.items():
        yield Fault(f"claims: {name}", "BAD_JSON", partial(sign, HEADER, text))
        yield Fault(f"header: {name}", "BAD_JSON", partial(sign, text, claims()))
    twice = json.dumps(claims()).encode()
    for name in ("aud", "exp", "image_digest", "dbgstat", "env"):
        doubled = twice.replace(f'"{name}":'.encode(), f'"{name}":"x","{name}":'.encode(), 1)
        yield Fault(f"{name} twice", "DUPLICATE_KEY", partial(sign, HEADER, doubled))
    yield Fault(
        "alg twice",
        "DUPLICATE_KEY",
        lambda: sign(b'{"alg":"none","alg":"RS256","kid":"key-1"}', claims()),
    )


def _many() -> bytes:
    return b'{"a":[' + b",".join([b"0"] * 20_001) + b"]}"


def headers() -> Iterator[Fault]:
    """What names another algorithm, or a key from elsewhere."""
    for alg in ("none", "None", "NONE", "", "rs256", "RS384", "RS512", "PS256", "ES256", "HS256", "EdDSA"):
        yield Fault(f"alg {alg!r}", "BAD_ALG", partial(oidc, header={"alg": alg}))
    wrong: tuple[object, ...] = (None, 1, ["RS256"], {"RS256": 1}, ...)
    for other in wrong:
        yield Fault(f"alg {other!r}", "BAD_ALG", partial(oidc, header={"alg": other}))
    yield Fault("HS256 with the public key", "BAD_ALG", _confused)
    for name, value in (
        ("crit", ["exp"]),
        ("b64", False),
        ("jku", "https://keys.example/jwks"),
        ("jwk", {"kty": "RSA"}),
        ("x5u", "https://keys.example/chain"),
        ("x5t", "AAAA"),
        ("zip", "DEF"),
        ("cty", "JWT"),
        ("enc", "A128GCM"),
    ):
        yield Fault(f"header {name}", "BAD_HEADER", partial(oidc, header={name: value}))
    for typ in ("at+jwt", "jwt", "JOSE", 1, None):
        yield Fault(f"typ {typ!r}", "BAD_HEADER", partial(oidc, header={"typ": typ}))
    for kid in ("", 1, None, ["key-1"], "k" * 257, ...):
        yield Fault(f"kid {str(kid)[:10]!r}", "BAD_HEADER", partial(oidc, header={"kid": kid}))
    yield Fault("unknown kid", "UNKNOWN_KEY_ID", lambda: oidc(header={"kid": "key-2"}))
    yield Fault("kid in other case", "UNKNOWN_KEY_ID", lambda: oidc(header={"kid": "KEY-1"}))
    yield Fault("no JWKS", "NO_COLLATERAL", oidc, ConfidentialSpaceEndorsements)


def _confused() -> bytes:
    """Sign with HMAC, the issuer's public key in PEM as its secret."""
    secret = rsa_key("issuer").public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    signing_input = b".".join(
        b64(json.dumps(part).encode()) for part in (HEADER | {"alg": "HS256"}, claims())
    )
    return signing_input + b"." + b64(hmac.new(secret, signing_input, hashlib.sha256).digest())


def signatures() -> Iterator[Fault]:
    """What the named key did not sign in the named way."""
    head, body, signature = oidc().split(b".")
    octets = base64.urlsafe_b64decode(signature + b"==")
    made = {
        "first bit": bytes([octets[0] ^ 1]) + octets[1:],
        "last bit": octets[:-1] + bytes([octets[-1] ^ 1]),
        "cut": octets[:-1],
        "longer": b"\0" + octets,
        "zero": bytes(256),
        "ones": b"\xff" * 256,
        "one octet": b"\0",
    }
    for name, wrong in made.items():
        yield Fault(f"signature: {name}", "SIG_FAILED", partial(b".".join, (head, body, b64(wrong))))
    other = oidc({"aud": "https://somebody-else.example"}).split(b".")
    yield Fault("claims of another token", "SIG_FAILED", lambda: b".".join((head, other[1], signature)))
    older = b64(json.dumps(HEADER | {"kid": "key-0"}).encode())
    yield Fault("kid of another key", "SIG_FAILED", lambda: b".".join((older, body, signature)))
    yield Fault("another key", "SIG_FAILED", lambda: oidc(key=rsa_key("stranger")))
    yield Fault("PSS", "SIG_FAILED", lambda: oidc(pss=True))
    yield Fault("another chain's key", "SIG_FAILED", _chain_of_another)
    yield Fault("another issuer", "WRONG_ISSUER", lambda: oidc({"iss": "https://accounts.google.com"}))
    yield Fault(
        "issuer with a slash",
        "WRONG_ISSUER",
        lambda: oidc({"iss": "https://confidentialcomputing.googleapis.com/"}),
    )


def _chain_of_another() -> bytes:
    return sign({"alg": "RS256", "x5c": x5c(good_chain().certificates)}, claims(), rsa_key("stranger"))


def times() -> Iterator[Fault]:
    """What is of another time."""
    yield Fault("before it is valid", "TOKEN_NOT_YET_VALID", oidc, now=NOW - 1)
    yield Fault("not before later", "TOKEN_NOT_YET_VALID", lambda: oidc({"nbf": NOW + 1}))
    yield Fault("issued in the future", "TOKEN_NOT_YET_VALID", lambda: oidc({"iat": NOW + 1}))
    yield Fault("at its expiry", "TOKEN_EXPIRED", oidc, now=NOW + HOUR)
    yield Fault("years later", "TOKEN_EXPIRED", oidc, now=NOW + 1000 * DAY)
    yield Fault("expires when issued", "BAD_TIMES", lambda: oidc({"exp": NOW}))
    yield Fault("expires before nbf", "BAD_TIMES", lambda: oidc({"nbf": NOW + 2 * HOUR}))
    for name in ("iat", "nbf", "exp"):
        yield Fault(f"{name} negative", "OUT_OF_BOUNDS", partial(oidc, {name: -1}))
        yield Fault(f"{name} in milliseconds", "OUT_OF_BOUNDS", partial(oidc, {name: NOW * 1000}))
        yield Fault(f"{name} a fraction", "WRONG_TYPE", partial(oidc, {name: NOW + 0.5}))
        yield Fault(f"{name} true", "WRONG_TYPE", partial(oidc, {name: True}))
        yield Fault(f"{name} a text", "WRONG_TYPE", partial(oidc, {name: str(NOW)}))


def said() -> Iterator[Fault]:
    """Claims that are missing, of another type or without bounds."""
    for name in REQUIRED:
        yield Fault(f"no {name}", "MISSING_CLAIM", partial(oidc, {name: ...}))
    for name in TYPED:
        yield Fault(f"{name} null", "WRONG_TYPE", partial(oidc, {name: None}))
    long = "x" * 600
    for name in ("iss", "aud", "hwmodel", "dbgstat", "submods/container/image_digest"):
        yield Fault(f"{name} empty", "OUT_OF_BOUNDS", partial(oidc, {name: ""}))
        yield Fault(f"{name} long", "OUT_OF_BOUNDS", partial(oidc, {name: long}))
    yield Fault("audiences", "WRONG_TYPE", lambda: oidc({"aud": ["https://verifiers.example"]}))
    yield Fault("secboot 1", "WRONG_TYPE", lambda: oidc({"secboot": 1}))
    yield Fault("secboot 'true'", "WRONG_TYPE", lambda: oidc({"secboot": "true"}))
    yield Fault("seven nonces", "OUT_OF_BOUNDS", lambda: oidc({"eat_nonce": ["n" * 64] * 7}))
    yield Fault("short nonce", "OUT_OF_BOUNDS", lambda: oidc({"eat_nonce": "n" * 7}))
    yield Fault("long nonce", "OUT_OF_BOUNDS", lambda: oidc({"eat_nonce": ["n" * 89]}))
    yield Fault("empty nonce", "OUT_OF_BOUNDS", lambda: oidc({"eat_nonce": ""}))
    yield Fault("nonce a number", "WRONG_TYPE", lambda: oidc({"eat_nonce": [12345678]}))
    yield Fault("no version", "MISSING_CLAIM", lambda: oidc({"swversion": []}))
    yield Fault("two versions", "OUT_OF_BOUNDS", lambda: oidc({"swversion": ["251001", "261001"]}))
    yield Fault("many accounts", "OUT_OF_BOUNDS", lambda: oidc({"google_service_accounts": ["a"] * 257}))
    yield Fault(
        "variable a number", "WRONG_TYPE", lambda: oidc({"submods/container/env_override": {"POOL": 1}})
    )


def chains() -> Iterator[Fault]:
    """Chains that are well formed and not to be believed."""
    late, early = (NOW + 1, NOW + DAY), (NOW - DAY, NOW - 1)
    for name, place in (("root", 0), ("intermediate", 1), ("leaf", 2)):
        for what, window, code in (
            ("expired", early, "CERTIFICATE_EXPIRED"),
            ("not yet valid", late, "CERTIFICATE_NOT_YET_VALID"),
        ):
            yield _broken(f"{name} {what}", code, place, window=window)
    weak = {
        "1,024 bits": rsa_key("weak", 1_024),
        "exponent 3": rsa_key("three", 2_048, 3),
        "EC": ec.generate_private_key(ec.SECP256R1()),
    }
    for what, key in weak.items():
        yield _broken(f"intermediate with {what}", "CERTIFICATE_PROFILE", 1, key=key)
    yield _broken("leaf of 1,024 bits", "CERTIFICATE_PROFILE", 2, key=weak["1,024 bits"])
    yield _broken("leaf by SHA-384", "CERTIFICATE_PROFILE", 2, digest=hashes.SHA384())
    yield _broken("intermediate by SHA-512", "CERTIFICATE_PROFILE", 1, digest=hashes.SHA512())
    yield _broken("leaf by PSS", "CERTIFICATE_PROFILE", 2, pss=True)
    yield _broken("critical extension", "CERTIFICATE_PROFILE", 2, edit=_critical)
    yield _broken("intermediate no CA", "NOT_A_CA", 1, authority=False)
    yield _broken("intermediate that signs data", "KEY_USAGE", 1, signs_certificates=False, signs_data=True)
    yield _broken("intermediate without key usage", "KEY_USAGE", 1, key_usage=False)
    yield _broken("root with path length 0", "PATH_LENGTH", 0, path_length=0)
    yield _broken("leaf is a CA", "KEY_USAGE", 2, authority=True)
    yield _broken("leaf that signs certificates only", "KEY_USAGE", 2, key_usage=True)
    yield _broken("intermediate of another issuer", "CHAIN_BROKEN", 1, issuer_name="stranger")
    yield _broken("leaf of another issuer", "CHAIN_BROKEN", 2, issuer_name="root")
    yield Fault("iat before its leaf", "TIMESTAMP_OUTSIDE", _old_token, lambda: good_chain().endorsements)


def rewritten() -> Iterator[Fault]:
    """Certificates that no careful library makes, signed nevertheless."""

    def old(tbs: TbsCertificate) -> None:
        tbs["version"] = "v1"
        del tbs["extensions"]

    def numbered(serial: int) -> Callable[[TbsCertificate], None]:
        def change(tbs: TbsCertificate) -> None:
            tbs["serial_number"] = serial

        return change

    for name, code, change in (
        ("leaf of version 1", "CERTIFICATE_PROFILE", old),
        ("leaf with serial number 0", "BAD_CERTIFICATE", numbered(0)),
        ("leaf with a negative serial number", "BAD_CERTIFICATE", numbered(-5)),
    ):
        yield Fault(name, code, partial(resigned, change), lambda: good_chain().endorsements)


def resigned(change: Callable[[TbsCertificate], None]) -> bytes:
    """Return a token of the good chain whose leaf was changed and signed again by the intermediate."""
    chain = good_chain()
    made = Certificate.load(chain.certificates[0])
    change(made["tbs_certificate"])
    tbs = made["tbs_certificate"].dump(force=True)
    made["signature_value"] = rsa_key("intermediate").sign(tbs, padding.PKCS1v15(), hashes.SHA256())
    return pki(certificates=[made.dump(force=True), *chain.certificates[1:]])


def _loose() -> str:
    """Return base64 whose last character says more than the octets do."""
    text = base64.b64encode(b"\x30" * 100).decode()
    assert text.endswith("MA==")
    return text[:-4] + "MB=="


def _broken(name: str, code: str, place: int, **changes: object) -> Fault:
    made: list[Chain] = []

    def chain() -> Chain:
        if not made:
            wanted = [Link(**vars(link)) for link in links()]
            wanted[place] = Link(**(vars(wanted[place]) | changes))
            made.append(make_chain(wanted))
        return made[0]

    return Fault(name, code, lambda: pki(chain()), lambda: chain().endorsements)


def _critical(builder: x509.CertificateBuilder) -> x509.CertificateBuilder:
    unknown = x509.UnrecognizedExtension(x509.ObjectIdentifier("1.3.6.1.4.1.11129.9"), b"\x05\x00")
    return builder.add_extension(unknown, critical=True)


def _old_token() -> bytes:
    return pki(changes={"iat": NOW - 2 * DAY, "nbf": NOW - 2 * DAY})


def shown_chains() -> Iterator[Fault]:
    """Certificates that are shown in another way than Google does."""
    chain = good_chain()
    signer, intermediate, root = chain.certificates
    stranger = make_chain([Link("root", key=rsa_key("stranger")), *links()[1:]])
    orders = {
        "root not pinned": (stranger.certificates, "UNKNOWN_ROOT"),
        "reversed": ([root, intermediate, signer], "UNKNOWN_ROOT"),
        "no root": ([signer, intermediate], "UNKNOWN_ROOT"),
        "no intermediate": ([signer, root], "CHAIN_BROKEN"),
        "leaf and intermediate swapped": ([intermediate, signer, root], "NOT_A_CA"),
        "root twice": ([signer, intermediate, root, root], None),
        "intermediate twice": ([signer, intermediate, intermediate, root], "CHAIN_BROKEN"),
        "leaf twice": ([signer, signer, intermediate, root], "NOT_A_CA"),
        "another's leaf": ([stranger.certificates[0], intermediate, root], None),
        "another's intermediate": ([signer, stranger.certificates[1], root], "CHAIN_BROKEN"),
        "root only, twice": ([root, root], "KEY_USAGE"),
        "one certificate": ([root], "BAD_CHAIN"),
        "none": ([], "BAD_CHAIN"),
        "five": ([signer, intermediate, root, root, root], "BAD_CHAIN"),
        "octets after the leaf": ([signer + b"\0", intermediate, root], "BAD_CERTIFICATE"),
        "no certificate": ([b"\x30\x00", intermediate, root], "BAD_CERTIFICATE"),
        "huge certificate": ([b"\x30" * 4_097, intermediate, root], "BAD_CHAIN"),
        "empty certificate": ([b"", intermediate, root], "BAD_CHAIN"),
    }
    for name, (shown, code) in orders.items():
        if code is not None:
            yield Fault(
                f"x5c: {name}",
                code,
                partial(pki, certificates=shown),
                lambda: chain.endorsements,
            )
    texts = x5c(chain.certificates)
    values: dict[str, object] = {
        "a text": texts[0],
        "numbers": [1, 2, 3],
        "null": None,
        "an object": {"0": texts[0]},
        "unpadded": [texts[0].rstrip("="), texts[1].rstrip("="), texts[2].rstrip("=") + "A"],
        "base64url": [texts[0].replace("+", "-").replace("/", "_") + "-", *texts[1:]],
        "PEM": ["-----BEGIN CERTIFICATE-----\n" + texts[0], *texts[1:]],
        "with newlines": [texts[0][:64] + "\n" + texts[0][64:], *texts[1:]],
        "not ASCII": ["ï" + texts[0], *texts[1:]],
        "with loose bits": [_loose(), *texts[1:]],
    }
    for name, value in values.items():
        yield Fault(
            f"x5c is {name}",
            "BAD_CHAIN",
            partial(sign, {"alg": "RS256", "x5c": value}, claims(), chain.key),
        )
    yield Fault("nothing pinned", "NO_ROOTS", pki, lambda: ConfidentialSpaceEndorsements(roots=()))
    yield Fault("Google's root pinned only", "UNKNOWN_ROOT", pki, ConfidentialSpaceEndorsements)
