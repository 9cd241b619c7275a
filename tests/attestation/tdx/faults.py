"""Everything that can be wrong with a quote or its collateral, by name, with the code that must come out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from .forge import COMPONENTS, FMSPC, NOW, Forge, Json, attribute, der, integer, iso, pck_extension


def setting(path: str, value: Any) -> Callable[[Json], None]:
    """Return a change of one value in a JSON document, by its path; ``...`` takes it out."""

    def change(document: Json) -> None:
        *steps, last = (int(step) if step.isdigit() else step for step in path.split("/"))
        inner: Any = document
        for step in steps:
            inner = inner[step]
        if value is ...:
            del inner[last]
        else:
            inner[last] = value

    return change


def svns(tee: bytes) -> dict[str, bytes]:
    """Return TEE TCB SVNs that begin so."""
    return {"tee_tcb_svn": tee + bytes(16 - len(tee))}


def attributes(value: int) -> dict[str, bytes]:
    """Return TD attributes."""
    return {"attributes": value.to_bytes(8, "little")}


def lower(index: int) -> tuple[int, ...]:
    """Return the platform's SVNs with one component at 0."""
    return tuple(0 if position == index else svn for position, svn in enumerate(COMPONENTS))


QUOTES: Final[dict[str, tuple[Forge, str]]] = {
    "version 3": (Forge(header={0: b"\3\0"}), "NOT_A_TDX_QUOTE"),
    "version 6": (Forge(header={0: b"\6\0"}), "NOT_A_TDX_QUOTE"),
    "an SGX quote": (Forge(header={4: bytes(4)}), "NOT_A_TDX_QUOTE"),
    "an ECDSA P-384 key": (Forge(header={2: b"\3\0"}), "BAD_QUOTE"),
    "another vendor's enclave": (Forge(header={12: bytes(16)}), "BAD_QUOTE"),
    "a version 4 head over a version 5 body": (
        Forge(version=5, newer=True, header={0: b"\4\0"}),
        "TRUNCATED",
    ),
    "a version 5 head over a version 4 body": (Forge(header={0: b"\5\0"}), "BAD_QUOTE"),
    "certification by PPID": (Forge(kinds=(3, 5)), "CERTIFICATION_DATA"),
    "a PCK chain elsewhere": (Forge(kinds=(6, 3)), "CERTIFICATION_DATA"),
    "something behind it": (Forge(trailing=b"\0\1"), "TRAILING_BYTES"),
    "long authentication data": (Forge(auth_data=bytes(1_025)), "OUT_OF_BOUNDS"),
    "no root": (Forge(chain=("pck", "platform")), "BAD_CERTIFICATE"),
    "a certificate twice": (Forge(chain=("pck", "pck", "platform", "root")), "BAD_CERTIFICATE"),
    "no certificates": (Forge(chain=()), "BAD_CERTIFICATE"),
    "a chain upside down": (Forge(chain=("root", "platform", "pck")), "UNKNOWN_ROOT"),
    "a chain of the TCB signer": (Forge(chain=("signer", "platform", "root")), "CHAIN_BROKEN"),
    "a root as its own CA": (Forge(chain=("pck", "root", "root")), "CHAIN_BROKEN"),
    "another root of the same name": (Forge(certificates={"root": {"serial": 99}}), "UNKNOWN_ROOT"),
    "another root key": (Forge(certificates={"root": {"key": "other", "signer": "other"}}), "UNKNOWN_ROOT"),
    "signed by another key": (Forge(signers={"quote": "other"}), "SIG_FAILED"),
    "signed by the PCK key": (Forge(signers={"quote": "pck"}), "SIG_FAILED"),
    "an enclave signed by another key": (Forge(signers={"qe": "other"}), "QE_SIG_FAILED"),
    "an enclave signed by the PCK's CA": (Forge(signers={"qe": "platform"}), "QE_SIG_FAILED"),
    "an enclave signed by the quote's key": (Forge(signers={"qe": "attestation"}), "QE_SIG_FAILED"),
    "an enclave that vouches for nothing": (Forge(qe={"report_data": bytes(64)}), "KEY_NOT_BOUND"),
    "an enclave that vouches for another key": (
        Forge(qe={"report_data": b"\1" * 32 + bytes(32)}),
        "KEY_NOT_BOUND",
    ),
}

