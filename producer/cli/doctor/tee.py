"""``doctor``'s look at TEEs, the clock, and the hosts that collateral comes from."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Final

from ....attestation.appraise import CLOCK_SKEW_S
from ....attestation.attest.detect import DEVICES, GPU, Device, is_here
from ....attestation.attest.nsm import NitroSecurityModule
from ....attestation.confidential_space.endorsements import GOOGLE_ISSUER
from ....attestation.fetch.http import Fetched, fetch
from ....attestation.fetch.nvidia import NvidiaServices
from ....attestation.fetch.pcs import PcsService
from ....wire.errors import Error, FetchError
from .finding import Finding

# 2025-01-01: no clock that shows less is right, whatever time zone or calendar it thinks in.
EARLIEST: Final = 1_735_689_600
RTC: Final = "/sys/class/rtc/rtc0/since_epoch"
MAX_ANSWER_BYTES: Final = 1 << 20
TIMEOUT_S: Final = 5.0

Fetch = Callable[[str], Fetched]


def devices(root: str = "/") -> Iterator[Finding]:
    """Yield what the machine has of each platform's devices.

    :param root: where its file system begins.
    """
    for device in (*DEVICES, GPU):
        code = f"DEVICE_{device.platform.upper().replace('-', '_')}"
        if not is_here(device, root):
            yield Finding(code, "ok", f"not here: {device.what} ({device.fix})")
        elif device.platform == "nitro":
            yield _security_module(code, device, root)
        else:
            yield Finding(code, "ok", f"here: {device.what}")


def _security_module(code: str, device: Device, root: str) -> Finding:
    try:
        found = NitroSecurityModule(str(Path(root, device.path.lstrip("/")))).describe()
    except Error as error:
        cause = "no evidence can be made, so nobody releases a key to this machine"
        return Finding(
            code, "problem", f"here, but: {error}", cause, "run as root, in an enclave of this kernel"
        )
    version = ".".join(map(str, found.version))
    return Finding(code, "ok", f"here: {device.what}, version {version}, {found.digest}")


def clock(now: float, root: str = "/") -> Iterator[Finding]:
    """Yield what can be said of the clock without asking anybody.

    :param now: Unix seconds.
    """
    if now < EARLIEST:
        fix = "set the clock, or start a time service such as chrony"
        cause = "certificates and policies seem to begin in the future"
        yield Finding("CLOCK", "problem", "the clock shows a year before 2025", cause, fix)
        return
    try:
        rtc = int(Path(root, RTC.lstrip("/")).read_text(encoding="ascii"))
    except (OSError, ValueError):
        yield Finding("CLOCK", "ok", "the clock is plausible; there is no hardware clock to compare it with")
        return
    apart = abs(now - rtc)
    if apart > CLOCK_SKEW_S:
        seen = f"clock and hardware clock are {apart:.0f} s apart"
        fix = "check the time service; use --online to compare with hosts"
        yield Finding("CLOCK", "warning", seen, "one of them is wrong, and both may be", fix)
    else:
        yield Finding("CLOCK", "ok", "the clock agrees with the hardware clock")


def hosts() -> dict[str, str]:
    """Return the addresses that collateral is fetched from, by finding code."""
    nvidia, intel = NvidiaServices(), PcsService()
    return {
        "HOST_INTEL_PCS": f"{intel.base_url}/tdx/certification/v4/qe/identity",
        "HOST_INTEL_ROOT_CRL": intel.root_crl_url,
        "HOST_GOOGLE": f"{GOOGLE_ISSUER}/.well-known/openid-configuration",
        "HOST_NVIDIA_RIM": f"{nvidia.rim_url}/v1/rim/ids",
        "HOST_NVIDIA_OCSP": nvidia.ocsp_url,
        "HOST_NVIDIA_NRAS": f"{nvidia.nras_url}/.well-known/jwks.json",
    }


def _fetch(url: str) -> Fetched:
    return fetch(url, max_bytes=MAX_ANSWER_BYTES, timeout_s=TIMEOUT_S)


def online(
    now: float, *, ask: Fetch = _fetch, addresses: Mapping[str, str] | None = None
) -> Iterator[Finding]:
    """Yield whether each host of collateral answers, and whether the clock agrees with theirs.

    Any answer will do: nothing that it says is used, apart from its date.

    :param now: Unix seconds.
    """
    wanted = hosts() if addresses is None else addresses
    started = time.monotonic()
    with ThreadPoolExecutor(max(1, len(wanted))) as pool:
        answers = list(pool.map(lambda url: _answer(ask, url), wanted.values()))
    took = time.monotonic() - started
    apart: list[float] = []
    for (code, url), answer in zip(wanted.items(), answers, strict=True):
        host = url.split("/")[2]
        if isinstance(answer, FetchError):
            fix = "only for fresh collateral: allow HTTPS to it, or give collateral as files"
            cause = "it is down, or this machine may not reach it"
            yield Finding(code, "warning", f"{host} does not answer", cause, fix)
            continue
        yield Finding(code, "ok", f"{host} answers")
        date = _date(answer)
        if date is not None:
            apart.append(now - date)
    yield _compared(apart, took)


def _answer(ask: Fetch, url: str) -> Fetched | FetchError:
    try:
        return ask(url)
    except FetchError as error:
        return error


def _date(answer: Fetched) -> float | None:
    try:
        return parsedate_to_datetime(answer.headers.get("date", "")).timestamp()
    except (ValueError, TypeError, OverflowError):
        return None


def _compared(apart: list[float], took: float) -> Finding:
    """The median host, so that one wrong clock among theirs accuses nobody."""
    if not apart:
        cause = "none was reached"
        return Finding("CLOCK_ONLINE", "warning", "no host told its time", cause, "compare the clock by hand")
    middle = sorted(apart)[len(apart) // 2]
    seen = f"the clock is {abs(middle):.0f} s {'ahead of' if middle > 0 else 'behind'} the hosts'"
    if abs(middle) > CLOCK_SKEW_S + took:
        cause = "evidence would seem stale or from the future"
        return Finding("CLOCK_ONLINE", "problem", seen, cause, "set the clock, or start a time service")
    return Finding("CLOCK_ONLINE", "ok", seen)
