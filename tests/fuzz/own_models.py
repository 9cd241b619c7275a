"""Fuzz targets of model packages: whole ones that the owner signed, and safetensors headers."""

from __future__ import annotations

import io
from functools import cache

from ephemeralml.workers.models.safetensors_header import check_safetensors

from ..models.forge import forge, load, tensors
from .target import Target

FILES = {"config.json": b"{}", "model.safetensors": tensors(weight=bytes(5000), bias=b"b" * 8)}


@cache
def _packages() -> list[bytes]:
    return [forge(FILES), forge({"config.json": b"{}"})]


def _package(data: bytes) -> None:
    load(io.BytesIO(data))
    assert data in _packages(), "a package that the owner did not make opens"


TARGETS = (
    Target("model-package", _packages, _package, (b"EMLPKG1\n",)),
    Target(
        "safetensors",
        lambda: [tensors(), tensors(one=b"1" * 40, two=b"2")],
        lambda data: check_safetensors(memoryview(data)),
        (b'"dtype":"F32"', b'"shape":[', b'"data_offsets":[', b'"__metadata__":{'),
    ),
)
