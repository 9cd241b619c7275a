"""The enclave's side against an emulated security module: honest, refusing, damaged and lying."""

from __future__ import annotations

import ctypes
import errno
import hashlib
import time
from collections.abc import Callable
from functools import cache, partial
from operator import itemgetter
from pathlib import Path

import cbor2
import pytest

from ephemeralml.attestation import Attester, DevelopmentRoot, development_pcrs
from ephemeralml.attestation.attest.nitro import NitroAttester, nsm_random
from ephemeralml.attestation.attest.nsm import MAX_RANDOM_BYTES, NitroSecurityModule
from ephemeralml.attestation.attest.nsm_device import REFUSALS, Ioctl, kernel_ioctl
from ephemeralml.attestation.nitro import NitroDetails, NitroEndorsements
from ephemeralml.attestation.nitro.verify import verify
from ephemeralml.wire.errors import ConfigurationError, Error, MalformedError

from .nsm import MESSAGE, EmulatedNsm

PCRS = {**development_pcrs("image"), 3: b"3" * 48, 4: b"4" * 48, 8: b"8" * 48}


@cache
def root() -> DevelopmentRoot:
    return DevelopmentRoot.create()


@pytest.fixture
def device(tmp_path: Path) -> str:
    """A file that can be opened for reading and writing, which is all the driver asks of the node."""
    node = tmp_path / "nsm"
    node.touch()
    return str(node)


def emulated(
    device: str, *, tamper: Callable[[bytes], bytes] = bytes, error: int | None = None
) -> tuple[EmulatedNsm, NitroSecurityModule]:
    nsm = EmulatedNsm(root(), PCRS, tamper=tamper, error=error)
    return nsm, NitroSecurityModule(device, ioctl=nsm)


def code_of(act: Callable[[], object]) -> str:
    with pytest.raises(Error) as caught:
        act()
    assert "\n" not in str(caught.value)
    return caught.value.code


# ----------------------------------------------------------------- what an honest module gives


def test_a_document_of_the_module_verifies_and_carries_the_values(device: str) -> None:
    attester: Attester = NitroAttester(emulated(device)[1])
    document = attester.attest(public_key=b"k" * 32, user_data=b"u" * 32, nonce=b"challenge")
    verified = verify(document, NitroEndorsements((root().fingerprint,)), int(time.time()))
    assert verified.details.binds_key(b"k" * 32)
    assert verified.details.binds_announcement(b"u" * 32)
    assert verified.details.binds_nonce(b"challenge")
    assert verified.measurements == attester.measurements()
    assert attester.platform == verified.platform == "nitro"


@pytest.mark.parametrize("values", [{}, {"nonce": b""}, {"nonce": b"n" * 1024, "user_data": b"u" * 1024}])
def test_the_edges_of_the_values_are_attested(device: str, values: dict[str, bytes]) -> None:
    document = NitroAttester(emulated(device)[1]).attest(**values)
    details = NitroDetails.of(verify(document, NitroEndorsements((root().fingerprint,)), int(time.time())))
    assert {name: getattr(details, name) for name in values} == values


def test_a_value_over_the_bound_never_reaches_the_module(device: str) -> None:
    nsm, module = emulated(device)
    for name in ("public_key", "user_data", "nonce"):
        too_long = {name: bytes(1025)}
        assert code_of(partial(NitroAttester(module).attest, **too_long)) == "OUT_OF_BOUNDS"
    assert nsm.requests == []


