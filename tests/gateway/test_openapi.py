"""The OpenAPI document is true: every answer of every route is one that it describes."""

from __future__ import annotations

import json
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from schemathesis.checks import not_a_server_error
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from .conftest import Site
from .uploads import answer

STEPS = 4
METHODS = {"get", "post", "patch", "delete"}


Case = schemathesis.Case[Any]
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
    response_headers_conformance,
]


@schemathesis.serializer("application/cbor-seq", "application/x-ndjson")
def as_it_is(_: object, value: object) -> bytes:
    """Bodies are streams; what is drawn for one is sent as its bytes."""
    return value if isinstance(value, bytes) else str(value).encode("utf-8", "replace")


def both_ways(operation: Any) -> st.SearchStrategy[Case]:
    """Return requests that keep to the document, and such as do not."""
    good, bad = (operation.as_strategy(generation_mode=mode) for mode in schemathesis.GenerationMode)
    found: st.SearchStrategy[Case] = good | bad
    return found


def operations(site: Site) -> list[tuple[str, str]]:
    """Return method and path of every operation."""
    paths = site.client.get("/openapi.json").json()["paths"]
    return [(method, path) for path, item in paths.items() for method in item]


def test_document_is_openapi_3_1(lite: Site) -> None:
    document = lite.client.get("/openapi.json").json()
    assert document["openapi"].startswith("3.1")
    for schema in document["components"]["schemas"].values():
        Draft202012Validator.check_schema(schema)
    for method, path in operations(lite):
        assert method in METHODS
        operation = document["paths"][path][method]
        assert operation["summary"]
        assert operation["description"].endswith(".") or "`" in operation["description"]
        if path.startswith("/v1/"):
            assert operation["security"]
            problems = {"401", "403", "429", "503"}
            assert problems <= operation["responses"].keys()
            for status in problems:
                assert "application/problem+json" in operation["responses"][status]["content"]
    assert "HTTPValidationError" not in json.dumps(document)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
def test_answers_are_as_described(lite: Site) -> None:
    """Drawn requests, good and bad, against a store with a batch in it: no fault, no undescribed answer."""
    batch = lite.batch(3, input_root=bytes(32))
    name = lite.upload(batch)
    answer(lite.store, batch, [2, 0])
    schema = schemathesis.openapi.from_asgi("/openapi.json", lite.client.app)
    tried = 0
    for result in schema.get_all_operations():
        assert isinstance(result, Ok)
        operation = result.ok()

        @settings(
            max_examples=STEPS,
            deadline=None,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(case=both_ways(operation))
        def check(case: Case) -> None:
            if "name" in case.path_parameters and len(case.path_parameters["name"]) == len(name):
                case.path_parameters["name"] = name
            if isinstance(case.query.get("wait"), float):
                case.query["wait"] = 0  # nothing will come
            answered = case.call(headers=lite.auth())
            case.validate_response(answered, checks=CHECKS)

        check()
        tried += 1
    assert tried == len(operations(lite))
