"""What the pages say works: every curl line of docs/gateway.md runs, and the grammar takes what we send."""

from __future__ import annotations

import os
import re
import subprocess
import time
from pathlib import Path

import pycddl
import pytest

from ephemeralml.producer.gateway.store import Store, batches
from ephemeralml.producer.gateway.upload.split import CborSplitter

from .conftest import Site
from .process import Process
from .test_process import make_key, sealed
from .uploads import SealedBatch, answer, number_of

ROOT = Path(__file__).resolve().parents[2]
DOC = (ROOT / "docs" / "gateway.md").read_text(encoding="utf-8")
GRAMMAR = (ROOT / "spec" / "gateway.cddl").read_text(encoding="utf-8")
SECTIONS = dict(re.findall(r"^### (.+?)\n(.*?)(?=^##)", DOC, re.MULTILINE | re.DOTALL))


def commands(section: str) -> list[str]:
    """Return the shell lines of a section, continued lines as one."""
    blocks = re.findall(r"```sh\n(.*?)```", SECTIONS[section], re.DOTALL)
    joined = "\n".join(blocks).replace("\\\n", " ")
    return [line for line in joined.splitlines() if line.startswith("api ")]


def shell(line: str, folder: Path, environment: dict[str, str]) -> str:
    """Run a line as a user would who has typed the first block of the page."""
    (alias,) = re.findall(r"^alias (api)='(.*)'$", DOC, re.MULTILINE)
    script = f'{alias[0]}() {{ {alias[1]} "$@"; }}\n{line}'
    done = subprocess.run(
        ["bash", "-euc", script], cwd=folder, env=os.environ | environment, capture_output=True, text=True,
        check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, (line, done.stdout, done.stderr)
    return done.stdout


def test_lines_of_the_page_work(sqlite_template: Path, tmp_path: Path) -> None:
    path = tmp_path / "gateway.db"
    path.write_bytes(sqlite_template.read_bytes())
    store = Store(f"sqlite:///{path}")
    lined, batch = sealed(store, 3), sealed(store, 4, input_root=bytes(32))
    (tmp_path / "batch.cborseq").write_bytes(batch.cbor())
    (tmp_path / "batch.ndjson").write_bytes(lined.ndjson())
    with Process(tmp_path, f"sqlite:///{path}") as gateway:
        environment = {"URL": gateway.url, "KEY": make_key(store), "BATCH": batch.name}
        for line in commands("Before you seal"):
            shell(line, tmp_path, environment)
        sent = [shell(line, tmp_path, environment) for line in commands("Send a batch")]
        assert [name in text for name, text in zip((batch.name, lined.name), sent, strict=True)] == [True] * 2
        answer(store, batch, [2, 0, 1, 3])
        finish(store, batch)
        watch = commands("Watch, fetch, cancel")
        for line in watch[:-1]:
            shell(line, tmp_path, environment)
        shell(watch[-1], tmp_path, environment | {"BATCH": lined.name})
        assert len((tmp_path / "results.ndjson").read_text().splitlines()) == 4
        proof = commands("Proof")
        for line in proof:
            shell(line, tmp_path, environment)
        assert (tmp_path / "batch.cose").read_bytes() == b"statement"
        assert len((tmp_path / "batch.outcomes").read_bytes()) > 4 * 200
    store.close()


def finish(store: Store, batch: SealedBatch) -> None:
    """Do what a relay does at a batch's end."""
    with store.transaction() as connection:
        number = number_of(store, batch)
        batches.keep_statement(connection, number, b"statement", time.time())
        assert batches.move(connection, number, "completed", time.time())


@pytest.mark.parametrize(
    ("rule", "wanted"), [("upload-head", 1), ("upload-item", 4), ("result-item", 1), ("outcome-item", 3)]
)
def test_grammar_takes_what_is_sent(lite: Site, rule: str, wanted: int) -> None:
    named, plain = lite.batch(3, metadata={"a": "b"}, input_root=bytes(32)), lite.batch(3, named=False)
    lite.upload(named)
    answer(lite.store, named, [0, 2, 1])
    streams = {
        "upload-head": b"".join([named.items()[0]]),
        "upload-item": b"".join(named.items()[1:] + plain.items()[1:]),
    }
    accept = lite.auth() | {"Accept": "application/cbor-seq"}
    for kind in ("result", "outcome"):
        body = lite.client.get(f"/v1/batches/{named.name}/{kind}s", headers=accept).content
        streams[f"{kind}-item"] = body
    items = list(CborSplitter().feed(streams[rule]))
    assert len(items) == wanted
    # The first rule of a grammar is its root.
    schema = pycddl.Schema(f"root = {rule}\n{GRAMMAR}")
    for item in items:
        schema.validate_cbor(item)
    for other, stream in streams.items():
        if other != rule:
            with pytest.raises(pycddl.ValidationError):
                schema.validate_cbor(next(CborSplitter().feed(stream)))


def test_page_names_every_setting() -> None:
    from ephemeralml.producer.gateway.settings import GatewaySettings

    for name in GatewaySettings.model_fields:
        assert f"`{name.upper()}`" in DOC, name
