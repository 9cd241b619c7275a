"""Reads CloudFormation as CloudFormation does, as far as our templates use it."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import yaml

HERE: Final = Path(__file__).resolve().parents[3] / "deploy" / "aws"
PSEUDO: Final = {
    "AWS::Region": "eu-central-1",
    "AWS::AccountId": "111122223333",
    "AWS::Partition": "aws",
}


class _Loader(yaml.SafeLoader):
    """YAML with CloudFormation's short forms of functions."""


def _short(loader: _Loader, suffix: str, node: yaml.Node) -> dict[str, Any]:
    name = suffix if suffix in ("Ref", "Condition") else f"Fn::{suffix}"
    if isinstance(node, yaml.ScalarNode):
        value: Any = loader.construct_scalar(node)
        return {name: value.split(".", 1) if suffix == "GetAtt" else value}
    assert isinstance(node, yaml.SequenceNode)
    return {name: loader.construct_sequence(node, deep=True)}


_Loader.add_multi_constructor("!", _short)


def template(name: str) -> dict[str, Any]:
    """Return a template of ``deploy/aws``."""
    loaded = yaml.load((HERE / name).read_text("utf-8"), _Loader)  # noqa: S506 - a SafeLoader
    assert isinstance(loaded, dict)
    return loaded


_GONE: Final = object()


class Rendered:
    """A template with parameters put in: conditions decided, functions applied."""

    def __init__(self, name: str, parameters: Mapping[str, str]) -> None:
        self.template = template(name)
        defaults = {key: one.get("Default") for key, one in self.template["Parameters"].items()}
        self.values: dict[str, Any] = {**PSEUDO, **defaults, **parameters}
        missing = [key for key, value in self.values.items() if value is None]
        assert not missing, f"parameters without a value: {missing}"

    def properties(self, resource: str) -> dict[str, Any]:
        """Return a resource's properties."""
        found = self.of(self.template["Resources"][resource].get("Properties", {}))
        assert isinstance(found, dict)
        return found

    def of(self, value: Any) -> Any:
        """Return a value with all functions applied."""
        if isinstance(value, list):
            return [one for one in map(self.of, value) if one is not _GONE]
        if not isinstance(value, dict):
            return value
        if len(value) == 1:
            (name, argument) = next(iter(value.items()))
            if name == "Ref":
                return _GONE if argument == "AWS::NoValue" else self.values.get(argument, f"<{argument}>")
            if name.startswith("Fn::"):
                return self._apply(name[4:], argument)
        rendered = {key: self.of(one) for key, one in value.items()}
        return {key: one for key, one in rendered.items() if one is not _GONE}

    def _apply(self, function: str, argument: Any) -> Any:
        match function:
            case "Sub":
                return self._sub(argument)
            case "GetAtt":
                return "<" + ".".join(argument) + ">"
            case "If":
                return self.of(argument[1 if self.holds(argument[0]) else 2])
            case "Base64":
                return self.of(argument)
            case _:
                raise AssertionError(f"a function that is not known here: {function}")

    def _sub(self, text: str) -> str:
        head, *rest = text.split("${")
        for part in rest:
            name, _, tail = part.partition("}")
            head += str(self.values.get(name, f"<{name}>")) + tail
        return head

    def holds(self, name: str) -> bool:
        """Return whether a condition holds."""
        return self._decide(self.template["Conditions"][name])

    def _decide(self, condition: Mapping[str, Any]) -> bool:
        (function, argument) = next(iter(condition.items()))
        if function == "Fn::Not":
            return not self._decide(argument[0])
        if function == "Fn::Equals":
            return bool(self.of(argument[0]) == self.of(argument[1]))
        raise AssertionError(f"a condition that is not known here: {function}")


def script(name: str) -> ModuleType:
    """Return a script of ``deploy/aws`` as a module; it is no part of the package."""
    spec = importlib.util.spec_from_file_location(Path(name).stem, HERE / name)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
