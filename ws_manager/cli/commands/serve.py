"""`ws-manager serve`: run the gateway in the foreground."""

import functools
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Optional

import typer

from ws_manager.cli import serve_limits as limits
from ws_manager.cli.options import KEY_FILE, SHARED_HELP, global_options, parse_age
from ws_manager.cli.process.logs import LEVELS, configure_logging
from ws_manager.errors import InvalidInput
from ws_manager.settings import (
    Located,
    Sizes,
    expanded,
    heartbeat_timeout,
    parse_duration,
    parse_size,
    stripe_secrets,
)

if TYPE_CHECKING:
    import ssl

    from ws_manager.gateway.http.stripe import StripeOptions

_HOST = typer.Option(
    None,
    "--host",
    metavar="ADDRESS",
    help="Address to listen on; :: is every address. May be repeated. [default: 127.0.0.1]",
)
_PUBLIC_HOST = typer.Option(
    None,
    "--public-host",
    metavar="NAME",
    help="Host name under which clients reach the gateway; may be repeated.",
)
_ALLOW_ORIGIN = typer.Option(
    None,
    "--allow-origin",
    metavar="ORIGIN",
    help="Allow browsers to connect from pages of this origin, such as https://app.example.com or tauri://localhost. "
    "May be repeated.",
)
_PROXY = typer.Option(
    None,
    "--proxy",
    metavar="ADDRESS",
    help="Address or network of a proxy: the limits per address do not apply to it. May be repeated. A proxy on this "
    "machine need not be named.",
)
_STRIPE_ROUTE = typer.Option(
    None,
    "--stripe-route",
    metavar="PATTERN=AGENT[:TYPE]",
    help="The agent that gets Stripe's events of some types: 'payment_intent.*=billing'. May be repeated; the first "
    "match decides. Events without a match go to every connection. Needs STRIPE_WEBHOOK_SECRET.",
)
_AS_WORKER = typer.Option(None, "--as-worker", hidden=True)
_CHANNEL = typer.Option(None, "--channel", hidden=True)


