"""AIR v1 receipts and outcome statements: issue, verify, report.

Verifying needs only bytes, a key, a policy and a time::

    >>> from ephemeralml.receipts import ReceiptPolicy, verify_receipt
    >>> verify_receipt(b"not a receipt", bytes(32), ReceiptPolicy(), 1_740_500_000).codes
    ('COSE_DECODE_FAILED',)
"""

from .checks import Check, Verification
from .claims import Claims, decode_claims, encode_claims
from .ear import AttestationResult, issue_ear, result_of, verify_ear
from .issue import issue
from .judge import judge_receipt
from .outcome import Outcome, make_outcome, peek_outcome, verify_outcome
from .policy import ReceiptPolicy
from .replay import MemoryReplayStore, ReplayStore, SqliteReplayStore
from .replay_redis import RedisReplayStore
from .report import to_json, to_markdown, to_text
from .report_html import to_html
from .vectors import VectorResult, run_vectors
from .verify import assess, verify_receipt

__all__ = [
    "AttestationResult",
    "Check",
    "Claims",
    "MemoryReplayStore",
    "Outcome",
    "ReceiptPolicy",
    "RedisReplayStore",
    "ReplayStore",
    "SqliteReplayStore",
    "VectorResult",
    "Verification",
    "assess",
    "decode_claims",
    "encode_claims",
    "issue",
    "issue_ear",
    "judge_receipt",
    "make_outcome",
    "peek_outcome",
    "result_of",
    "run_vectors",
    "to_html",
    "to_json",
    "to_markdown",
    "to_text",
    "verify_ear",
    "verify_outcome",
    "verify_receipt",
]
