"""Engines from elsewhere: entry points of the group ``ephemeralml.engines``.

Closed by default: only plug-ins that a setting names are loaded, and nothing else of the group is
even imported. A plug-in runs inside the TEE with the jobs' plaintext; so the setting and the
plug-in itself belong into the measured image (docs/engine-plugin.md).
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Final

from ...wire.errors import ConfigurationError, Error
from .base import Engine
from .files import ModelFiles
from .generate import GenerateEngine

GROUP: Final = "ephemeralml.engines"
AnyEngine = Engine | GenerateEngine
Maker = Callable[..., AnyEngine]


def load_plugin(
    name: str,
    files: ModelFiles,
    *,
    allowed: Collection[str],
    precision: str = "auto",
    threads: int | None = None,
    found: Collection[EntryPoint] | None = None,
) -> AnyEngine:
    """Load a model into a plug-in's engine.

    The entry point names a callable ``(files, *, precision, threads)`` that returns an
    :class:`.base.Engine` or a :class:`.generate.GenerateEngine`.

    :param allowed: names that may be loaded. :param found: entry points; those installed by default.
    :raises ConfigurationError: ``ENGINE_UNKNOWN``, ``ENGINE_PLUGIN_NOT_ALLOWED``, ``ENGINE_PLUGIN_TWICE`` or
        ``ENGINE_PLUGIN_BROKEN``. :raises Error: whatever of ours the plug-in raises.
    """
    if name not in allowed:
        raise ConfigurationError(
            "ENGINE_PLUGIN_NOT_ALLOWED",
            "the backend is no built-in one, and no plug-in that the settings allow",
        )
    installed = entry_points(group=GROUP) if found is None else found
    matching = [point for point in installed if point.name == name]
    if not matching:
        raise ConfigurationError("ENGINE_UNKNOWN", f"no plug-in of the group {GROUP} has the backend's name")
    if len(matching) > 1:
        raise ConfigurationError("ENGINE_PLUGIN_TWICE", "two installed packages offer a plug-in of this name")
    try:
        maker: Maker = matching[0].load()
        engine: Any = maker(files, precision=precision, threads=threads)
    except Error:
        raise
    except Exception as error:  # its text may hold anything
        kind = type(error).__name__
        raise ConfigurationError(
            "ENGINE_PLUGIN_BROKEN", f"the plug-in failed with an unexpected {kind}"
        ) from None
    if not isinstance(engine, (Engine, GenerateEngine)):
        raise ConfigurationError("ENGINE_PLUGIN_BROKEN", "what the plug-in made is no engine")
    if engine.backend != name:
        raise ConfigurationError("ENGINE_PLUGIN_BROKEN", "the plug-in's engine names another backend")
    return engine
