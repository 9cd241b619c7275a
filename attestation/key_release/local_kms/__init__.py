"""A KMS for one machine: AWS KMS's JSON protocol, keys released only against attestation.

It is the default of the embedded profile and the counterpart of :mod:`..aws` in tests:
real boto3, real signatures, real CMS. It keeps its master keys in a file; a production
deployment uses AWS KMS.

>>> import tempfile, pathlib
>>> from ephemeralml.attestation.key_release.local_kms import (
...     LocalKms, LocalKmsConfig, Principal, development_policies)
>>> folder = tempfile.TemporaryDirectory()
>>> config = LocalKmsConfig(
...     directory=pathlib.Path(folder.name),
...     roots=(bytes(32),),
...     policies=development_policies(image_sha384=["ab" * 48]),
...     principals={"worker": Principal("worker", "AKIAWORKER", "secret")},
... )
>>> with LocalKms(config) as kms:
...     kms.endpoint.startswith("http://127.0.0.1:")
True
>>> folder.cleanup()
"""

from __future__ import annotations

from .config import LocalKmsConfig, Principal
from .policy import development_policies
from .server import LocalKms, serve

__all__ = ["LocalKms", "LocalKmsConfig", "Principal", "development_policies", "serve"]
