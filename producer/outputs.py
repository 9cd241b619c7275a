"""Writes results as JSON lines, with receipts and evidence beside them for third parties."""

from __future__ import annotations

import json
import math
import os
import struct
from collections.abc import Iterable
from pathlib import Path

from ..wire.encoding import sha256
from ..wire.errors import ConfigurationError
from ..wire.job import Completion, Embedding, Output, TokenLogprob
from .judge import JobResult


def write_results(path: Path, results: Iterable[JobResult], evidence: Iterable[bytes]) -> Path:
    """Write ``path`` (JSON lines) and a folder beside it with receipts, outcomes and evidence.

    The results file is replaced in one step. Returns the folder, named like the file with
    ``.proofs``: ``<job id>.air`` (receipt), ``<job id>.outcome`` and ``<sha256>.evidence``.

    :raises ConfigurationError: ``OUTPUT_UNWRITABLE``.
    """
    folder = path.with_name(path.name + ".proofs")
    draft = path.with_name(path.name + ".part")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with draft.open("w", encoding="utf-8") as file:
            for result in results:
                file.write(json.dumps(result_line(result), ensure_ascii=False) + "\n")
                (folder / f"{result.job_id.hex()}.outcome").write_bytes(result.outcome)
                if result.receipt is not None:
                    (folder / f"{result.job_id.hex()}.air").write_bytes(result.receipt)
        for document in evidence:
            (folder / f"{sha256(document).hex()}.evidence").write_bytes(document)
        os.replace(draft, path)
    except OSError as error:
        raise ConfigurationError("OUTPUT_UNWRITABLE", f"cannot write the results: {error.strerror}") from None
    return folder


def result_line(result: JobResult) -> dict[str, object]:
    """Return one result as a JSON-ready object."""
    line: dict[str, object] = {
        "id": result.custom_id,
        "job_id": result.job_id.hex(),
        "status": result.status,
        "code": result.code,
        "assurance": result.assurance,
    }
    if result.response is not None:
        line["model"] = result.response.model
        if result.response.sampling:
            line["sampling"] = result.response.sampling
        line["outputs"] = [_output(output) for output in result.response.outputs]
    if result.receipt_key is not None:
        line["receipt_key"] = result.receipt_key.hex()
    return line


def vector_of(output: Embedding) -> tuple[float, ...]:
    """Return an embedding's numbers."""
    return struct.unpack(f"<{len(output.vector) // 4}f", output.vector)


def _output(output: Output) -> dict[str, object]:
    match output:
        case Embedding():
            return {
                "embedding": [round(number, 8) for number in vector_of(output)],
                "tokens": output.tokens,
                "truncated": output.truncated,
            }
        case Completion():
            line: dict[str, object] = {
                "text": output.text,
                "finish_reason": output.finish_reason,
                "input_tokens": output.input_tokens,
                "output_tokens": output.output_tokens,
                "seed": output.seed,
            }
            if output.logprobs is not None:
                line["logprobs"] = [_logprob(item) for item in output.logprobs]
            return line


def _logprob(item: TokenLogprob) -> dict[str, object]:
    """Return one token; its bytes stand beside the text, for not every token is whole characters."""
    top = [_token(token, logprob) for token, logprob in item.top]
    return {**_token(item.token, item.logprob), "top": top}


def _token(token: bytes, logprob: float) -> dict[str, object]:
    # JSON has no infinity: a token of no probability at all has none.
    shown = round(logprob, 6) if math.isfinite(logprob) else None
    return {"token": token.decode(errors="replace"), "bytes": list(token), "logprob": shown}
