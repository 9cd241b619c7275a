"""The examples in the packages' docstrings run."""

from __future__ import annotations

import doctest
import importlib

import pytest

PACKAGES = ("wire", "broker_config", "attestation", "receipts", "producer", "workers")


@pytest.mark.parametrize("name", PACKAGES)
def test_the_front_page_of_a_package_runs(name: str) -> None:
    result = doctest.testmod(importlib.import_module(f"ephemeralml.{name}"))
    assert result.attempted >= 2
    assert result.failed == 0
