"""Model packages: encrypted, signed, every file hashed, opened in memory only.

``package_model`` seals a folder's files, ``open_package`` streams them back into memory.
"""

from __future__ import annotations

from .files import folder_files
from .manifest import Manifest
from .open import LoadedModel, inspect_package, open_package
from .package import Packaged, package_model
from .source import Source

__all__ = [
    "LoadedModel",
    "Manifest",
    "Packaged",
    "Source",
    "folder_files",
    "inspect_package",
    "open_package",
    "package_model",
]
