"""The options of `serve` that limit the load of agents and of unknown clients."""

import typer

from ws_manager.errors import InvalidInput
from ws_manager.settings import parse_duration, parse_size

LARGEST_FRAME = 16 * 1024 * 1024
LARGEST_RATE = 64 * 1024 * 1024 * 1024
LEAST_WEBHOOKS, LARGEST_WEBHOOKS = 1024 * 1024, 1024 * 1024 * 1024
LONGEST_WAIT = 3600.0
MOST_WORKERS = 64

WORKERS = typer.Option(
    1,
    "--workers",
    metavar="N",
    min=1,
    max=MOST_WORKERS,
    envvar="BLACKROAD_WS_WORKERS",
    help="Processes that share the work, on Linux: at most one for each core. Limits hold for all of them together.",
)
MAX_CONNECTIONS = typer.Option(
    10_000,
    "--max-connections",
    metavar="N",
    min=1,
    envvar="BLACKROAD_WS_MAX_CONNECTIONS",
    help="Agents connected at the same time; more get 503.",
)
MAX_PER_TOKEN = typer.Option(
    1000,
    "--max-per-token",
    metavar="N",
    min=1,
    envvar="BLACKROAD_WS_MAX_PER_TOKEN",
    help="Sockets with one token at the same time; more get 503.",
)
MAX_PER_ADDRESS = typer.Option(
    1000,
    "--max-per-address",
    metavar="N",
    min=1,
    envvar="BLACKROAD_WS_MAX_PER_ADDRESS",
    help="Connections from one address, or from one /64 network of IPv6, at the same time; more get 503. "
    "Does not limit this machine, nor a --proxy.",
)
MAX_HANDSHAKE_RATE = typer.Option(
    10,
    "--max-handshake-rate",
    metavar="N",
    min=1,
    envvar="BLACKROAD_WS_MAX_HANDSHAKE_RATE",
    help="Handshakes per second, with one token and from one address, that fail or whose socket closes within "
    "a minute; those of 10 seconds may come at once. More get 429.",
)
MAX_REQUEST_RATE = typer.Option(
    100,
    "--max-request-rate",
    metavar="N",
    min=1,
    envvar="BLACKROAD_WS_MAX_REQUEST_RATE",
    help="HTTP requests per second with one token; as many may come at once. More get 429.",
)
MAX_SEND_RATE = typer.Option(
    "20MiB",
    "--max-send-rate",
    metavar="SIZE",
    envvar="BLACKROAD_WS_MAX_SEND_RATE",
    help="Bytes per second that can be sent with one token; a message counts once per recipient. More get the "
    "error busy. A single message is sent whatever its size.",
)
MAX_FRAME = typer.Option(
    "64KiB",
    "--max-frame",
    metavar="SIZE",
    envvar="BLACKROAD_WS_MAX_FRAME",
    help="Largest frame from an agent, up to 16MiB (close code 1009).",
)
MAX_FRAME_RATE = typer.Option(
    100,
    "--max-frame-rate",
    metavar="N",
    min=1,
    envvar="BLACKROAD_WS_MAX_FRAME_RATE",
    help="Frames per second from one agent, without confirmations (close code 4029).",
)
MAX_WEBHOOK_MEMORY = typer.Option(
    "16MiB",
    "--max-webhook-memory",
    metavar="SIZE",
    envvar="BLACKROAD_WS_MAX_WEBHOOK_MEMORY",
    help="Total bytes of Stripe's webhook requests in progress, from 1MiB to 1GiB. Beyond that the oldest request "
    "gets 503.",
)
HANDSHAKE_TIMEOUT = typer.Option(
    "10s",
    "--handshake-timeout",
    metavar="DURATION",
    envvar="BLACKROAD_WS_HANDSHAKE_TIMEOUT",
    help="How long a new connection may take to become a socket, and an event of Stripe to come.",
)
WRITE_TIMEOUT = typer.Option(
    "5s",
    "--write-timeout",
    metavar="DURATION",
    envvar="BLACKROAD_WS_WRITE_TIMEOUT",
    help="How long an agent may read nothing of what was written to it (close code 4008).",
)


def wait(option: str, text: str, *, least: float) -> float:
    """Return a waiting time in seconds.

    Raises:
        InvalidInput: it is shorter than the minimum, or longer than an hour.
    """
    seconds = parse_duration(text)
    if not least <= seconds <= LONGEST_WAIT:
        raise InvalidInput(f"{option} is out of range: {text!r}", hint=f"from {least:g}s to 1h")
    return seconds


def webhook_bytes(text: str, workers: int) -> int:
    """Return the bytes of `--max-webhook-memory` for each worker: enough for the largest event.

    Raises:
        InvalidInput: it is not a size, is too small for the largest event, or is over 1 GiB.
    """
    size = parse_size(text, "--max-webhook-memory", most=LARGEST_WEBHOOKS)
    if size < LEAST_WEBHOOKS:
        raise InvalidInput(f"--max-webhook-memory is out of range: {text!r}", hint="from 1MiB to 1GiB")
    return max(LEAST_WEBHOOKS, size // workers)
