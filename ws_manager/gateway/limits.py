"""Limits for one agent, one token, one address, and all of them together."""

from __future__ import annotations

from dataclasses import dataclass, field

from ws_manager.protocol.gateway_session import FRAMES_PER_SECOND
from ws_manager.settings import Sizes


@dataclass(frozen=True)
class Limits:
    """The limits of one gateway.

    Attributes:
        connections: sockets at the same time. One more gets 503.
        per_token: sockets at the same time with one token. One more gets 503.
        per_address: connections of any kind at the same time from one address. One more gets 503. This machine
            and named proxies have no limit.
        handshakes_per_second: that fail, or whose socket does not last, with one token and from one address. More
            get 429.
        send_bytes_per_second: of messages sent with one token, counted once for each recipient. More is answered
            `busy`. Without tokens it counts for each connection.
        webhook_bytes: of all webhook events that are being read or are not verified yet.
        handshake_seconds: how long a connection may take to become a socket.
        write_seconds: how long a peer may go without reading what was written to it (close code 4008).
        close_seconds: how long a peer may take to answer our close frame (RFC 6455 section 7.1.2). What it confirms
            until then counts. A gateway stops within `--drain` and 5 seconds.
        frame_bytes: of a frame from an agent, as it is on the wire (1009).
        frames_per_second: from one agent (4029). Acks and Pongs do not count: there are at most as many as messages.
        sizes: of the contents that agents send, and of metadata at the handshake.
    """

    connections: int = 10_000
    per_token: int = 1000
    per_address: int = 1000
    handshakes_per_second: int = 10
    send_bytes_per_second: int = 20 * 1024 * 1024
    webhook_bytes: int = 16 * 1024 * 1024
    handshake_seconds: float = 10.0
    write_seconds: float = 5.0
    close_seconds: float = 4.0
    frame_bytes: int = 64 * 1024
    frames_per_second: int = FRAMES_PER_SECOND
    sizes: Sizes = field(default_factory=Sizes)
