"""Collateral from a service on this machine: fetched, cached, checked, and never trusted."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import quote as percent

import pytest

from ephemeralml.attestation.fetch.pcs import PcsService, collect
from ephemeralml.attestation.tdx import TdxDetails
from ephemeralml.attestation.tdx.verify import verify
from ephemeralml.wire.errors import ConfigurationError, EndorsementsError, Error, FetchError

from .faults import setting
from .forge import DAY, NOW, Forge, trusting

Answer = tuple[int, dict[str, str], bytes]
TCB = "/tdx/certification/v4/tcb?fmspc=30606A000000&update=standard"
QE = "/tdx/certification/v4/qe/identity?update=standard"
CRL = "/sgx/certification/v4/pckcrl?ca=platform&encoding=der"
ROOT_CRL = "/sgx/certification/v4/rootcacrl"


class Service:
    """Answers what it is told, and remembers what it was asked."""

    def __init__(self, forge: Forge) -> None:
        chain = percent(forge.signing_pem())
        self.asked: list[str] = []
        self.answers: dict[str, Answer] = {
            TCB: (200, {"TCB-Info-Issuer-Chain": chain}, forge.signed_body("tcb_info")),
            QE: (200, {"SGX-Enclave-Identity-Issuer-Chain": chain}, forge.signed_body("qe_identity")),
            CRL: (200, {}, forge.revocation_list("pck")),
            ROOT_CRL: (200, {}, forge.revocation_list("root").hex().encode()),
        }


@pytest.fixture
def served() -> Iterator[Callable[[Forge], tuple[Service, PcsService]]]:
    servers: list[ThreadingHTTPServer] = []

    def start(forge: Forge) -> tuple[Service, PcsService]:
        service = Service(forge)

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                service.asked.append(self.path)
                status, headers, body = service.answers.get(self.path, (404, {}, b""))
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        servers.append(server)
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        return service, PcsService.pccs(f"http://127.0.0.1:{server.server_port}", timeout_s=5)

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


Start = Callable[[Forge], tuple[Service, PcsService]]


def test_what_is_fetched_judges_the_quote(served: Start, tmp_path: Path) -> None:
    forge = Forge()
    service, pcs = served(forge)
    files = collect(forge.quote(), tmp_path / "cache", NOW, pcs)
    assert list(files) == ["collateral_30606a000000_platform.json"]
    assert service.asked == [TCB, QE, CRL, ROOT_CRL]
    found = verify(forge.quote(), trusting().with_files(files), NOW)
    assert TdxDetails.of(found).tcb_status == "UpToDate"
    assert [path.name for path in (tmp_path / "cache").iterdir()] == list(files)


def test_what_is_young_is_not_fetched_again(served: Start, tmp_path: Path) -> None:
    forge = Forge()
    service, pcs = served(forge)
    first = collect(forge.quote(), tmp_path, NOW, pcs)
    assert collect(forge.quote(), tmp_path, NOW + DAY, pcs) == first
    assert len(service.asked) == 4
    collect(forge.quote(), tmp_path, NOW + DAY + 1, pcs)
    assert len(service.asked) == 8
    collect(forge.quote(), tmp_path, NOW - 1, pcs)
    assert len(service.asked) == 12


def test_what_is_old_serves_where_fetching_fails(served: Start, tmp_path: Path) -> None:
    forge = Forge()
    service, pcs = served(forge)
    first = collect(forge.quote(), tmp_path, NOW, pcs)
    service.answers.clear()
    assert collect(forge.quote(), tmp_path, NOW + 10 * DAY, pcs) == first
    with pytest.raises(EndorsementsError) as caught:
        verify(forge.quote(), trusting().with_files(first), NOW + 21 * DAY)
    assert caught.value.code == "COLLATERAL_EXPIRED"


@pytest.mark.parametrize("bad", [b"", b"{", b"{}", bytes(600_000)])
def test_what_is_broken_in_the_folder_is_fetched_again(served: Start, tmp_path: Path, bad: bytes) -> None:
    forge = Forge()
    _, pcs = served(forge)
    (tmp_path / "collateral_30606a000000_platform.json").write_bytes(bad)
    verify(forge.quote(), trusting().with_files(collect(forge.quote(), tmp_path, NOW, pcs)), NOW)


def test_the_folder_is_not_trusted(served: Start, tmp_path: Path) -> None:
    forge = Forge()
    _, pcs = served(Forge(signers={"tcb_info": "other"}))
    files = collect(forge.quote(), tmp_path, NOW, pcs)
    with pytest.raises(Error) as caught:
        verify(forge.quote(), trusting().with_files(files), NOW)
    assert caught.value.code == "COLLATERAL_SIG_FAILED"


def test_a_folder_that_cannot_be_written_is_no_reason_to_fail(served: Start, tmp_path: Path) -> None:
    forge = Forge()
    _, pcs = served(forge)
    (tmp_path / "file").write_bytes(b"")
    assert collect(forge.quote(), tmp_path / "file", NOW, pcs)


def test_early_updates_and_processor_cas_are_asked_for(served: Start) -> None:
    forge = Forge(certificates={"platform": {"subject": "Intel SGX PCK Processor CA"}})
    service, pcs = served(forge)
    early = PcsService.pccs(pcs.base_url, update="early", timeout_s=5)
    with pytest.raises(FetchError):
        early.collateral(forge.quote())
    for path in (TCB, QE, CRL):
        service.answers[path.replace("standard", "early").replace("platform", "processor")] = service.answers[
            path
        ]
    early.collateral(forge.quote())
    assert service.asked[-4:] == [
        TCB.replace("standard", "early"),
        QE.replace("standard", "early"),
        CRL.replace("platform", "processor"),
        ROOT_CRL,
    ]


def test_the_older_header_of_caches_is_read(served: Start) -> None:
    service, pcs = served(Forge())
    status, headers, body = service.answers[TCB]
    service.answers[TCB] = (status, {"SGX-TCB-Info-Issuer-Chain": headers["TCB-Info-Issuer-Chain"]}, body)
    assert pcs.collateral(Forge().quote())


@pytest.mark.parametrize("path", [TCB, QE, CRL, ROOT_CRL])
@pytest.mark.parametrize(
    ("answer", "code"),
    [
        ((404, {}, b""), "FETCH_REFUSED"),
        ((500, {}, b""), "FETCH_REFUSED"),
        ((301, {"Location": "/elsewhere"}, b""), "FETCH_REFUSED"),
        ((200, {}, b"nonsense"), "MALFORMED"),
        ((200, {}, b""), "MALFORMED"),
        ((200, {}, bytes(600_000)), "FETCH_TOO_LARGE"),
    ],
)
def test_other_answers_are_refused(served: Start, path: str, answer: Answer, code: str) -> None:
    service, pcs = served(Forge())
    service.answers[path] = answer
    with pytest.raises(Error) as caught:
        pcs.collateral(Forge().quote())
    found = caught.value.code
    assert found == code or (code == "MALFORMED" and found in {"BAD_CERTIFICATE", "BAD_CRL"})


def test_collateral_of_another_platform_is_refused(served: Start) -> None:
    _, pcs = served(Forge(info=setting("fmspc", "00606a000000")))
    with pytest.raises(EndorsementsError) as caught:
        pcs.collateral(Forge().quote())
    assert caught.value.code == "COLLATERAL_MISMATCH"


def test_a_service_elsewhere_must_be_https() -> None:
    with pytest.raises(ConfigurationError) as caught:
        PcsService.pccs("http://pccs.example").collateral(Forge().quote())
    assert caught.value.code == "BAD_URL"


def test_intels_addresses_are_the_defaults() -> None:
    assert PcsService().base_url == "https://api.trustedservices.intel.com"
    assert PcsService().root_crl_url.startswith("https://certificates.trustedservices.intel.com/")