CERTIFICATES: Final[dict[str, tuple[Forge, str]]] = {
    **{
        f"{name} expired": (Forge(certificates={name: {"not_after": NOW - 1}}), "CERTIFICATE_EXPIRED")
        for name in ("platform", "pck", "signer")
    },
    **{
        f"{name} not yet valid": (
            Forge(certificates={name: {"not_before": NOW + 1}}),
            "CERTIFICATE_NOT_YET_VALID",
        )
        for name in ("platform", "pck", "signer")
    },
    **{
        f"{name} by a stranger": (Forge(certificates={name: {"signer": "other"}}), "CHAIN_BROKEN")
        for name in ("platform", "pck", "signer")
    },
    **{
        f"{name} on P-384": (Forge(certificates={name: {"key": "p384"}}), "CERTIFICATE_PROFILE")
        for name in ("platform", "pck", "signer")
    },
    **{
        f"{name} with SHA-384": (Forge(certificates={name: {"sha384": True}}), "CERTIFICATE_PROFILE")
        for name in ("platform", "pck", "signer")
    },
    **{
        f"{name} with an unknown critical extension": (
            Forge(certificates={name: {"unknown": True}}),
            "CERTIFICATE_PROFILE",
        )
        for name in ("platform", "pck", "signer")
    },
    "a CA that is none": (Forge(certificates={"platform": {"ca": False}}), "NOT_A_CA"),
    "a CA that may not sign certificates": (
        Forge(certificates={"platform": {"usage": ("crl_sign",)}}),
        "KEY_USAGE",
    ),
    "a CA that may not sign lists": (
        Forge(certificates={"platform": {"usage": ("key_cert_sign",)}}),
        "KEY_USAGE",
    ),
    "a PCK that is a CA": (Forge(certificates={"pck": {"ca": True}}), "KEY_USAGE"),
    "a PCK that may not sign": (Forge(certificates={"pck": {"usage": ("key_agreement",)}}), "KEY_USAGE"),
    "a TCB signer that is a CA": (Forge(certificates={"signer": {"ca": True}}), "KEY_USAGE"),
    "a PCK by the root": (Forge(certificates={"pck": {"issuer": "root"}}), "CHAIN_BROKEN"),
    "a PCK of another name": (Forge(certificates={"pck": {"subject": "Intel SGX TCB Signing"}}), "NOT_A_PCK"),
    "a CA of another name": (
        Forge(certificates={"platform": {"subject": "Intel SGX Other CA"}}),
        "CHAIN_BROKEN",
    ),
    "a CA for other things": (
        Forge(
            certificates={
                "platform": {"subject": "Intel SGX Other CA"},
                "pck": {"issuer_name": "Intel SGX Other CA"},
            },
            lists={"pck": {"issuer": "Intel SGX Other CA"}},
        ),
        "NOT_A_PCK",
    ),
    "a PCK that is a CA and signs data": (
        Forge(certificates={"pck": {"ca": True, "usage": ("digital_signature", "key_cert_sign")}}),
        "KEY_USAGE",
    ),
    "a PCK without its extension": (Forge(extension=b""), "BAD_PCK_EXTENSION"),
    "an extension that is not DER": (Forge(extension=b"\x30\x05\x00"), "BAD_PCK_EXTENSION"),
    "an extension with bytes behind": (Forge(extension=pck_extension() + b"\0"), "BAD_PCK_EXTENSION"),
    "an extension with a long length": (Forge(extension=b"\x30\x81\x01\x00"), "BAD_PCK_EXTENSION"),
    "an extension with an unknown pair": (
        Forge(extension=pck_extension(more=attribute((9,), integer(1)))),
        "BAD_PCK_EXTENSION",
    ),
    "an extension with a pair twice": (
        Forge(extension=pck_extension(more=attribute((4,), der(0x04, FMSPC)))),
        "BAD_PCK_EXTENSION",
    ),
    "an extension with a short FMSPC": (Forge(extension=pck_extension(fmspc=FMSPC[:5])), "BAD_PCK_EXTENSION"),
    "an extension with a long PCE id": (Forge(extension=pck_extension(pce_id=bytes(3))), "BAD_PCK_EXTENSION"),
    "an extension with 15 components": (Forge(extension=pck_extension(COMPONENTS[:15])), "BAD_PCK_EXTENSION"),
    "an extension with a component of 256": (
        Forge(extension=pck_extension((256, *COMPONENTS[1:]), cpu_svn=bytes(16))),
        "BAD_PCK_EXTENSION",
    ),
    "an extension with a negative component": (
        Forge(extension=pck_extension().replace(integer(5), b"\x02\x01\xff", 1)),
        "BAD_PCK_EXTENSION",
    ),
    "an extension with a large PCE SVN": (
        Forge(extension=pck_extension(pce_svn=65_536)),
        "BAD_PCK_EXTENSION",
    ),
    **{
        f"an extension without pair {arc}": (Forge(extension=pck_extension(without=arc)), "BAD_PCK_EXTENSION")
        for arc in (1, 2, 3, 4)
    },
}

