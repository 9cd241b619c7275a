"""A local KMS and who asks it."""

from ...key_release.conftest import attester, connect, kms, raw_client, root, start_kms

__all__ = ["attester", "connect", "kms", "raw_client", "root", "start_kms"]
