"""The worker's platform settings: attesters, companions, collateral, and who releases its keys."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ephemeralml.attestation.simulated import DevelopmentRoot
from ephemeralml.wire.errors import ConfigurationError
from ephemeralml.workers.attesters import make_attester
from ephemeralml.workers.release import make_release
from ephemeralml.workers.settings import WorkerSettings

PROVIDER = "projects/1/locations/global/workloadIdentityPools/pool/providers/provider"
KEY = "projects/p/locations/global/keyRings/r/cryptoKeys/k"


def settings(tmp_path: Path, **values: Any) -> WorkerSettings:
    given: dict[str, Any] = {
        "pool": "minilm",
        "policy": tmp_path / "policy.json",
        "model": tmp_path / "model",
        "model_signer": "0" * 64,
    }
    return WorkerSettings(**(given | values))


@pytest.fixture
def simulated(tmp_path: Path) -> dict[str, Any]:
    DevelopmentRoot.create().save(tmp_path / "root")
    return {"simulated_root": tmp_path / "root"}


def refusal(settings: WorkerSettings) -> str:
    with pytest.raises(ConfigurationError) as caught:
        make_attester(settings).attest(public_key=bytes(32))
    return caught.value.code


@pytest.mark.parametrize(
    ("values", "code"),
    [
        ({}, "SIMULATED_ROOT_MISSING"),
        ({"platform": "nitro"}, "NO_NSM"),
        ({"platform": "tdx"}, "NO_TSM"),
    ],
)
def test_a_machine_that_is_not_the_platform_is_told(
    tmp_path: Path, values: dict[str, Any], code: str
) -> None:
    assert refusal(settings(tmp_path, **values)) == code


@pytest.mark.parametrize(
    ("values", "code"),
    [
        ({"gpu": True}, "NO_GPU"),
        ({"launcher_audience": "someone", "launcher_socket": "/nowhere"}, "NO_LAUNCHER"),
    ],
)
def test_a_companion_that_is_not_there_fails_the_whole(
    tmp_path: Path, simulated: dict[str, Any], values: dict[str, Any], code: str
) -> None:
    """A worker never announces less than its settings say."""
    maker = make_attester(settings(tmp_path, **simulated, **values))
    with pytest.raises(ConfigurationError) as caught:
        maker.bundle(public_key=bytes(32), user_data=bytes(32))
    assert caught.value.code == code


def test_collateral_travels_along_and_is_read_anew(tmp_path: Path, simulated: dict[str, Any]) -> None:
    folder = tmp_path / "collateral"
    (folder / "tdx").mkdir(parents=True)
    (folder / "other").mkdir()
    (folder / "other" / "file").write_bytes(b"not a platform's")
    maker = make_attester(settings(tmp_path, **simulated, collateral=folder))
    assert maker.bundle(public_key=bytes(32), user_data=bytes(32)).collateral == ()
    (folder / "tdx" / "collateral.json").write_bytes(b"{}")
    (file,) = maker.bundle(public_key=bytes(32), user_data=bytes(32)).collateral
    assert (file.platform, file.name, file.data) == ("tdx", "collateral.json", b"{}")
    for number in range(70):
        (folder / "tdx" / str(number)).write_bytes(b"")
    with pytest.raises(ConfigurationError, match="COLLATERAL_TOO_LARGE"):
        maker.bundle(public_key=bytes(32), user_data=bytes(32))


def test_key_release_fits_the_platform(tmp_path: Path, simulated: dict[str, Any]) -> None:
    maker = make_attester(settings(tmp_path, **simulated))

    def code(key: str, **values: Any) -> str:
        with pytest.raises(ConfigurationError) as caught:
            make_release(settings(tmp_path, **simulated, **values), maker, key, None)
        return caught.value.code

    assert code("alias/k", platform="tdx") == "KMS_PLATFORM"
    assert code(KEY, kms="gcp") == "BAD_KMS_SETTINGS"
    assert code("alias/k", kms="gcp", gcp_provider=PROVIDER) == "BAD_KMS_SETTINGS"
    assert code(KEY, kms="gcp", gcp_provider=PROVIDER, kms_ca_bundle=tmp_path / "none") == "CA_UNREADABLE"
    audience = f"//iam.googleapis.com/{PROVIDER}"
    reused = {"gcp_token_audience": audience, "launcher_audience": audience}
    assert code(KEY, kms="gcp", gcp_provider=PROVIDER, **reused) == "AUDIENCE_REUSED"
    for values in ({}, {"kms": "gcp", "gcp_provider": PROVIDER}):
        make_release(settings(tmp_path, **simulated, **values), maker, KEY, None).close()