LISTS: Final[dict[str, tuple[Forge, str]]] = {
    "the PCK is revoked": (Forge(lists={"pck": {"serials": (1, 13)}}), "CERTIFICATE_REVOKED"),
    "the PCK's CA is revoked": (Forge(lists={"root": {"serials": (12,)}}), "CERTIFICATE_REVOKED"),
    "the TCB signer is revoked": (Forge(lists={"root": {"serials": (14, 99)}}), "CERTIFICATE_REVOKED"),
    **{
        f"the {name} list has expired": (Forge(lists={name: {"next_update": NOW - 1}}), "COLLATERAL_EXPIRED")
        for name in ("pck", "root")
    },
    **{
        f"the {name} list is of tomorrow": (
            Forge(lists={name: {"issued_at": NOW + 1}}),
            "COLLATERAL_NOT_YET_VALID",
        )
        for name in ("pck", "root")
    },
    **{
        f"the {name} list is signed by a stranger": (
            Forge(lists={name: {"signer": "other"}}),
            "CRL_SIG_FAILED",
        )
        for name in ("pck", "root")
    },
    **{
        f"the {name} list is of another issuer": (
            Forge(lists={name: {"issuer": "Intel SGX PCK Processor CA"}}),
            "NO_COLLATERAL",
        )
        for name in ("pck", "root")
    },
}


def _signed(
    kind: str, field: str, cases: dict[str, tuple[Callable[[Json], None], str]]
) -> dict[str, tuple[Forge, str]]:
    return {
        f"{kind}: {name}": (Forge(info=change) if field == "info" else Forge(identity=change), code)
        for name, (change, code) in cases.items()
    }


