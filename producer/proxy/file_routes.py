"""Routes of files and batches."""

from __future__ import annotations

from fastapi import FastAPI

from .service import Service
from .stores import Stores


def add_file_routes(app: FastAPI, service: Service, stores: Stores) -> None:
    """Add the routes."""
