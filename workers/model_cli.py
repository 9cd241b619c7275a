"""The model owner's commands: ``model package``, ``inspect``, ``verify`` and ``publish``."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ..wire.errors import ConfigurationError, Error, ModelError
from ..wire.exit_codes import NOT_JUDGED, UNSOUND, exit_code
from .cli import one_line_errors

if TYPE_CHECKING:
    from ..attestation.key_release.aws_settings import AwsSettings
    from .models.stores.base import StoreSettings

model_app = typer.Typer(help="Package models: encrypted, signed, every file hashed.", no_args_is_help=True)


@model_app.command("package")
def package(
    source: Annotated[Path, typer.Argument(help="Folder of a sentence-transformers model.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Package file to write.")],
    model_id: Annotated[str, typer.Option("--id", help="Model id that clients name.")],
    to: Annotated[str | None, typer.Option("--to", help="Publish to file:///…, s3:// or gs://.")] = None,
    version: Annotated[str, typer.Option("--version", help="Model version.")] = "1.0.0",
    signing_key: Annotated[
        Path, typer.Option("--signing-key", help="Owner's Ed25519 seed (32 bytes); made when missing.")
    ] = Path("model-owner.key"),
    kms_endpoint: Annotated[
        str | None, typer.Option(envvar="EPHEMERALML_OWNER_KMS_ENDPOINT", help="KMS address; default AWS.")
    ] = None,
    kms_key: Annotated[str, typer.Option(help="KMS key that wraps the model key.")] = "alias/model",
    region: Annotated[str, typer.Option(help="AWS region.")] = "us-east-1",
) -> None:
    """Encrypt and sign a model; prints its manifest hash and signer as JSON.

    The model key is asked from the KMS as its owner; the owner's credentials come from
    EPHEMERALML_OWNER_KMS_ACCESS_KEY_ID and _SECRET_ACCESS_KEY, or the usual AWS places.
    """
    with one_line_errors():
        from ..attestation.key_release.aws import owner_data_key
        from .models.files import folder_files
        from .models.package import package_model

        key = _signing_key(signing_key)
        signer = key.public_key().public_bytes_raw()
        files = folder_files(source)
        for name in files.left_out:
            print(f"  left out: {name}", file=sys.stderr)
        result = package_model(
            files,
            out,
            model_id=model_id,
            model_version=version,
            signing_key=key,
            data_key=lambda context: owner_data_key(
                kms_key,
                context,
                endpoint_url=kms_endpoint,
                region=region,
                access_key_id=os.environ.get("EPHEMERALML_OWNER_KMS_ACCESS_KEY_ID"),
                secret_access_key=os.environ.get("EPHEMERALML_OWNER_KMS_SECRET_ACCESS_KEY"),
            ),
            progress=lambda name, size: print(f"  {name} {size} bytes", file=sys.stderr),
        )
        url = None
        if to is not None:
            from .models.publish import publish_package

            url = publish_package(out, to, trusted_signers=(signer,), settings=_stores()).url
    print(
        json.dumps(
            {
                "model": model_id,
                "version": version,
                "manifest_hash": result.manifest_hash.hex(),
                "signer": signer.hex(),
                "package": str(out),
                "adapters": list(result.manifest.adapters),
                "left_out": list(files.left_out),
                **({} if url is None else {"url": url}),
            }
        )
    )


@model_app.command("inspect")
def inspect(place: Annotated[str, typer.Argument(metavar="FILE", help="Package file or URL.")]) -> None:
    """Print what a package says of itself (no key needed; nothing is decrypted), as JSON."""
    with one_line_errors():
        from .models.open import inspect_package
        from .models.where import package_bytes

        with package_bytes(place, _stores()) as reader:
            print(json.dumps(inspect_package(reader), indent=2))


@model_app.command("verify")
def verify(
    place: Annotated[str, typer.Argument(metavar="FILE", help="Package file or URL.")],
    signer: Annotated[str, typer.Option("--signer", help="Owner's Ed25519 key, hexadecimal.")],
    manifest_hash: Annotated[
        str | None, typer.Option("--manifest-hash", help="Accept this model only, hexadecimal.")
    ] = None,
    contents: Annotated[
        bool, typer.Option("--contents", help="Ask the KMS as owner and check every file too.")
    ] = False,
    kms_endpoint: Annotated[
        str | None, typer.Option(envvar="EPHEMERALML_OWNER_KMS_ENDPOINT", help="KMS address; default AWS.")
    ] = None,
    region: Annotated[str, typer.Option(help="AWS region.")] = "us-east-1",
) -> None:
    """Verify a package: owner's signature, header, sizes and chunks; with --contents every hash.

    Exit 0: sound. Exit 2: not what it should be. Exit 3: it could not be judged (store or KMS).
    """
    try:
        signers = (_hex32(signer, "--signer"),)
        expected = None if manifest_hash is None else _hex32(manifest_hash, "--manifest-hash")
        from .models.open import open_package
        from .models.verify import verify_package
        from .models.where import package_bytes

        with package_bytes(place, _stores()) as reader:
            if contents:
                from .models.owner_key import owner_unwrap

                opened = open_package(
                    reader,
                    lambda wrapped, context: owner_unwrap(wrapped, context, _owner_kms(kms_endpoint, region)),
                    trusted_signers=signers,
                    expected_manifest_hash=expected,
                )
                manifest, found = opened.manifest, opened.manifest_hash
            else:
                manifest, found, _ = verify_package(
                    reader, trusted_signers=signers, expected_manifest_hash=expected
                )
    except Error as error:
        print(f"error {error}", file=sys.stderr)
        raise typer.Exit(_verdict(error)) from None
    checked = ["signature", "header", "sizes", "chunk layout", *(["contents"] if contents else [])]
    print(json.dumps({"model": manifest.model_id, "manifest_hash": found.hex(), "checked": checked}))


@model_app.command("publish")
def publish(
    package: Annotated[Path, typer.Argument(help="Package file.")],
    to: Annotated[str, typer.Option("--to", help="file:///…, s3://bucket/prefix or gs://bucket/prefix.")],
    signer: Annotated[str, typer.Option("--signer", help="Owner's Ed25519 key, hexadecimal.")],
) -> None:
    """Store a package under its content's name; never overwrites. Prints what policy and worker need."""
    with one_line_errors():
        from .models.publish import publish_package

        done = publish_package(package, to, trusted_signers=(_hex32(signer, "--signer"),), settings=_stores())
    hashed = done.manifest_hash.hex()
    print(
        json.dumps(
            {
                "url": done.url,
                "stored": done.stored,
                "policy": {"models": [{"id": done.manifest.model_id, "manifest_hash": hashed}]},
                "worker": {
                    "EPHEMERALML_WORKER_MODEL": done.url,
                    "EPHEMERALML_WORKER_MODEL_SIGNER": signer,
                    "EPHEMERALML_WORKER_MODEL_MANIFEST_HASH": hashed,
                },
            },
            indent=2,
        )
    )


