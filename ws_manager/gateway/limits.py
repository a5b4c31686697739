"""The limits for one agent, one token, one address, and all of them together."""

from __future__ import annotations

from dataclasses import dataclass, field

from ws_manager.protocol.gateway_session import FRAMES_PER_SECOND
from ws_manager.settings import Sizes


@dataclass(frozen=True)
class Limits:
    """The limits of one gateway.

    Attributes:
        connections: open sockets; a further handshake is answered 503.
        per_token: open sockets with one token; a further handshake is answered 503.
        per_address: TCP connections from one address; a request on a further one is answered 503. This machine and
            configured proxies have no such limit.
        handshakes_per_second: for one token and for one address. Only handshakes that were refused or whose socket
            closed early are counted; a further handshake is answered 429.
        send_bytes_per_second: bytes that the agents with one token send, counted once for each recipient; a request
            above it is answered `busy`. Without tokens, the limit is for one connection.
        requests_per_second: HTTP requests with one token; a further one is answered 429. As many may come at once.
        webhook_bytes: memory for all webhook bodies that are being received or verified.
        handshake_seconds: how long a connection may take from TCP to an open socket.
        write_seconds: after how long without reading a peer is dropped (close code 4008).
        close_seconds: how long a peer may take to answer our Close frame (RFC 6455 section 7.1.2). What it confirms
            in that time counts. A gateway stops within `--drain` plus 5 seconds.
        frame_bytes: largest payload of a frame from an agent (close code 1009).
        frames_per_second: frames from one agent (close code 4029). Frames that confirm a message are not counted.
        sizes: largest content of a message, and largest metadata of a registration.
    """

    connections: int = 10_000
    per_token: int = 1000
    per_address: int = 1000
    handshakes_per_second: int = 10
    send_bytes_per_second: int = 20 * 1024 * 1024
    requests_per_second: int = 100
    webhook_bytes: int = 16 * 1024 * 1024
    handshake_seconds: float = 10.0
    write_seconds: float = 5.0
    close_seconds: float = 4.0
    frame_bytes: int = 64 * 1024
    frames_per_second: int = FRAMES_PER_SECOND
    sizes: Sizes = field(default_factory=Sizes)
