"""What one agent, and all of them together, may cost the gateway."""

from __future__ import annotations

from dataclasses import dataclass, field

from ws_manager.protocol.gateway_session import FRAMES_PER_SECOND
from ws_manager.settings import Sizes


@dataclass(frozen=True)
class Limits:
    """The limits of one gateway.

    Attributes:
        connections: sockets at the same time; one more is answered 503.
        handshake_seconds: how long a connection may take to become a socket.
        write_seconds: how long a peer may read nothing of what was written to it (close code 4008).
        close_seconds: how long a peer may take to answer our close frame (RFC 6455 section 7.1.2); what it confirms
            until then counts. Together with `--drain` and the rest, a gateway stops within `--drain` and 5 seconds.
        frame_bytes: of a frame from an agent, as it is on the wire (1009).
        frames_per_second: from one agent (4029). What confirms a message does not count: there are no more of
            those than messages.
        sizes: of what an agent sends, and of a registration's metadata.
    """

    connections: int = 10_000
    handshake_seconds: float = 10.0
    write_seconds: float = 5.0
    close_seconds: float = 4.0
    frame_bytes: int = 64 * 1024
    frames_per_second: int = FRAMES_PER_SECOND
    sizes: Sizes = field(default_factory=Sizes)
