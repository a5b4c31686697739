"""The options of `serve` that limit what agents and strangers may cost."""

import typer

from ws_manager.errors import InvalidInput
from ws_manager.settings import parse_duration, parse_size

LARGEST_FRAME = 16 * 1024 * 1024
LARGEST_RATE = 64 * 1024 * 1024 * 1024
LEAST_WEBHOOKS, LARGEST_WEBHOOKS = 1024 * 1024, 1024 * 1024 * 1024
LONGEST_WAIT = 3600.0

MAX_CONNECTIONS = typer.Option(
    10_000,
    "--max-connections",
    metavar="N",
    min=1,
    envvar="BLACKROAD_WS_MAX_CONNECTIONS",
    help="Agents at the same time; one more is answered 503.",
)
MAX_PER_TOKEN = typer.Option(
    1000,
    "--max-per-token",
    metavar="N",
    min=1,
    envvar="BLACKROAD_WS_MAX_PER_TOKEN",
    help="Sockets at the same time with one token; one more is answered 503.",
)
MAX_PER_ADDRESS = typer.Option(
    1000,
    "--max-per-address",
    metavar="N",
    min=1,
    envvar="BLACKROAD_WS_MAX_PER_ADDRESS",
    help="Connections at the same time from one address, or one IPv6 network of 64 bits; one more is answered 503. "
    "Not for this machine, nor for a --proxy.",
)
MAX_HANDSHAKE_RATE = typer.Option(
    10,
    "--max-handshake-rate",
    metavar="N",
    min=1,
    envvar="BLACKROAD_WS_MAX_HANDSHAKE_RATE",
    help="Handshakes a second with one token, and from one address, that are refused or whose socket does not last a "
    "minute; those of 10 seconds may come at once. More are answered 429.",
)
MAX_SEND_RATE = typer.Option(
    "20MiB",
    "--max-send-rate",
    metavar="SIZE",
    envvar="BLACKROAD_WS_MAX_SEND_RATE",
    help="Bytes a second that may be sent with one token: a message counts once for each recipient. More is answered "
    "busy. A single message is possible whatever its size is.",
)
MAX_FRAME = typer.Option(
    "64KiB",
    "--max-frame",
    metavar="SIZE",
    envvar="BLACKROAD_WS_MAX_FRAME",
    help="Size of a frame from an agent, up to 16MiB (close code 1009).",
)
MAX_FRAME_RATE = typer.Option(
    100,
    "--max-frame-rate",
    metavar="N",
    min=1,
    envvar="BLACKROAD_WS_MAX_FRAME_RATE",
    help="Frames a second from one agent, confirmations not counted (4029).",
)
MAX_WEBHOOK_MEMORY = typer.Option(
    "16MiB",
    "--max-webhook-memory",
    metavar="SIZE",
    envvar="BLACKROAD_WS_MAX_WEBHOOK_MEMORY",
    help="Bytes of events of Stripe that are on their way, together, from 1MiB to 1GiB. For more of them the oldest "
    "is answered 503.",
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
    help="How long an agent may read nothing of what was written to it (4008).",
)


def wait(option: str, text: str, *, least: float) -> float:
    """Turn a duration for which something is waited into seconds.

    Raises:
        InvalidInput: it is shorter than the least, or over an hour.
    """
    seconds = parse_duration(text)
    if not least <= seconds <= LONGEST_WAIT:
        raise InvalidInput(f"{option} is out of range: {text!r}", hint=f"from {least:g}s to 1h")
    return seconds


def webhook_bytes(text: str) -> int:
    """Turn `--max-webhook-memory` into bytes.

    Raises:
        InvalidInput: it is not a size, too small for the largest event, or over 1 GiB.
    """
    size = parse_size(text, "--max-webhook-memory", most=LARGEST_WEBHOOKS)
    if size < LEAST_WEBHOOKS:
        raise InvalidInput(f"--max-webhook-memory is out of range: {text!r}", hint="from 1MiB to 1GiB")
    return size
