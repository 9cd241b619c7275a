"""The blob store: whether it answers this caller, and whether its bucket is closed to everybody else.

Settings of buckets: Amazon S3 User Guide, "Blocking public access" and "Setting default server-side
encryption"; Google Cloud documentation, "Public access prevention" and "Uniform bucket-level access".
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from ....broker_config.blobs import make_blob_store
from ....broker_config.settings import BrokerSettings
from ....wire.errors import Error
from .finding import Finding

PROBE: Final = "doctor/"
_LEAST_FREE: Final = 1 << 30
_CLOSED: Final = ("BlockPublicAcls", "IgnorePublicAcls", "BlockPublicPolicy", "RestrictPublicBuckets")
_OPEN: Final = "whoever makes one object or policy public shows ciphertext, sizes and names to everybody"
_AWS: Final = "deploy/aws/fleet.yaml sets it; or the S3 console, Permissions and Properties"
_GCP: Final = "deploy/gcp/fleet sets it; or gcloud storage buckets update"


def blob_store(settings: BrokerSettings) -> Iterator[Finding]:
    """Yield what can be said of the blob store that the settings name."""
    parts = urlsplit(settings.blob_url or "")
    try:
        store = make_blob_store(settings)
        if parts.scheme in ("s3", "gs"):  # to ask for one object does not tell a missing bucket
            next(iter(store.list(PROBE)), None)
        else:
            store.exists(PROBE + "probe")
    except Error as error:
        yield Finding(
            "BLOB_STORE",
            "problem",
            str(error),
            "announcements, keys and large jobs lie there",
            "mend EPHEMERALML_BLOB_URL, or the rights of this caller (docs/blob-store.md)",
        )
        return
    yield Finding("BLOB_STORE", "ok", f"the blob store answers: {parts.scheme or settings.profile}")
    if parts.scheme == "s3":
        from ....broker_config.blobs.s3 import bucket_client

        yield from _s3(bucket_client(settings), parts.netloc)
    elif parts.scheme == "gs":
        from ....broker_config.blobs.gcs import bucket_client as gcs_client

        yield from _gcs(gcs_client(settings), parts.netloc)
    elif parts.scheme == "file" or settings.profile == "embedded":
        yield from _folder(Path(parts.path) if parts.scheme == "file" else settings.state_dir / "blobs")


def _s3(client: Any, bucket: str) -> Iterator[Finding]:
    def public() -> bool:
        found = client.get_public_access_block(Bucket=bucket)["PublicAccessBlockConfiguration"]
        return not all(found.get(name) for name in _CLOSED)

    def plain() -> bool:
        found = client.get_bucket_encryption(Bucket=bucket)["ServerSideEncryptionConfiguration"]
        return not found["Rules"]

    def unguarded() -> bool:
        return "aws:SecureTransport" not in client.get_bucket_policy(Bucket=bucket)["Policy"]

    yield _asked("BUCKET_PUBLIC", "public access is blocked", public, _OPEN, _AWS)
    yield _asked("BUCKET_ENCRYPTION", "objects are encrypted at rest", plain, "disks hold them as sent", _AWS)
    cause = "names and sizes of blobs, and signatures of credentials, can be read on the way"
    yield _asked("BUCKET_TLS", "calls without TLS are refused", unguarded, cause, _AWS)


def _gcs(client: Any, name: str) -> Iterator[Finding]:
    def settings() -> Any:
        return client.get_bucket(name).iam_configuration

    def public() -> bool:
        return bool(settings().public_access_prevention != "enforced")

    def uneven() -> bool:
        return not settings().uniform_bucket_level_access_enabled

    yield _asked("BUCKET_PUBLIC", "public access is prevented", public, _OPEN, _GCP)
    cause = "rights may be given object by object, where no policy of the bucket shows them"
    yield _asked("BUCKET_UNIFORM", "rights are given by the bucket alone", uneven, cause, _GCP)


def _asked(code: str, good: str, wrong: Callable[[], bool], cause: str, fix: str) -> Finding:
    """Ask a bucket for a setting; one that is not there is as good as one that is off."""
    try:
        bad = wrong()
    except Exception as error:  # each library has a tree of its own
        status, name = _refusal(error)
        if status in (401, 403):
            return Finding(code, "ok", f"this caller may not look whether {good}: ask as an operator")
        if status != 404:
            seen = f"cannot see whether {good}: {name}"
            return Finding(code, "warning", seen, "the bucket's settings were not told", "ask again later")
        bad = True
    if bad:
        return Finding(code, "problem", f"not set: {good}", cause, fix)
    return Finding(code, "ok", good)


def _refusal(error: Exception) -> tuple[int, str]:
    """Return HTTP status and kind of a library's error; its text may repeat what was sent."""
    response = getattr(error, "response", None)
    about = response.get("ResponseMetadata", {}) if isinstance(response, dict) else {}
    status = about.get("HTTPStatusCode") or getattr(error, "code", 0)
    return status if isinstance(status, int) else 0, type(error).__name__


def _folder(folder: Path) -> Iterator[Finding]:
    try:
        mode, free = folder.stat().st_mode & 0o777, shutil.disk_usage(folder).free
    except OSError:
        return  # it answered: it was made and removed meanwhile
    if mode & 0o022:
        seen, cause = f"{folder} may be written by others", "they can swap and delete keys and announcements"
        yield Finding("BLOB_FOLDER", "problem", seen, cause, f"chmod go-w {folder}")
    else:
        yield Finding("BLOB_FOLDER", "ok", f"{folder} is written by its owner alone")
    if free < _LEAST_FREE:
        seen, cause = f"{free >> 20} MiB are free for blobs", "a full disk refuses submissions"
        fix = "ephemeralml blobs collect, or a larger disk"
        yield Finding("BLOB_SPACE", "warning", seen, cause, fix)