@pytest.mark.parametrize("size", [0, 1, 255, 256, 257, 5000])
def test_random_bytes_come_in_as_many_draws_as_it_takes(device: str, size: int) -> None:
    nsm, module = emulated(device)
    drawn = nsm_random(size, module)
    assert len(drawn) == size
    assert len(nsm.requests) == -(-size // 256)
    if size >= 255:
        assert len(set(drawn)) > 100


@pytest.mark.parametrize("size", [-1, MAX_RANDOM_BYTES + 1])
def test_too_many_random_bytes_are_refused(device: str, size: int) -> None:
    assert code_of(lambda: nsm_random(size, emulated(device)[1])) == "OUT_OF_BOUNDS"


def test_registers_are_described_extended_and_locked(device: str) -> None:
    _, module = emulated(device)
    assert module.describe_pcr(0).value == PCRS[0]
    assert module.describe_pcr(0).locked
    value = hashlib.sha384(bytes(48) + b"event").digest()
    assert module.extend_pcr(16, b"event") == value
    assert module.describe_pcr(16).value == value
    module.lock_pcr(16)
    assert code_of(lambda: module.extend_pcr(16, b"event")) == "NSM_READ_ONLY"
    module.lock_pcrs(20)
    found = module.describe()
    assert found.locked_pcrs == frozenset(range(20))
    assert (found.version, found.max_pcrs, found.digest) == ((1, 0, 0), 32, "SHA384")


def test_a_register_of_ones_own_stands_in_the_document_once_locked(device: str) -> None:
    _, module = emulated(device)
    value = module.extend_pcr(17, b"model")
    module.lock_pcr(17)
    verified = verify(
        NitroAttester(module).attest(), NitroEndorsements((root().fingerprint,)), int(time.time())
    )
    assert NitroDetails.of(verified).registers[17] == value


def test_requests_are_of_the_vendors_form(device: str) -> None:
    nsm, module = emulated(device)
    NitroAttester(module).attest(nonce=b"n")
    module.describe_pcr(3)
    module.random(1)
    assert nsm.requests == [
        {"Attestation": {"public_key": None, "user_data": None, "nonce": b"n"}},
        {"DescribePCR": {"index": 3}},
        "GetRandom",
    ]


@pytest.mark.parametrize(
    "act",
    [
        lambda module: module.describe_pcr(32),
        lambda module: module.describe_pcr(-1),
        lambda module: module.extend_pcr(16, b""),
        lambda module: module.extend_pcr(16, bytes(513)),
        lambda module: module.extend_pcr(99, b"e"),
        lambda module: module.lock_pcr(32),
        lambda module: module.lock_pcrs(0),
        lambda module: module.lock_pcrs(33),
    ],
)
def test_arguments_out_of_bounds_never_reach_the_module(
    device: str, act: Callable[[NitroSecurityModule], object]
) -> None:
    nsm, module = emulated(device)
    assert code_of(lambda: act(module)) == "OUT_OF_BOUNDS"
    assert nsm.requests == []


# ----------------------------------------------------------------- refusals, and no module at all

CALLS: dict[str, Callable[[NitroSecurityModule], object]] = {
    "describe": lambda module: module.describe(),
    "attestation": lambda module: NitroAttester(module).attest(nonce=b"n"),
    "random": lambda module: module.random(8),
    "describe_pcr": lambda module: module.describe_pcr(0),
    "extend_pcr": lambda module: module.extend_pcr(16, b"e"),
    "lock_pcr": lambda module: module.lock_pcr(16),
    "lock_pcrs": lambda module: module.lock_pcrs(17),
}


calls = pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)


@calls
@pytest.mark.parametrize("reason", REFUSALS)
def test_every_error_answer_has_its_code(device: str, reason: str, call: Callable[..., object]) -> None:
    _, module = emulated(device, tamper=lambda _: cbor2.dumps({"Error": reason}))
    with pytest.raises(ConfigurationError) as caught:
        call(module)
    assert (caught.value.code, caught.value.message, caught.value.retriable) == REFUSALS[reason]


def test_every_error_of_the_vendors_api_is_mapped() -> None:
    names = "InvalidArgument InvalidIndex InvalidResponse ReadOnlyIndex InvalidOperation BufferTooSmall"
    assert set(REFUSALS) == {*names.split(), "InputTooLarge", "InternalError"}


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errno.ENOENT, "NO_NSM"),
        (errno.ENOTTY, "NO_NSM"),
        (errno.ENODEV, "NO_NSM"),
        (errno.EPERM, "NSM_DENIED"),
        (errno.EACCES, "NSM_DENIED"),
        (errno.EMSGSIZE, "NSM_INPUT_TOO_LARGE"),
        (errno.ETIMEDOUT, "NSM_TIMEOUT"),
        (errno.EIO, "NSM_UNREACHABLE"),
        (errno.EFAULT, "NSM_UNREACHABLE"),
    ],
)
def test_every_failure_of_the_ioctl_has_its_code(device: str, error: int, code: str) -> None:
    _, module = emulated(device, error=error)
    assert code_of(module.describe) == code


@pytest.mark.parametrize("ioctl", [EmulatedNsm(DevelopmentRoot((), None), {}), kernel_ioctl])  # type: ignore[arg-type]
def test_where_there_is_no_device_it_is_said_what_to_do(tmp_path: Path, ioctl: Ioctl) -> None:
    attester = NitroAttester.of(device=str(tmp_path / "none"), ioctl=ioctl)
    with pytest.raises(ConfigurationError, match="run inside a Nitro Enclave") as caught:
        attester.attest()
    assert caught.value.code == "NO_NSM"
    assert str(tmp_path) not in str(caught.value)


def test_a_file_that_is_no_device_is_no_module(device: str) -> None:
    assert code_of(NitroSecurityModule(device).describe) == "NO_NSM"


# ----------------------------------------------------------------- damaged and lying answers


@calls
def test_every_cut_answer_is_refused(device: str, call: Callable[..., object]) -> None:
    for keep in (0, 1, 5, -1):
        _, module = emulated(device, tamper=itemgetter(slice(keep)))
        assert code_of(partial(call, module)) == "NSM_BAD_ANSWER"


