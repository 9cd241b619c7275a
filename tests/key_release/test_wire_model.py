"""What goes on the wire is held to botocore's own model of KMS, lengths and enumerations included."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from botocore.loaders import create_loader
from botocore.model import ServiceModel, Shape
from botocore.validate import ParamValidator

from ephemeralml.attestation.key_release.aws import AwsKms
from ephemeralml.attestation.simulated import SimulatedAttester
from ephemeralml.wire.errors import KeyReleaseError

from .conftest import CONTEXT, WORKER

MODEL = ServiceModel(create_loader().load_service_model("kms", "service-2"))


def decoded(shape: Shape, value: Any, where: str = "") -> Any:
    """Turn JSON into what the model's validator takes, and hold it to what that validator leaves out."""
    if shape.type_name == "structure":
        unknown = value.keys() - shape.members.keys()  # type: ignore[attr-defined]
        assert not unknown, f"{where}: not in the model: {unknown}"
        return {
            name: decoded(shape.members[name], item, f"{where}.{name}")  # type: ignore[attr-defined]
            for name, item in value.items()
        }
    if shape.type_name == "map":
        return {
            decoded(shape.key, name, where): decoded(shape.value, item, where)  # type: ignore[attr-defined]
            for name, item in value.items()
        }
    if shape.type_name == "blob":
        value = base64.b64decode(value, validate=True)
    bounds = shape.metadata
    size = value if shape.type_name == "integer" else len(value) if isinstance(value, (str, bytes)) else None
    if size is not None:
        assert bounds.get("min", 0) <= size <= bounds.get("max", size), f"{where}: out of bounds"
    if bounds.get("enum"):
        assert value in bounds["enum"], f"{where}: not one of the model's"
    return value


class Recorded(Exception):
    """Stops a request before it is sent."""


@pytest.mark.parametrize("operation", ["GenerateDataKey", "Decrypt"])
def test_requests_follow_the_model(attester: SimulatedAttester, operation: str) -> None:
    sent: list[Any] = []

    def before_send(request: Any, **_: object) -> None:
        sent.append(request)
        raise Recorded

    worker = AwsKms(
        attester,
        "alias/fleet",
        region="eu-central-1",
        access_key_id=WORKER.access_key_id,
        secret_access_key=WORKER.secret_access_key,
        session_token="session-token",
    )
    worker._client.meta.events.register("before-send.kms", before_send)
    with pytest.raises(KeyReleaseError):
        worker.generate_data_key(CONTEXT) if operation == "GenerateDataKey" else worker.decrypt(
            b"w" * 6144, CONTEXT
        )
    worker.close()
    (request,) = sent
    shape = MODEL.operation_model(operation).input_shape
    assert shape is not None
    values = decoded(shape, json.loads(request.body))
    report = ParamValidator().validate(values, shape)
    assert not report.has_errors(), report.generate_report()
    assert values["Recipient"]["KeyEncryptionAlgorithm"] == "RSAES_OAEP_SHA_256"
    assert values["EncryptionContext"] == CONTEXT
    assert "KeySpec" not in values  # AWS takes one of both
    assert request.method == "POST"
    assert request.url == "https://kms.eu-central-1.amazonaws.com/"
    headers = {name.lower(): value for name, value in request.headers.items()}
    target = headers["x-amz-target"]
    assert (target if isinstance(target, str) else target.decode()) == f"TrentService.{operation}"
    assert "x-amz-security-token" in headers


@pytest.mark.parametrize(
    ("operation", "body"),
    [
        ("Decrypt", {"CiphertextBlob": base64.b64encode(b"x" * 6145).decode()}),
        ("Decrypt", {"CiphertextBlob": ""}),
        ("GenerateDataKey", {"KeyId": "alias/fleet", "NumberOfBytes": 1025}),
        ("GenerateDataKey", {"KeyId": "", "NumberOfBytes": 32}),
        ("GenerateDataKey", {"KeyId": "k", "Recipient": {"KeyEncryptionAlgorithm": "RSAES_OAEP_SHA_1"}}),
        ("GenerateDataKey", {"KeyId": "k", "Nonce": "x"}),
    ],
)
def test_the_check_can_fail(operation: str, body: dict[str, Any]) -> None:
    shape = MODEL.operation_model(operation).input_shape
    assert shape is not None
    with pytest.raises(AssertionError):
        decoded(shape, body)
