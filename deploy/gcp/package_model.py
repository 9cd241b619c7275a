#!/usr/bin/env python3
"""Packages a model under a Cloud KMS key, as its owner: `ephemeralml model package` asks AWS KMS.

    package_model.py FOLDER --id NAME --kms-key projects/… --signing-key FILE --out model.eml

EPHEMERALML_GCP_ACCESS_TOKEN is the owner's token, as `gcloud auth print-access-token` prints it. The signing
key is a seed of 32 bytes, as `ephemeralml policy keygen` makes one. Prints manifest hash and signer as JSON;
`ephemeralml model publish` puts the package into a bucket. Needs ephemeralml[gcp].
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ephemeralml.attestation.key_release.gcp import owner_data_key_gcp
from ephemeralml.attestation.key_release.gcp_settings import KMS_ENDPOINT
from ephemeralml.wire.errors import ConfigurationError, Error
from ephemeralml.wire.exit_codes import exit_code
from ephemeralml.workers.models.files import folder_files
from ephemeralml.workers.models.package import package_model


def _arguments(given: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--id", required=True)
    parser.add_argument("--model-version", default="1.0.0")
    parser.add_argument("--kms-key", required=True)
    parser.add_argument("--kms-endpoint", default=KMS_ENDPOINT)
    parser.add_argument("--signing-key", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    return parser.parse_args(given)


def _signing_key(path: Path) -> Ed25519PrivateKey:
    try:
        return Ed25519PrivateKey.from_private_bytes(path.read_bytes())
    except OSError as error:
        raise ConfigurationError("SIGNING_KEY_UNUSABLE", f"the signing key: {error.strerror}") from None
    except ValueError:
        raise ConfigurationError("SIGNING_KEY_UNUSABLE", "the signing key is not 32 bytes") from None


def package(arguments: argparse.Namespace) -> dict[str, object]:
    """Write the package; return what policy and fleet must know of it.

    :raises Error: as :func:`package_model` and :func:`owner_data_key_gcp`.
    """
    token = os.environ.get("EPHEMERALML_GCP_ACCESS_TOKEN", "")
    if not token:
        raise ConfigurationError("NO_CREDENTIALS", "EPHEMERALML_GCP_ACCESS_TOKEN is not set")
    key, files = _signing_key(arguments.signing_key), folder_files(arguments.folder)
    for name in files.left_out:
        print(f"  left out: {name}", file=sys.stderr)
    made = package_model(
        files,
        arguments.out,
        model_id=arguments.id,
        model_version=arguments.model_version,
        signing_key=key,
        data_key=lambda context: owner_data_key_gcp(
            arguments.kms_key, context, access_token=token, kms_endpoint=arguments.kms_endpoint
        ),
    )
    return {
        "model": arguments.id,
        "manifest_hash": made.manifest_hash.hex(),
        "signer": key.public_key().public_bytes_raw().hex(),
        "package": str(arguments.out),
    }


def main(given: list[str]) -> int:
    """Run the command; return the exit status."""
    try:
        print(json.dumps(package(_arguments(given))))
    except Error as error:
        print(f"error {error}", file=sys.stderr)
        return exit_code(error)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
