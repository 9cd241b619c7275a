"""``proxy``: the local server that speaks OpenAI's API."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape

from ...broker_config.profiles import broker_running
from ...wire.errors import ConfigurationError
from .common import (
    ERR,
    OUT,
    BrokerOption,
    PolicyOption,
    PolicyRootOption,
    StateOption,
    make_client,
    one_line_errors,
    policy_source,
    read_settings,
)

if TYPE_CHECKING:
    from ..proxy.settings import ProxySettings

#: The number stands in :data:`..proxy.settings.DEFAULT_PORT` too; a test holds them together.
DEFAULT_PORT = 8470


def proxy(
    pool: Annotated[
        list[str], typer.Option("--pool", envvar="EPHEMERALML_PROXY_POOLS", help="Pool to serve; repeatable.")
    ],
    policy: PolicyOption,
    policy_root: PolicyRootOption = None,
    alias: Annotated[
        list[str] | None, typer.Option("--alias", help="One more name of a model, NAME=POOL; repeatable.")
    ] = None,
    host: Annotated[str, typer.Option("--host", help="Loopback address to listen on.")] = "127.0.0.1",
    port: Annotated[
        int, typer.Option("--port", min=0, max=65_535, help="Port; 0 takes a free one.")
    ] = DEFAULT_PORT,
    folder: Annotated[
        Path | None,
        typer.Option("--folder", help="Token, receipts, files and batches; default STATE_DIR/proxy."),
    ] = None,
    timeout: Annotated[
        int, typer.Option("--timeout", min=1, max=86_400, help="Seconds until a request is given up.")
    ] = 60,
    stream_as_sealed: Annotated[
        bool,
        typer.Option(
            "--stream-as-sealed/--stream-after-receipt",
            help="Hand on tokens as chunks are opened, before the receipt is verified; by default after.",
        ),
    ] = False,
    max_tokens: Annotated[
        int, typer.Option("--max-tokens", min=1, help="Tokens of a text whose request names no limit.")
    ] = 1024,
    allow_truncation: Annotated[
        bool, typer.Option("--allow-truncation", help="Answer where inputs are longer than the model reads.")
    ] = False,
    receipts: Annotated[int, typer.Option("--receipts", min=1, help="Receipts to keep.")] = 100_000,
    receipt_days: Annotated[float, typer.Option("--receipt-days", min=0.01, help="For so many days.")] = 30.0,
    new_token: Annotated[bool, typer.Option("--new-token", help="Replace the token.")] = False,
    dangerous_no_token: Annotated[
        bool, typer.Option("--dangerous-no-token", help="Ask for no token: every process here may use it.")
    ] = False,
    dangerous_not_loopback: Annotated[
        bool,
        typer.Option(
            "--dangerous-not-loopback", help="Listen elsewhere than on loopback: plaintext on the network."
        ),
    ] = False,
    broker: BrokerOption = None,
    state_dir: StateOption = None,
) -> None:
    """Serve OpenAI's API on this machine, answered by attested workers only.

    Point any OpenAI client at it: base_url=http://127.0.0.1:8470/v1, api_key=the contents of the token's
    file. Each answer was sealed to the pool, its receipt is verified and kept before it is handed on
    (GET /receipts/ID, header x-ephemeralml-receipt). It does not start where no worker is trusted.
    """
    with one_line_errors():
        try:
            from ..proxy.server import open_proxy, ready_lines
            from ..proxy.settings import ProxySettings, read_aliases
        except ModuleNotFoundError as error:
            if error.name is None or error.name.startswith("ephemeralml"):
                raise
            raise ConfigurationError(
                "EXTRA_MISSING", "the proxy needs more libraries: pip install 'ephemeralml[proxy]'"
            ) from None
        broker_config = read_settings(broker, state_dir)
        settings: ProxySettings = ProxySettings(
            pools=tuple(dict.fromkeys(pool)),
            folder=folder or broker_config.state_dir / "proxy",
            aliases=read_aliases(alias or []),
            host=host,
            port=port,
            timeout_s=timeout,
            stream="as-sealed" if stream_as_sealed else "after-receipt",
            max_output_tokens=max_tokens,
            receipts_kept=receipts,
            receipts_days=receipt_days,
            allow_truncation=allow_truncation,
            dangerous_no_token=dangerous_no_token,
            dangerous_not_loopback=dangerous_not_loopback,
        )
        with broker_running(broker_config) as running:
            client = make_client(running, policy_source(policy, policy_root))
            with open_proxy(settings, client, new_token=new_token) as server:
                ready_lines(server, lambda line: OUT.print(escape(line), soft_wrap=True))
                server.serve()
        ERR.print("stopped", soft_wrap=True)
