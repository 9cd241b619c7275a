"""Messages of the broker, as the relay makes and reads them."""

from __future__ import annotations

from typing import Final

from ....broker_config.blobs import BlobStore, get_content, put_content
from ....wire.encoding import sha256
from ....wire.errors import MalformedError
from ....wire.pack import PackReference, SealedReply, decode_message, decode_replies, encode_message

#: A pack of replies is at most so large: what a worker's largest pack of jobs could be answered with.
MAX_REPLIES_BYTES: Final = 64 << 20


#: Seconds beyond a batch's time for which its packs are kept: workers still sign that jobs have expired.
KEEP_BEYOND_S: Final = 86_400


def job_message(blobs: BlobStore, pack: bytes, inline_limit: int, needed_until: float) -> bytes:
    """Return a message for a pack; a large pack goes to the blob store first, to be collected a day after.

    :param needed_until: when its batch's time is up, Unix seconds.
    :raises DeliveryError: the blob store cannot be reached.
    """
    if len(pack) <= inline_limit:
        return encode_message(pack)
    put_content(blobs, pack, int(needed_until) + KEEP_BEYOND_S)
    return encode_message(PackReference(sha256(pack), len(pack)))


def read_replies(blobs: BlobStore, body: bytes) -> tuple[str, tuple[SealedReply, ...]]:
    """Return pool and replies of a message.

    :raises MalformedError: :raises VerificationError: it is not one of ours.
    :raises DeliveryError: the blob is missing, or the store cannot be reached.
    """
    if len(body) > MAX_REPLIES_BYTES:
        raise MalformedError("MESSAGE_TOO_LARGE", "a message of replies is too large")
    message = decode_message(body)
    if isinstance(message, PackReference):
        message = get_content(blobs, message.digest.hex())
    return decode_replies(message)