def _same_for_both(kind: str, field: str) -> dict[str, tuple[Forge, str]]:
    file = {"info": "tcb_info", "identity": "qe_identity"}[field]
    cases: dict[str, tuple[Callable[[Json], None], str]] = {
        "expired": (setting("nextUpdate", iso(NOW - 1)), "COLLATERAL_EXPIRED"),
        "of tomorrow": (setting("issueDate", iso(NOW + 1)), "COLLATERAL_NOT_YET_VALID"),
        "another id": (setting("id", "SGX"), "BAD_COLLATERAL"),
        "another version": (setting("version", 4), "BAD_COLLATERAL"),
        "a version that is true": (setting("version", True), "BAD_COLLATERAL"),
        "no date": (setting("issueDate", ...), "BAD_COLLATERAL"),
        "a date without zone": (setting("issueDate", "2027-01-01T00:00:00"), "BAD_COLLATERAL"),
        "the 30th of February": (setting("issueDate", "2026-02-30T00:00:00Z"), "BAD_COLLATERAL"),
        "no levels": (setting("tcbLevels", ...), "BAD_COLLATERAL"),
        "levels of another kind": (setting("tcbLevels", {}), "BAD_COLLATERAL"),
        "too many levels": (setting("tcbLevels", [{}] * 129), "BAD_COLLATERAL"),
        "an empty list of levels": (setting("tcbLevels", []), "NO_TCB_LEVEL"),
        "an unknown status": (setting("tcbLevels/0/tcbStatus", "Fine"), "BAD_COLLATERAL"),
        "a revoked level": (setting("tcbLevels/0/tcbStatus", "Revoked"), "TCB_REVOKED"),
        "advisories that are text": (setting("tcbLevels/0/advisoryIDs", "INTEL"), "BAD_COLLATERAL"),
        "a negative evaluation": (setting("tcbEvaluationDataNumber", -1), "BAD_COLLATERAL"),
    }
    return {
        **_signed(kind, field, cases),
        f"{kind}: signed by a stranger": (Forge(signers={file: "other"}), "COLLATERAL_SIG_FAILED"),
        f"{kind}: signed by the root": (Forge(signers={file: "root"}), "COLLATERAL_SIG_FAILED"),
    }


COLLATERAL: Final[dict[str, tuple[Forge, str]]] = {
    **_same_for_both("TCB info", "info"),
    **_same_for_both("enclave identity", "identity"),
    **_signed(
        "TCB info",
        "info",
        {
            "another FMSPC": (setting("fmspc", "00606a000000"), "COLLATERAL_MISMATCH"),
            "another PCE id": (setting("pceId", "0001"), "COLLATERAL_MISMATCH"),
            "an FMSPC of other length": (setting("fmspc", "30606a0000"), "BAD_COLLATERAL"),
            "an FMSPC that is no hexadecimal": (setting("fmspc", "30606a00000g"), "BAD_COLLATERAL"),
            "another type": (setting("tcbType", 1), "BAD_COLLATERAL"),
            "15 components": (setting("tcbLevels/0/tcb/sgxtcbcomponents/0", ...), "BAD_COLLATERAL"),
            "no TDX components": (setting("tcbLevels/0/tcb/tdxtcbcomponents", ...), "BAD_COLLATERAL"),
            "a component of 256": (setting("tcbLevels/0/tcb/sgxtcbcomponents/0/svn", 256), "BAD_COLLATERAL"),
            "a component that is a fraction": (
                setting("tcbLevels/0/tcb/sgxtcbcomponents/0/svn", 1.0),
                "BAD_COLLATERAL",
            ),
            "no modules": (setting("tdxModuleIdentities", ...), "TDX_MODULE_UNKNOWN"),
            "a module of another signer": (
                setting("tdxModuleIdentities/0/mrsigner", "01" * 48),
                "TDX_MODULE_MISMATCH",
            ),
            "a module of other attributes": (
                setting("tdxModuleIdentities/0/attributes", "01" + "00" * 7),
                "TDX_MODULE_MISMATCH",
            ),
            "a revoked module": (
                setting("tdxModuleIdentities/0/tcbLevels/0/tcbStatus", "Revoked"),
                "TCB_REVOKED",
            ),
            "a module of a platform's status": (
                setting("tdxModuleIdentities/0/tcbLevels/0/tcbStatus", "ConfigurationNeeded"),
                "NO_TCB_LEVEL",
            ),
            "no level of the module": (setting("tdxModuleIdentities/0/tcbLevels", []), "NO_TCB_LEVEL"),
        },
    ),
    **_signed(
        "enclave identity",
        "identity",
        {
            "another signer": (setting("mrsigner", "00" * 32), "QE_MISMATCH"),
            "another product": (setting("isvprodid", 1), "QE_MISMATCH"),
            "other attributes": (setting("attributes", "15" + "00" * 15), "QE_MISMATCH"),
            "another miscselect": (setting("miscselect", "00000001"), "QE_MISMATCH"),
            "a short mask": (setting("attributesMask", "FF"), "BAD_COLLATERAL"),
            "a level that is not reached": (
                setting("tcbLevels", [{"tcb": {"isvsvn": 5}, "tcbDate": iso(NOW), "tcbStatus": "UpToDate"}]),
                "NO_TCB_LEVEL",
            ),
        },
    ),
    "a chain of the PCK's CA": (Forge(signing_chain=("pck", "root")), "CHAIN_BROKEN"),
    "a signer of another name": (
        Forge(certificates={"signer": {"subject": "Intel SGX PCK Certificate"}}),
        "COLLATERAL_SIGNER",
    ),
    "a signing chain of another root": (Forge(signing_chain=("signer", "platform")), "UNKNOWN_ROOT"),
    "a signing chain of three": (Forge(signing_chain=("signer", "platform", "root")), "BAD_CERTIFICATE"),
}