@calls
@pytest.mark.parametrize(
    "answer",
    [
        None,
        0,
        [],
        {},
        "Attestation!",
        {"Error": "Success"},
        {"Error": "SomethingNew"},
        {"Error": 5},
        {"Error": None},
        {"GetRandom": {"random": b"r" * 64}, "Attestation": {"document": b"d"}},
        {"GetRandom": {}},
        {"GetRandom": {"random": "text"}},
        {"GetRandom": {"random": b"short"}},
        {"GetRandom": {"random": b"r" * 64, "more": 1}},
        {"GetRandom": [b"r" * 64]},
        {"DescribePCR": {"data": bytes(48)}},
        {"DescribePCR": {"data": bytes(47), "lock": True}},
        {"DescribePCR": {"data": bytes(48), "lock": 1}},
        {"DescribePCR": {"data": list(bytes(48)), "lock": True}},
        {"ExtendPCR": {"data": b""}},
        {"ExtendPCR": {"data": bytes(48), "lock": True}},
        {"LockPCR": None},
        {"LockPCRs": {}},
        {"Attestation": {"document": b""}},
        {"Attestation": {"document": b"no document"}},
        {"Attestation": {"document": bytes(12_000)}},
        {"Attestation": {"document": None}},
        {"DescribeNSM": None},
        {"DescribeNSM": {"version_major": 1}},
    ],
    ids=repr,
)
def test_every_wrong_answer_is_refused(device: str, answer: object, call: Callable[..., object]) -> None:
    _, module = emulated(device, tamper=lambda _: cbor2.dumps(answer))
    assert code_of(lambda: call(module)) == "NSM_BAD_ANSWER"


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"version_major": 2}, "NSM_VERSION"),
        ({"version_major": -1}, "NSM_BAD_ANSWER"),
        ({"version_minor": 70_000}, "NSM_BAD_ANSWER"),
        ({"module_id": ""}, "NSM_BAD_ANSWER"),
        ({"module_id": "m" * 257}, "NSM_BAD_ANSWER"),
        ({"locked_pcrs": [-1]}, "NSM_BAD_ANSWER"),
        ({"locked_pcrs": ["0"]}, "NSM_BAD_ANSWER"),
        ({"locked_pcrs": [True]}, "NSM_BAD_ANSWER"),
        ({"max_pcrs": None}, "NSM_BAD_ANSWER"),
        ({"digest": 384}, "NSM_BAD_ANSWER"),
    ],
)
def test_every_wrong_description_is_refused(device: str, change: dict[str, object], code: str) -> None:
    nsm, module = emulated(device)
    nsm.tamper = lambda _: cbor2.dumps({"DescribeNSM": nsm.description() | change})
    assert code_of(module.describe) == code


def test_a_later_minor_version_may_say_more(device: str) -> None:
    nsm, module = emulated(device)
    nsm.tamper = lambda _: cbor2.dumps({"DescribeNSM": nsm.description() | {"version_minor": 9, "more": 1}})
    assert module.describe().version == (1, 9, 0)


def test_an_answer_that_claims_more_than_the_buffer_is_refused(device: str) -> None:
    for claimed in (0x3001, 2**64 - 1, 0):

        def lie(descriptor: int, code: int, message: bytearray, claimed: int = claimed) -> int:
            message[:] = MESSAGE.pack(*MESSAGE.unpack(message)[:3], claimed)
            return 0

        assert code_of(NitroSecurityModule(device, ioctl=lie).describe) == "NSM_BAD_ANSWER"


@pytest.mark.parametrize("name", ["public_key", "user_data", "nonce"])
def test_a_document_for_somebody_else_is_refused(device: str, name: str) -> None:
    nsm, module = emulated(device)
    other = nsm.document({"public_key": None, "user_data": None, "nonce": None} | {name: b"theirs"})
    nsm.tamper = lambda _: cbor2.dumps({"Attestation": {"document": other}})
    with pytest.raises(MalformedError) as caught:
        NitroAttester(module).attest(**{name: b"mine"})
    assert caught.value.code == "NSM_WRONG_ANSWER"
    assert "theirs" not in str(caught.value)


@pytest.mark.parametrize("block", [bytes(256), b"r" * 256], ids=["zeros", "the same again"])
def test_a_module_that_repeats_itself_is_no_source_of_randomness(device: str, block: bytes) -> None:
    _, module = emulated(device, tamper=lambda _: cbor2.dumps({"GetRandom": {"random": block}}))
    assert code_of(lambda: module.random(512)) == "NSM_BAD_ANSWER"


def test_random_bytes_do_not_stay_in_the_answers_buffer(device: str) -> None:
    seen: list[int] = []
    nsm = EmulatedNsm(root(), PCRS)

    def watch(descriptor: int, code: int, message: bytearray) -> int:
        seen.append(MESSAGE.unpack(message)[2])
        status = nsm(descriptor, code, message)
        assert any(ctypes.string_at(seen[-1], 256))
        return status

    wiped: list[bytes] = []
    original = ctypes.memset

    def memset(target: object, value: int, size: int) -> object:
        found = original(target, value, size)  # type: ignore[arg-type]
        wiped.append(ctypes.string_at(seen[-1], size))
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ctypes, "memset", memset)
        NitroSecurityModule(device, ioctl=watch).random(32)
    assert [len(zeros) for zeros in wiped] == [0x3000]
    assert not any(wiped[0])
