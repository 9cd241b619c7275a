"""``python -m ephemeralml.workers``: one worker, without importing the client's commands."""

import typer

from .cli import worker

if __name__ == "__main__":
    typer.run(worker)