REPORTS: Final[dict[str, tuple[Forge, str]]] = {
    **{
        f"component {index} below every level": (Forge(components=lower(index)), "NO_TCB_LEVEL")
        for index in range(8)
        if COMPONENTS[index]
    },
    "a PCE below every level": (Forge(pce_svn=10), "NO_TCB_LEVEL"),
    "another PCE": (Forge(pce_id=b"\0\1"), "COLLATERAL_MISMATCH"),
    "a TDX component below every level": (Forge(report=svns(bytes([5, 1, 0]))), "NO_TCB_LEVEL"),
    "a module below every level": (Forge(report=svns(bytes([2, 1, 2]))), "NO_TCB_LEVEL"),
    "a module that nobody names": (Forge(report=svns(bytes([5, 2, 2]))), "TDX_MODULE_UNKNOWN"),
    "an old module below every level": (Forge(report=svns(bytes([2, 0, 2]))), "NO_TCB_LEVEL"),
    "a module of another signer": (Forge(report={"mrsignerseam": b"\1" * 48}), "TDX_MODULE_MISMATCH"),
    "an old module of another signer": (
        Forge(report={**svns(bytes([5, 0, 2])), "mrsignerseam": b"\1" * 48}),
        "TDX_MODULE_MISMATCH",
    ),
    "a module with attributes": (Forge(report={"seam_attributes": b"\1" + bytes(7)}), "TDX_MODULE_MISMATCH"),
    "an enclave of another signer": (Forge(qe={"mrsigner": bytes(32)}), "QE_MISMATCH"),
    "an enclave of another product": (Forge(qe={"isv_prod_id": b"\1\0"}), "QE_MISMATCH"),
    "a debug enclave": (Forge(qe={"attributes": b"\x13" + bytes(15)}), "QE_MISMATCH"),
    "an enclave with more in its frames": (Forge(qe={"miscselect": b"\1\0\0\0"}), "QE_MISMATCH"),
    "an enclave below every level": (Forge(qe={"isv_svn": b"\1\0"}), "NO_TCB_LEVEL"),
    "exceptions that the host injects": (Forge(report=attributes(0)), "BAD_TD_ATTRIBUTES"),
    "protection keys": (Forge(report=attributes(1 << 28 | 1 << 30)), "BAD_TD_ATTRIBUTES"),
    "key locker": (Forge(report=attributes(1 << 28 | 1 << 31)), "BAD_TD_ATTRIBUTES"),
    "a reserved attribute": (Forge(report=attributes(1 << 28 | 1 << 40)), "BAD_TD_ATTRIBUTES"),
    "a service domain": (
        Forge(version=5, newer=True, report={"mrservicetd": b"\1" * 48}),
        "SERVICE_TD",
    ),
}

FAULTS: Final = {
    **{f"quote: {name}": case for name, case in QUOTES.items()},
    **{f"certificate: {name}": case for name, case in CERTIFICATES.items()},
    **{f"list: {name}": case for name, case in LISTS.items()},
    **COLLATERAL,
    **{f"report: {name}": case for name, case in REPORTS.items()},
}