def _verdict(error: Error) -> int:
    """Return 2 for a package that is refused, 3 where it could not be judged; misuse keeps its code."""
    if error.code in ("PACKAGE_UNREADABLE", "MODEL_TOO_LARGE"):
        return NOT_JUDGED
    if isinstance(error, ModelError):
        return UNSOUND
    if isinstance(error, ConfigurationError) and error.code in ("BAD_HEX", "BAD_MODEL_URL"):
        return exit_code(error)
    return NOT_JUDGED


def _hex32(text: str, name: str) -> bytes:
    try:
        value = bytes.fromhex(text)
    except ValueError:
        value = b""
    if len(value) != 32:
        raise ConfigurationError("BAD_HEX", f"{name} is not 32 bytes in hexadecimal")
    return value


def _stores() -> StoreSettings:
    from .models.stores.base import StoreSettings

    return StoreSettings(
        s3_endpoint=os.environ.get("EPHEMERALML_MODEL_S3_ENDPOINT"),
        gcs_endpoint=os.environ.get("EPHEMERALML_MODEL_GCS_ENDPOINT"),
        region=os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1",
    )


def _owner_kms(endpoint: str | None, region: str) -> AwsSettings:
    from ..attestation.key_release.aws_settings import AwsSettings

    return AwsSettings(
        endpoint_url=endpoint,
        region=region,
        access_key_id=os.environ.get("EPHEMERALML_OWNER_KMS_ACCESS_KEY_ID"),
        secret_access_key=os.environ.get("EPHEMERALML_OWNER_KMS_SECRET_ACCESS_KEY"),
    )


def _signing_key(path: Path) -> Ed25519PrivateKey:
    try:
        if not path.exists():
            key = Ed25519PrivateKey.generate()
            descriptor = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(key.private_bytes_raw())
            print("made a new signing key; keep it, its public half is what workers trust", file=sys.stderr)
            return key
        return Ed25519PrivateKey.from_private_bytes(path.read_bytes())
    except OSError as error:
        raise ConfigurationError("SIGNING_KEY_UNUSABLE", f"the signing key: {error.strerror}") from None
    except ValueError:
        raise ConfigurationError("SIGNING_KEY_UNUSABLE", "the signing key is not 32 bytes") from None
