"""Reads Terraform as far as our modules use it: blocks, strings, variables, locals."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import hcl2

HERE: Final = Path(__file__).resolve().parents[3] / "deploy" / "gcp"
_TERNARY: Final = re.compile(r'\$\{var\.(\w+) \? "(.*?)" : "(.*?)"\}')
_WHOLE: Final = re.compile(r"\$\{(jsonencode\()?(var|local)\.(\w+)\)?\}")


def _clean(value: Any) -> Any:
    """Take away the quotes and marks that the parser keeps."""
    if isinstance(value, str):
        return value[1:-1] if len(value) > 1 and value[0] == value[-1] == '"' else value
    if isinstance(value, list):
        return [_clean(one) for one in value]
    if isinstance(value, dict):
        kept = {key: one for key, one in value.items() if key not in ("__is_block__", "__comments__")}
        return {_clean(key): _clean(one) for key, one in kept.items()}
    return value


class Module:
    """A folder of Terraform files."""

    def __init__(self, name: str) -> None:
        self.blocks: dict[str, list[Any]] = {}
        for file in sorted((HERE / name).glob("*.tf")):
            with file.open(encoding="utf-8") as opened:
                for kind, several in _clean(hcl2.load(opened)).items():
                    self.blocks.setdefault(kind, []).extend(several)
        self.text = "".join(file.read_text("utf-8") for file in sorted((HERE / name).glob("*.tf")))

    def resources(self) -> Iterator[tuple[str, str, dict[str, Any]]]:
        """Yield kind, name and body of every resource."""
        for block in self.blocks["resource"]:
            for kind, named in block.items():
                for name, body in named.items():
                    yield kind, name, body

    def resource(self, kind: str, name: str) -> dict[str, Any]:
        """Return one resource's body."""
        (found,) = [body for one, other, body in self.resources() if (one, other) == (kind, name)]
        return found

    def variables(self) -> dict[str, dict[str, Any]]:
        """Return the variables by name."""
        return {name: body for block in self.blocks["variable"] for name, body in block.items()}

    def locals(self) -> dict[str, Any]:
        """Return the local values, not put in yet."""
        return {name: value for block in self.blocks["locals"] for name, value in block.items()}

    def render(self, text: str, values: Mapping[str, Any]) -> str:
        """Return a string with variables and locals put in.

        :raises AssertionError: a function that is not known here, or a variable without a value.
        """
        known = self.locals()

        def choose(match: re.Match[str]) -> str:
            return match[2] if values[match[1]] else match[3]

        def put(match: re.Match[str]) -> str:
            if match[2] == "local":
                return self.render(known[match[3]], values)
            value = values[match[3]]
            return json.dumps(value) if match[1] else str(value)

        text = _WHOLE.sub(put, _TERNARY.sub(choose, text))
        assert "${" not in text, f"not understood: {text}"
        return text