def serve(
    ctx: typer.Context,
    key_file: Optional[str] = KEY_FILE,
    no_auth: bool = typer.Option(
        False, "--no-auth", help="Accept agents without a token. Only for loopback addresses."
    ),
    host: Optional[list[str]] = _HOST,
    port: int = typer.Option(8765, "--port", metavar="N", min=0, max=65535, help="Port; 0 is any free port."),
    workers: int = limits.WORKERS,
    timeout: Optional[str] = typer.Option(
        None,
        "--timeout",
        metavar="DURATION",
        help="After this time a silent agent is disconnected. [env: BLACKROAD_HB_TIMEOUT; default: 30s]",
    ),
    public_host: Optional[list[str]] = _PUBLIC_HOST,
    allow_origin: Optional[list[str]] = _ALLOW_ORIGIN,
    proxy: Optional[list[str]] = _PROXY,
    tls_cert: Optional[str] = typer.Option(
        None, "--tls-cert", metavar="FILE", help="Serve https and wss: PEM file of the certificate chain."
    ),
    tls_key: Optional[str] = typer.Option(
        None, "--tls-key", metavar="FILE", help="PEM file of the certificate's private key."
    ),
    max_connections: int = limits.MAX_CONNECTIONS,
    max_per_token: int = limits.MAX_PER_TOKEN,
    max_per_address: int = limits.MAX_PER_ADDRESS,
    max_handshake_rate: int = limits.MAX_HANDSHAKE_RATE,
    max_request_rate: int = limits.MAX_REQUEST_RATE,
    max_send_rate: str = limits.MAX_SEND_RATE,
    max_frame: str = limits.MAX_FRAME,
    max_frame_rate: int = limits.MAX_FRAME_RATE,
    max_webhook_memory: str = limits.MAX_WEBHOOK_MEMORY,
    max_content: str = typer.Option(
        "256KiB",
        "--max-content",
        metavar="SIZE",
        envvar="BLACKROAD_WS_MAX_CONTENT",
        help="Largest message from an agent, as JSON, up to 1MiB.",
    ),
    max_metadata: str = typer.Option(
        "16KiB",
        "--max-metadata",
        metavar="SIZE",
        envvar="BLACKROAD_WS_MAX_METADATA",
        help="Largest metadata of an agent, as JSON, up to 1MiB; in a handshake at most 4KiB.",
    ),
    handshake_timeout: str = limits.HANDSHAKE_TIMEOUT,
    write_timeout: str = limits.WRITE_TIMEOUT,
    heartbeat_log_interval: str = typer.Option(
        "1m",
        "--heartbeat-log-interval",
        metavar="DURATION",
        envvar="BLACKROAD_WS_HEARTBEAT_LOG_INTERVAL",
        help="Log at most one heartbeat of a connection per interval.",
    ),
    heartbeat_log_keep: str = typer.Option(
        "24h",
        "--heartbeat-log-keep",
        metavar="DURATION",
        envvar="BLACKROAD_WS_HEARTBEAT_LOG_KEEP",
        help="Delete logged heartbeats that are older than this.",
    ),
    receipts_keep: str = typer.Option(
        "24h",
        "--receipts-keep",
        metavar="DURATION",
        envvar="BLACKROAD_WS_RECEIPTS_KEEP",
        help="Delete journal entries of receipts that are older than this. What they confirmed stays.",
    ),
    keep: Optional[str] = typer.Option(
        None,
        "--keep",
        metavar="DURATION",
        envvar="BLACKROAD_WS_KEEP",
        help="Every hour, prune what is older than this, such as 30d. [default: keep everything]",
    ),
    drain: str = typer.Option(
        "5s",
        "--drain",
        metavar="DURATION",
        envvar="BLACKROAD_WS_DRAIN",
        help="When the gateway stops, spread the closing of its sockets over this time.",
    ),
    stripe_route: Optional[list[str]] = _STRIPE_ROUTE,
    stripe_routes: Optional[str] = typer.Option(
        None,
        "--stripe-routes",
        metavar="FILE",
        help="A TOML file of routes, which follow those of --stripe-route.",
    ),
    stripe_accept_unrouted: bool = typer.Option(
        False,
        "--stripe-accept-unrouted",
        help="Answer Stripe 200 even if no recipient of an event is connected. [default: 503]",
    ),
    metrics_public: bool = typer.Option(
        False, "--metrics-public", help="Answer /metrics without a token with the scope read."
    ),
    shared: bool = typer.Option(False, "--shared", help=SHARED_HELP),
    log_level: str = typer.Option(
        "info",
        "--log-level",
        metavar="LEVEL",
        envvar="BLACKROAD_WS_LOG_LEVEL",
        help=f"One of {', '.join(LEVELS)}. The log has readable lines on a terminal, JSON lines elsewhere.",
    ),
    as_worker: Optional[int] = _AS_WORKER,
    channel: Optional[int] = _CHANNEL,
) -> None:
    """Run the gateway that agents connect to.

    It serves one database, and delivers the messages that any process sends through it. SIGTERM and SIGINT end
    it. SIGHUP ends it too, and asks agents to reconnect at once because it is being restarted.
    """
    from ws_manager.cli.process.open_files import raise_open_file_limit
    from ws_manager.cli.serving import run_alone, run_worker, run_workers
    from ws_manager.core.locations import check_location
    from ws_manager.gateway.http.access import check_address
    from ws_manager.gateway.http.bodies import LEAST
    from ws_manager.gateway.http.names import Names
    from ws_manager.gateway.limits import Limits
    from ws_manager.gateway.options import GatewayOptions
    from ws_manager.gateway.quotas import Addresses

    if workers > 1 and not sys.platform.startswith("linux"):
        raise InvalidInput("--workers above 1 needs Linux", hint="leave it out: one process serves")
    if log_level not in LEVELS:
        raise InvalidInput(f"not a log level: {log_level!r}", hint=f"one of {', '.join(LEVELS)}")
    hosts = tuple(host or ("127.0.0.1",))
    for each in hosts:
        check_address(each, tokens=not no_auth)
    Names(hosts, public_host or (), allow_origin or ())
    Addresses(proxy or ())
    seconds = heartbeat_timeout() if timeout is None else parse_duration(timeout)
    if seconds < 1:
        raise InvalidInput("the timeout must be at least 1 second", hint="30s is a good one")
    agents = Limits(
        connections=max_connections,
        per_token=max_per_token,
        per_address=max_per_address,
        handshakes_per_second=max_handshake_rate,
        requests_per_second=max_request_rate,
        send_bytes_per_second=parse_size(max_send_rate, "--max-send-rate", most=limits.LARGEST_RATE),
        webhook_bytes=limits.webhook_bytes(max_webhook_memory, workers),
        handshake_seconds=limits.wait("--handshake-timeout", handshake_timeout, least=0.1),
        write_seconds=limits.wait("--write-timeout", write_timeout, least=0.1),
        frame_bytes=parse_size(max_frame, "--max-frame", most=limits.LARGEST_FRAME),
        frames_per_second=max_frame_rate,
        sizes=Sizes(parse_size(max_content, "--max-content"), parse_size(max_metadata, "--max-metadata")),
    )
    raise_open_file_limit(max_connections, agents.webhook_bytes // LEAST)
    database = global_options(ctx).database
    # Before the key is read, because that may log.
    configure_logging(log_level, as_worker)
    # Before a key is created beside the database.
    check_location(database, shared=shared)
    options = GatewayOptions(
        database,
        hosts,
        port,
        seconds,
        drain_seconds=limits.wait("--drain", drain, least=0),
        key=None
        if no_auth
        else functools.partial(_key, database, None if key_file is None else expanded(key_file)),
        public_hosts=tuple(public_host or ()),
        origins=tuple(allow_origin or ()),
        proxies=tuple(proxy or ()),
        tls=_tls(tls_cert, tls_key),
        limits=agents,
        log_interval=parse_duration(heartbeat_log_interval),
        log_keep=parse_age(heartbeat_log_keep, "--heartbeat-log-keep"),
        receipts_keep=parse_age(receipts_keep, "--receipts-keep"),
        keep=None if keep is None else parse_age(keep, "--keep"),
        stripe=_stripe(stripe_route or [], stripe_routes, stripe_accept_unrouted),
        shared=shared,
        metrics_public=metrics_public,
    )
    if as_worker is not None and channel is not None:
        run_worker(options, as_worker, channel)
    elif workers == 1:
        run_alone(options)
    else:
        raise typer.Exit(run_workers(options, workers))


def _key(database: Located, key_file: Optional[Path]) -> bytes:
    """Return the key that signs tokens; create it if there is none."""
    from ws_manager.tokens import signing_key

    key = signing_key(database, create=True, key_file=key_file)
    assert key is not None
    return key


def _stripe(routes: list[str], file: Optional[str], accept_unrouted: bool) -> "Optional[StripeOptions]":
    """Return the options for Stripe's webhooks; None if there is no secret to verify them with.

    Raises:
        InvalidInput: an option needs a secret, or a route is invalid.
    """
    from ws_manager.gateway.http.stripe import StripeOptions
    from ws_manager.stripe.events import load_routes, load_stripe, parse_route

    secrets = stripe_secrets()
    asked = bool(routes or file or accept_unrouted)
    if not secrets:
        if asked:
            raise InvalidInput(
                "there is no secret to verify Stripe's events with",
                hint="set STRIPE_WEBHOOK_SECRET to whsec_…",
            )
        return None
    if asked:
        load_stripe()
    chosen = [parse_route(route) for route in routes]
    if file is not None:
        chosen += load_routes(expanded(file))
    return StripeOptions(tuple(secrets), tuple(chosen), accept_unrouted)


def _tls(certificate: Optional[str], key: Optional[str]) -> "Optional[ssl.SSLContext]":
    if certificate is None and key is None:
        return None
    import ssl

    if certificate is None or key is None:
        raise InvalidInput("--tls-cert and --tls-key belong together", hint="give both, or neither")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    # RFC 8996 forbids older versions, and Python 3.9 would allow them.
    context.minimum_version = ssl.TLSVersion.TLSv1_2

    def no_passphrase() -> str:
        raise InvalidInput(f"the private key {key} is encrypted", hint="give one without a passphrase")

    for name in (certificate, key):
        _check_pem(name)
    try:
        context.load_cert_chain(expanded(certificate), expanded(key), no_passphrase)
    except ssl.SSLError as error:
        raise InvalidInput(
            f"{certificate} and {key} are not a certificate and its private key: {error.reason or 'not PEM'}",
            hint="both are PEM files; the certificate comes first in its chain",
        ) from None
    except OSError as error:
        raise InvalidInput(
            f"cannot read {certificate} or {key}: {error.strerror}", hint="check the two names"
        ) from None
    return context


def _check_pem(name: str) -> None:
    """Refuse a PEM file with a byte order mark: OpenSSL would skip its first certificate.

    Raises:
        InvalidInput: the file has one, or cannot be read.
    """
    from ws_manager.text import has_mark

    try:
        with expanded(name).open("rb") as file:
            marked = has_mark(file.read(4))
    except OSError as error:
        raise InvalidInput(f"cannot read {name}: {error.strerror}", hint="check the name") from None
    if marked:
        raise InvalidInput(
            f"{name} begins with a byte order mark, which OpenSSL cannot read",
            hint="save it as ASCII, or as UTF-8 without the mark",
        )
