"""The receivers that docs/webhooks.md shows, taken from the page and run."""

from __future__ import annotations

import os
import re
import sys
import warnings
from collections.abc import Callable
from functools import partial
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import pytest

from ephemeralml.producer import webhooks
from ephemeralml.producer.gateway.webhooks.signing import HmacKey

from .test_webhooks import KEY, Post
from .test_webhooks import post as post  # noqa: PLC0414 - a fixture

PAGE = Path(__file__).resolve().parents[2] / "docs" / "webhooks.md"
Answer = Callable[[bytes, dict[str, str]], int]


def shown(word: str) -> str:
    """Return the one code block of the page that imports a framework."""
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    (found,) = (block for block in blocks if f"from {word} import" in block)
    return str(found)


@pytest.fixture(params=["fastapi", "flask"])
def receiver(
    request: pytest.FixtureRequest, post: Post, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Answer:
    """Run a receiver of the page; what it is sent goes to its function, and its status comes back."""
    monkeypatch.setattr(webhooks, "Receiver", partial(webhooks.Receiver, now=lambda: post.stand.now))
    post.ticket.close()  # receivers read it while nobody writes it
    post.stand.tickets.remove(post.ticket)
    path = tmp_path / "page.py"
    path.write_text(shown(request.param), "utf-8")
    spec = spec_from_file_location(f"page_{request.param}", path)
    assert spec is not None
    assert spec.loader is not None
    page = module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, page)
    spec.loader.exec_module(page)
    app = page.make_app(KEY.text, [tmp_path / "batch.ticket"], post.stand.client.trust)
    if request.param == "fastapi":
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            from starlette.testclient import TestClient

            client: Any = TestClient(app)
        return lambda body, head: int(client.post("/ephemeralml", content=body, headers=head).status_code)
    tester = app.test_client()
    return lambda body, head: int(tester.post("/ephemeralml", data=body, headers=head).status_code)


def test_the_receivers_of_the_page_take_what_is_genuine(
    post: Post, receiver: Answer, capsys: pytest.CaptureFixture[str]
) -> None:
    good = post.sent("job.completed", post.data(1))
    assert receiver(*good) == 204
    assert capsys.readouterr().out == "job.completed 2\n"
    assert receiver(*good) == 204  # it was dealt with: nothing more is done
    assert capsys.readouterr().out == ""
    assert receiver(*post.sent("batch.completed", {"x": 1}, number=2)) == 204
    assert capsys.readouterr().out == "batch.completed \n"


def test_the_receivers_of_the_page_refuse_the_rest(
    post: Post, receiver: Answer, capsys: pytest.CaptureFixture[str]
) -> None:
    data = post.data(1)
    body, head = post.sent("job.completed", data)
    wrong = [
        (body + b" ", head),
        post.sent("job.completed", data, key=HmacKey(os.urandom(32))),
        post.sent("job.completed", data, at=post.stand.now - 301),
        post.sent("job.failed", data, number=4),
        (body, {name: value for name, value in head.items() if name != "Webhook-Signature"}),
    ]
    assert [receiver(*sent) for sent in wrong] == [400] * 5
    assert capsys.readouterr().out == ""
