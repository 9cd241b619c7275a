"""Fetching collateral from services of the tests' own, and keeping what may be kept."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.x509 import ocsp

from ephemeralml.attestation.fetch.nvidia import JWKS_NAME, NvidiaServices, collect
from ephemeralml.attestation.nvidia import NvidiaDetails, NvidiaEndorsements
from ephemeralml.attestation.nvidia.verify import verify
from ephemeralml.wire.encoding import sha256
from ephemeralml.wire.errors import ConfigurationError, FetchError, MalformedError

from . import service
from .forge import (
    DAY,
    DRIVER_RIM,
    NONCE,
    NOW,
    VBIOS_RIM,
    OcspParts,
    Party,
    device,
    driver_manifest,
    endorsements,
    links,
    make_evidence,
    make_ocsp,
    rim_signers,
    vbios_manifest,
)


@dataclass
class Vendor:
    """Three services in one, and what they were asked."""

    manifests: dict[str, bytes] = field(
        default_factory=lambda: {DRIVER_RIM: driver_manifest(), VBIOS_RIM: vbios_manifest()}
    )
    parts: OcspParts | None = None
    answer: bytes = b""
    status: int = 200
    asked: list[str] = field(default_factory=list)
    keys: list[str | None] = field(default_factory=list)
    requests: list[dict[str, object]] = field(default_factory=list)

    def get(self, path: str) -> bytes:
        if path == "/.well-known/jwks.json":
            return service.jwks(service.jwk(kid="other"), service.jwk())
        name = path.removeprefix("/v1/rim/")
        rim = base64.b64encode(self.manifests[name]).decode() if name in self.manifests else None
        return json.dumps({"id": name, "rim": rim, "sha256": "-", "request_id": "-"}).encode()

    def post(self, path: str, body: bytes) -> bytes:
        if path.endswith("/attest/gpu"):
            self.requests.append(json.loads(body))
            return self.answer
        serial = ocsp.load_der_ocsp_request(body).serial_number
        return make_ocsp(*self._pair(serial), self.parts)

    def _pair(self, serial: int) -> tuple[Party, Party]:
        pairs = [*links(device()), *links(rim_signers())]
        return next(
            pair
            for pair in pairs
            if x509.load_der_x509_certificate(pair[0].certificate).serial_number == serial
        )


@pytest.fixture
def vendor() -> Vendor:
    return Vendor()


@pytest.fixture
def services(vendor: Vendor) -> Iterator[NvidiaServices]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer(vendor.get(self.path))

        def do_POST(self) -> None:
            self._answer(vendor.post(self.path, self.rfile.read(int(self.headers["Content-Length"]))))

        def _answer(self, body: bytes) -> None:
            vendor.asked.append(f"{self.command} {self.path}")
            vendor.keys.append(self.headers.get("Authorization"))
            self.send_response(vendor.status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        url = f"http://127.0.0.1:{server.server_port}"
        yield NvidiaServices(url, url, url, service_key="key", timeout_s=5)
        server.shutdown()
        thread.join()


def test_all_that_a_report_needs_is_fetched_once(
    vendor: Vendor, services: NvidiaServices, tmp_path: Path
) -> None:
    files = collect(make_evidence(), tmp_path / "cache", NOW, services)
    assert sum(name.endswith(".ocsp") for name in files) == 6
    assert {f"{DRIVER_RIM}.swidtag", f"{VBIOS_RIM}.swidtag"} <= files.keys()
    bare = endorsements(rims={}, ocsp=())
    assert verify(make_evidence(), bare.with_files(files), NOW).findings == ()
    before = len(vendor.asked)
    assert collect(make_evidence(), tmp_path / "cache", NOW, services) == files
    assert len(vendor.asked) == before == 8
    # Only what asks for a key gets it: OCSP is public.
    assert [key is not None for key in vendor.keys] == [
        path.startswith("GET /v1/rim/") for path in vendor.asked
    ]


def test_answers_that_have_run_out_are_fetched_again(
    vendor: Vendor, services: NvidiaServices, tmp_path: Path
) -> None:
    collect(make_evidence(), tmp_path, NOW, services)
    vendor.asked.clear()
    vendor.parts = OcspParts(this_update=NOW + 2 * DAY, next_update=NOW + 3 * DAY)
    files = collect(make_evidence(), tmp_path, NOW + 2 * DAY + 1, services)
    assert vendor.asked == ["POST /"] * 6
    whole = endorsements(rims={}, ocsp=()).with_files(files)
    assert verify(make_evidence(), whole, NOW + 2 * DAY + 1).findings == ()


def test_a_cache_that_somebody_spoilt_is_not_believed(
    vendor: Vendor, services: NvidiaServices, tmp_path: Path
) -> None:
    files = collect(make_evidence(), tmp_path, NOW, services)
    for path in tmp_path.iterdir():
        path.write_bytes(b"<!DOCTYPE a>" if path.suffix == ".swidtag" else b"spoilt")
    again = collect(make_evidence(), tmp_path, NOW, services)
    assert again.keys() == files.keys()
    assert verify(make_evidence(), endorsements(rims={}, ocsp=()).with_files(again), NOW).findings == ()


def test_a_cache_that_cannot_be_written_is_no_failure(services: NvidiaServices, tmp_path: Path) -> None:
    blocked = tmp_path / "file"
    blocked.write_bytes(b"")
    assert len(collect(make_evidence(), blocked, NOW, services)) == 8


def test_the_service_is_asked_about_reports(vendor: Vendor, services: NvidiaServices) -> None:
    vendor.answer = json.dumps(service.answer()).encode()
    found = services.attest(make_evidence())
    assert NvidiaDetails.of(verify(found, service.endorsements(), NOW)).nonce == NONCE
    (request,) = vendor.requests
    assert (request["nonce"], request["arch"], request["claims_version"]) == (NONCE.hex(), "HOPPER", "3.0")
    assert vendor.asked == ["POST /v4/attest/gpu"]
    assert vendor.keys == ["Bearer key"]
    services.attest(make_evidence(), version="v3")
    assert "claims_version" not in vendor.requests[1]
    for evidence in (found, make_evidence(kind="switch", architecture="LS10")):
        with pytest.raises(MalformedError, match="BAD_EVIDENCE"):
            services.attest(evidence)


def test_of_the_services_keys_the_needed_one_is_kept(
    vendor: Vendor, services: NvidiaServices, tmp_path: Path
) -> None:
    data = service.make_evidence()
    files = collect(data, tmp_path, NOW, services)
    assert list(files) == [JWKS_NAME]
    assert [key["kid"] for key in json.loads(files[JWKS_NAME])["keys"]] == [service.KID]
    given = NvidiaEndorsements(nras_issuers=(sha256(service.authority().certificate),)).with_files(files)
    assert verify(data, given, NOW).findings == ()
    collect(data, tmp_path, NOW, services)
    assert vendor.asked == ["GET /.well-known/jwks.json"]
    (tmp_path / JWKS_NAME).write_bytes(service.jwks(service.jwk(kid="yesterday")))
    collect(data, tmp_path, NOW, services)
    assert len(vendor.asked) == 2


def test_a_service_that_refuses_is_named(vendor: Vendor, services: NvidiaServices, tmp_path: Path) -> None:
    vendor.status = 403
    with pytest.raises(FetchError, match="FETCH_REFUSED"):
        collect(make_evidence(), tmp_path, NOW, services)
    with pytest.raises(FetchError, match="FETCH_REFUSED"):
        services.keys()


@pytest.mark.parametrize("rim", [b"<!DOCTYPE a>", b""])
def test_a_service_that_sends_something_else_is_refused(
    rim: bytes, vendor: Vendor, services: NvidiaServices
) -> None:
    vendor.manifests = {"NV_X": rim}
    if rim:
        with pytest.raises(MalformedError, match="BAD_RIM"):
            services.manifest("NV_X")
    with pytest.raises(MalformedError, match="BAD_RIM"):
        services.manifest("NV_Y")
    vendor.answer = b"<html>"
    with pytest.raises(MalformedError):
        services.attest(make_evidence())
    with pytest.raises(MalformedError, match="BAD_CERTIFICATE"):
        services.revocation(b"0", b"0")


def test_names_stay_within_their_address(vendor: Vendor, services: NvidiaServices) -> None:
    with pytest.raises(MalformedError):
        services.manifest("../../x?y")
    assert vendor.asked == ["GET /v1/rim/..%2F..%2Fx%3Fy"]


def test_only_https_leaves_the_machine() -> None:
    services = NvidiaServices(rim_url="http://rim.example")
    with pytest.raises(ConfigurationError, match="BAD_URL"):
        services.manifest("NV_X")
    for url in (NvidiaServices().rim_url, NvidiaServices().ocsp_url, NvidiaServices().nras_url):
        assert url.startswith("https://")
