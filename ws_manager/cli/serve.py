"""`ws-manager serve`: run the gateway in the foreground."""

import asyncio
import logging
import sqlite3
import sys
from typing import TYPE_CHECKING, Optional

import typer

from ws_manager.cli.options import global_options
from ws_manager.cli.signals import stop_on_signals
from ws_manager.errors import InvalidInput
from ws_manager.settings import heartbeat_timeout, parse_duration

if TYPE_CHECKING:
    from ws_manager.gateway.server import GatewayOptions


def serve(
    ctx: typer.Context,
    no_auth: bool = typer.Option(
        False, "--no-auth", help="Let everybody on this machine in. Needed in this version: it has no tokens."
    ),
    host: str = typer.Option("127.0.0.1", "--host", metavar="ADDRESS", help="Loopback address to listen on."),
    port: int = typer.Option(
        8765, "--port", metavar="N", min=0, max=65535, help="Port; 0 takes one that is free."
    ),
    timeout: Optional[str] = typer.Option(
        None,
        "--timeout",
        metavar="DURATION",
        help="An agent without a sign of life for so long is lost. [env: BLACKROAD_HB_TIMEOUT; default: 30s]",
    ),
) -> None:
    """Run the gateway that agents connect to.

    It serves one database, and delivers whatever is sent into it by any process. It ends on SIGTERM and
    SIGINT; agents come back when it is started again.
    """
    from ws_manager.gateway.access import is_loopback
    from ws_manager.gateway.server import GatewayOptions

    if not no_auth:
        raise InvalidInput(
            "this version has no tokens yet, so it cannot tell who connects",
            hint="serve --no-auth lets everybody on this machine in",
        )
    if not is_loopback(host):
        raise InvalidInput(
            f"--no-auth works on this machine only, and {host} can be reached from others",
            hint="use --host 127.0.0.1 or ::1",
        )
    seconds = heartbeat_timeout() if timeout is None else parse_duration(timeout)
    if seconds < 1:
        raise InvalidInput("the time-out must be at least 1 second", hint="30s is a good one")
    options = GatewayOptions(global_options(ctx).database, host, port, seconds)
    logging.basicConfig(
        stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)-7s %(message)s"
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
        logging.getLogger("ws_manager").warning(
            "SQLite %s has the WAL-reset bug; checkpoints are made so that it cannot strike. 3.51.3 mends it",
            sqlite3.sqlite_version,
        )

    def ready(url: str) -> None:
        print(f"Ready: {url} (database {options.database})", file=sys.stderr, flush=True)  # noqa: T201

    await GatewayServer(options).run(stop, ready)


def _new_event_loop() -> asyncio.AbstractEventLoop:
    """Return uvloop's event loop where it is installed: it is faster. Otherwise asyncio's own."""
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
    return loop
