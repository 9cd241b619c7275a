"""Asks a worker for the statement that a batch is whole, and keeps it once it verifies."""

from __future__ import annotations

import hmac
import logging
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal

from sqlalchemy import Connection, update

from ....broker_config.blobs import BlobStore, put_content
from ....receipts.batch_statement import peek_batch_statement, verify_batch_statement
from ....receipts.seal_request import SealAnswer, answer_key, encode_seal_request
from ....wire.encoding import sha256
from ....wire.errors import DeliveryError, Error, VerificationError
from ....wire.pack import PackReference
from ..batch_file import batch_file
from ..store import Store, batches
from ..store.batches import Batch
from ..store.models import batches as table
from .dispatch import Submits
from .messages import KEEP_BEYOND_S

LOG: Final = logging.getLogger("ephemeralml.relay")
Sealed = Literal["sealed", "waiting", "given up"]


@dataclass
class Sealing:
    """Brings whole batches to their statements.

    :param key_of: finds a worker's receipt key by pool and evidence.
    :param patience_s: seconds after which a batch stays without one. :param again_s: between two requests.
    """

    store: Store
    blobs: BlobStore
    submitter: Submits
    key_of: Callable[[str, bytes], bytes]
    patience_s: float
    again_s: float

    def step(self, batch: Batch, whole_at: float, now: float) -> Sealed:
        """Do what is next for a batch whose jobs have all ended.

        :param whole_at: since when they have. :param now: Unix seconds.
        :raises DeliveryError: store, blob store or broker cannot be used; call again.
        """
        if batch.input_root is None:
            return "given up"
        with self.store.reading() as connection:
            if batches.statement_of(connection, batch.id) is not None:
                return "sealed"
        statement = None if batch.seal_digest is None else self._answer(batch, batch.seal_digest)
        if statement is not None:
            with self.store.transaction() as connection:
                batches.keep_statement(connection, batch.id, statement, now)
            return "sealed"
        if now - whole_at > self.patience_s:
            LOG.warning("%s ends without a statement: no worker signed one", batch.name)
            return "given up"
        if batch.seal_asked_at is None or now - batch.seal_asked_at > self.again_s:
            self._ask(batch, now)
        return "waiting"

    def _ask(self, batch: Batch, now: float) -> None:
        with self.store.reading() as connection:
            try:
                file = b"".join(batch_file(connection, batch))
            except DeliveryError as error:
                LOG.error("%s cannot be sealed: %s", batch.name, error.code)
                raise
        digest = sha256(file)
        put_content(self.blobs, file, int(now + self.patience_s) + KEEP_BEYOND_S)
        self.blobs.delete(answer_key(digest))  # an answer that was refused
        self.submitter.submit(batch.pool, encode_seal_request(PackReference(digest, len(file))))
        with self.store.transaction() as connection:
            _asked(connection, batch.id, digest, now)

    def _answer(self, batch: Batch, digest: bytes) -> bytes | None:
        """Return the statement that a worker answered with; anything else is as good as no answer."""
        try:
            answer = SealAnswer.decode(self.blobs.get(answer_key(digest)))
            if not answer.statement:
                LOG.warning("%s was not sealed: %s", batch.name, answer.code)
                return None
            self._check(batch, answer.statement)
            return answer.statement
        except Error as error:
            if error.retriable:
                raise
            if error.code != "BLOB_MISSING":
                LOG.warning("a statement of %s was refused: %s", batch.name, error.code)
            return None

    def _check(self, batch: Batch, statement: bytes) -> None:
        stated = peek_batch_statement(statement)
        head = stated.head
        same = (head.batch_id, head.pool, head.count) == (batch.batch_id, batch.pool, batch.jobs)
        if not same or not hmac.compare_digest(head.input_root, batch.input_root or b""):
            raise VerificationError("STATEMENT_MISMATCH", "the statement is of another batch")
        verify_batch_statement(statement, self.key_of(batch.pool, stated.attestation_doc_hash))


def _asked(connection: Connection, batch: int, digest: bytes, now: float) -> None:
    values = {"seal_digest": digest, "seal_asked_at": now}
    connection.execute(update(table).where(table.c.id == batch).values(values))
