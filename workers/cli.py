"""The workers' commands: ``worker`` and ``model``."""

from __future__ import annotations

import gc
import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ..wire.errors import ConfigurationError, Error
from ..wire.exit_codes import exit_code

model_app = typer.Typer(help="Package models: encrypted, signed, every file hashed.", no_args_is_help=True)


@contextmanager
def one_line_errors() -> Iterator[None]:
    """End the command with one line on stderr and the error's stable exit code."""
    try:
        yield
    except Error as error:
        print(f"error {error}", file=sys.stderr)
        raise typer.Exit(exit_code(error)) from None


def worker(
    pool: Annotated[str | None, typer.Option("--pool", help="Pool to serve.")] = None,
    drain: Annotated[bool, typer.Option("--drain", help="Exit 0 once the queue has stayed empty.")] = False,
    policy: Annotated[
        Path | None, typer.Option("--policy", help="Trust policy: signed bundle, policy store, or JSON.")
    ] = None,
    policy_root: Annotated[
        str | None, typer.Option("--policy-root", help="Policy root's Ed25519 key, hexadecimal.")
    ] = None,
    model: Annotated[Path | None, typer.Option("--model", help="Encrypted model package.")] = None,
    backend: Annotated[str | None, typer.Option("--backend", help="openvino, torch or noop.")] = None,
    concurrency: Annotated[int | None, typer.Option("--concurrency", help="Packs in work at once.")] = None,
    simulated_image: Annotated[
        str | None, typer.Option("--simulated-image", help="Image name that simulated PCRs derive from.")
    ] = None,
    broker: Annotated[str | None, typer.Option("--broker", help="Broker address.")] = None,
    state_dir: Annotated[
        Path | None, typer.Option("--state-dir", help="Folder of the embedded profile.")
    ] = None,
) -> NoReturn:
    """Run one attested worker.

    It takes its first job only after the KMS has released the fleet key and the model key
    against its attestation. Everything can also be set by EPHEMERALML_WORKER_* variables.
    SIGTERM drains: finish, acknowledge, drop the keys, exit 0. Exit 77: key release denied.
    """
    gc.disable()  # until the gate opens: collecting what imports make is a good part of a cold start
    with one_line_errors():
        from ..broker_config.settings import broker_settings
        from .app import Worker, configure_logging
        from .settings import worker_settings

        settings = worker_settings(
            pool=pool,
            policy=policy,
            policy_root=policy_root,
            model=model,
            backend=backend,
            concurrency=concurrency,
            simulated_image=simulated_image,
        )
        configure_logging()
        code = Worker(settings, broker_settings(broker_url=broker, state_dir=state_dir), drain=drain).run()
    raise typer.Exit(code)


@model_app.command("package")
def package(
    source: Annotated[Path, typer.Argument(help="Folder of a sentence-transformers model.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="Package file to write.")],
    model_id: Annotated[str, typer.Option("--id", help="Model id that clients name.")],
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
        files = folder_files(source)
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
    print(
        json.dumps(
            {
                "model": model_id,
                "version": version,
                "manifest_hash": result.manifest_hash.hex(),
                "signer": key.public_key().public_bytes_raw().hex(),
                "package": str(out),
            }
        )
    )


@model_app.command("inspect")
def inspect(file: Annotated[Path, typer.Argument(help="Package file.")]) -> None:
    """Print what a package says of itself (no key needed; nothing is decrypted), as JSON."""
    with one_line_errors():
        from .models.open import inspect_package

        try:
            with file.open("rb") as reader:
                print(json.dumps(inspect_package(reader), indent=2))
        except OSError as error:
            raise ConfigurationError(
                "MODEL_UNREADABLE", f"cannot read the package: {error.strerror}"
            ) from None


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
