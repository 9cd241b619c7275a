"""Serves the console: a page that runs in the user's browser and asks this API with the user's key.

The page is static files; the routes need no key because they say nothing of anybody.
Names are looked up in a table that was read at start, so no path of a request ever
reaches the file system.
"""

from __future__ import annotations

from pathlib import Path
from types import MappingProxyType
from typing import Final, NamedTuple

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse

from ....wire.encoding import sha256
from .problems import Refusal

FOLDER: Final = Path(__file__).resolve().parents[2] / "console"
MEDIA_TYPES: Final = MappingProxyType(
    {
        ".html": "text/html; charset=utf-8",
        ".css": "text/css; charset=utf-8",
        ".js": "text/javascript; charset=utf-8",
        ".svg": "image/svg+xml",
    }
)
#: Nothing from elsewhere, no inline code, no frame around the page, and no text that is taken for markup
#: (Content Security Policy level 3; Trusted Types).
POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'"
)
HEADERS: Final = MappingProxyType(
    {
        "Content-Security-Policy": POLICY,
        "Referrer-Policy": "no-referrer",
        "X-Content-Type-Options": "nosniff",
        "X-Frame-Options": "DENY",
        "Cross-Origin-Opener-Policy": "same-origin",
        "Cross-Origin-Resource-Policy": "same-origin",
        "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
        "Cache-Control": "no-cache",
    }
)


class Asset(NamedTuple):
    """A file of the page. ``tag`` is its entity tag (RFC 9110, section 8.8.3)."""

    data: bytes
    media_type: str
    tag: str


def load(folder: Path = FOLDER) -> dict[str, Asset]:
    """Read the page's files, by name; anything of another kind is left out."""
    found = {}
    for path in sorted(folder.iterdir()):
        if path.suffix in MEDIA_TYPES:
            data = path.read_bytes()
            found[path.name] = Asset(data, MEDIA_TYPES[path.suffix], f'"{sha256(data).hex()[:32]}"')
    return found


router: Final = APIRouter(include_in_schema=False)
_ASSETS: Final = load()


@router.get("/console")
async def console() -> Response:
    """Lead to the page; relative, because a proxy in front may have moved it."""
    return RedirectResponse("console/", 308, dict(HEADERS))


@router.get("/console/")
async def page(request: Request) -> Response:
    """Serve the page."""
    return _answer(request, "index.html")


@router.get("/console/{name}")
async def asset(request: Request, name: str) -> Response:
    """Serve a file that the page is made of."""
    return _answer(request, name)


def _answer(request: Request, name: str) -> Response:
    found = _ASSETS.get(name)
    if found is None:
        raise Refusal("NOT_FOUND", "there is nothing here", headers=dict(HEADERS))
    headers = {**HEADERS, "ETag": found.tag}
    if request.headers.get("if-none-match") == found.tag:
        return Response(status_code=304, headers=headers)
    return Response(found.data, headers=headers | {"Content-Type": found.media_type})
