"""`ws-manager serve`: run the gateway in the foreground."""

import asyncio
import logging
import sqlite3
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Optional

import typer

from ws_manager.cli.options import global_options
from ws_manager.cli.signals import stop_on_signals
from ws_manager.errors import InvalidInput
from ws_manager.settings import heartbeat_timeout, parse_duration

if TYPE_CHECKING:
    import ssl

    from ws_manager.gateway.server import GatewayOptions

_PUBLIC_HOST = typer.Option(
    None, "--public-host", metavar="NAME", help="Name under which others reach it; may be repeated."
)
_ALLOW_ORIGIN = typer.Option(
    None,
    "--allow-origin",
    metavar="ORIGIN",
    help="Let pages of this origin connect, such as https://app.example.com; may be repeated.",
)


def serve(
    ctx: typer.Context,
    no_auth: bool = typer.Option(
        False, "--no-auth", help="Ask for no tokens: let everybody on this machine in. Loopback only."
    ),
    host: str = typer.Option("127.0.0.1", "--host", metavar="ADDRESS", help="Address to listen on."),
    port: int = typer.Option(
        8765, "--port", metavar="N", min=0, max=65535, help="Port; 0 takes one that is free."
    ),
    timeout: Optional[str] = typer.Option(
        None,
        "--timeout",
        metavar="DURATION",
        help="An agent without a sign of life for so long is lost. [env: BLACKROAD_HB_TIMEOUT; default: 30s]",
    ),
    public_host: Optional[list[str]] = _PUBLIC_HOST,
    allow_origin: Optional[list[str]] = _ALLOW_ORIGIN,
    tls_cert: Optional[str] = typer.Option(
        None, "--tls-cert", metavar="FILE", help="Serve https and wss: the certificate chain, as PEM."
    ),
    tls_key: Optional[str] = typer.Option(
        None, "--tls-key", metavar="FILE", help="The certificate's private key, as PEM."
    ),
) -> None:
    """Run the gateway that agents connect to.

    It serves one database, and delivers whatever is sent into it by any process. It ends on SIGTERM and
    SIGINT; agents come back when it is started again.
    """
    from ws_manager.gateway.access import check_address
    from ws_manager.gateway.server import GatewayOptions
    from ws_manager.tokens import signing_key

    check_address(host, tokens=not no_auth)
    seconds = heartbeat_timeout() if timeout is None else parse_duration(timeout)
    if seconds < 1:
        raise InvalidInput("the time-out must be at least 1 second", hint="30s is a good one")
    database = global_options(ctx).database
    options = GatewayOptions(
        database,
        host,
        port,
        seconds,
        key=None if no_auth else signing_key(database, create=True),
        public_hosts=tuple(public_host or ()),
        origins=tuple(allow_origin or ()),
        tls=_tls(tls_cert, tls_key),
    )
    _run(options)


def _run(options: "GatewayOptions") -> None:
    from ws_manager.gateway.access import is_loopback

    logging.basicConfig(
        stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)-7s %(message)s"
    )
    if options.tls is None and not is_loopback(options.host):
        logging.getLogger("ws_manager").warning(
            "without TLS, tokens and messages cross the network readable: give --tls-cert and --tls-key, "
            "or let only a proxy that has TLS reach %s",
            options.host,
        )
    loop = _new_event_loop()
    try:
        loop.run_until_complete(_serve(options))
    finally:
        loop.close()


async def _serve(options: "GatewayOptions") -> None:
    from ws_manager.gateway.server import GatewayServer
    from ws_manager.repository.database import resets_wal_safely

    stop = asyncio.Event()
    stop_on_signals(stop)
    if not resets_wal_safely():
        logging.getLogger("ws_manager").info(
            "SQLite %s has the WAL-reset bug, which 3.51.3 mends; checkpoints work around it: nothing to do",
            sqlite3.sqlite_version,
        )

    def ready(url: str) -> None:
        print(f"Ready: {url} (database {options.database})", file=sys.stderr, flush=True)  # noqa: T201

    await GatewayServer(options).run(stop, ready)


def _tls(certificate: Optional[str], key: Optional[str]) -> "Optional[ssl.SSLContext]":
    if certificate is None and key is None:
        return None
    import ssl

    if certificate is None or key is None:
        raise InvalidInput("--tls-cert and --tls-key belong together", hint="give both, or neither")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    # RFC 8996: nothing older is to be used, and Python 3.9 would.
    context.minimum_version = ssl.TLSVersion.TLSv1_2

    def no_passphrase() -> str:
        raise InvalidInput(f"the private key {key} is encrypted", hint="give one without a passphrase")

    try:
        context.load_cert_chain(Path(certificate).expanduser(), Path(key).expanduser(), no_passphrase)
    except ssl.SSLError as error:
        raise InvalidInput(
            f"{certificate} and {key} are no certificate and its private key: {error.reason or 'not PEM'}",
            hint="both are PEM files; the certificate comes first in its chain",
        ) from None
    except OSError as error:
        raise InvalidInput(
            f"cannot read {certificate} or {key}: {error.strerror}", hint="check the two names"
        ) from None
    return context


def _new_event_loop() -> asyncio.AbstractEventLoop:
    """Return uvloop's event loop where it is installed: it is faster. Otherwise asyncio's own."""
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
    return loop
