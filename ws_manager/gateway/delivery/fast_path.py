"""The fast path of a message: from the pump's reading to one write on its agent's socket. Most messages go this way.

1. The pump reads what was committed since its last reading (`Pump.run`), and gives it all to `FastPath.dispatch`.
   After many messages it rests up to 100 ms, so that the next many go out together; a few do not wait for that.
2. The messages of each recipient become frames. `MessageFrames` encodes what a broadcast's recipients share once.
3. A socket takes its messages at once if it is free (`AgentSocket.is_free`: the kernel has taken all that was
   written before), and if its session has nothing queued and room in its window (`GatewaySession.take_at_once`).
4. All of them go out in one write. It ends with a receipt Ping, or the hub wakes the socket when that is due.

A message leaves the fast path where

* no session is live, because the agent is not here or reads its backlog. The message stays in the ledger and comes
  with the backlog (`Pump.backlog`). With the last of that, the session goes live.
* something else has to be written first. The session queues the message (`GatewaySession.take_live`), and it is
  written once the kernel has room (`AgentSocket.wake`).
* the queue or the window is full. The session is live no longer, and the message stays in the ledger as above, until
  receipts have made room.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Callable

from ws_manager.gateway.delivery.agent_socket import AgentSocket
from ws_manager.models import PendingMessage, utc_now
from ws_manager.protocol.in_flight import USUAL
from ws_manager.protocol.message_frames import MessageFrames

_STAMP_SECONDS = 0.001
"""What is written within this time is written at the same time: then one statement marks it."""


class FastPath:
    """Takes committed messages to the sockets of a gateway.

    Args:
        sockets: the sockets by ws_id. Their owner adds and removes them.
        now: a monotonic clock, in seconds.
    """

    def __init__(self, sockets: Mapping[str, AgentSocket], now: Callable[[], float]) -> None:
        self._sockets = sockets
        self._now = now

    def dispatch(self, messages: list[PendingMessage]) -> None:
        """Write messages to the live sessions. They come in the order of their seqs, and each comes once."""
        by_recipient: dict[str, list[PendingMessage]] = {}
        for message in messages:
            by_recipient.setdefault(message.recipient_id, []).append(message)
        frames = MessageFrames()
        at, stamped = "", -math.inf
        for recipient_id, its_own in by_recipient.items():
            socket = self._sockets.get(recipient_id)
            if socket is not None and socket.session.live:
                now = self._now()
                if now - stamped > _STAMP_SECONDS:
                    at, stamped = utc_now(), now
                _push(socket, its_own, frames, at, now)


def _push(
    socket: AgentSocket, messages: list[PendingMessage], frames: MessageFrames, at: str, now: float
) -> None:
    """Write messages to a live session at once; if that cannot be, leave the fast path."""
    session = socket.session
    if socket.is_free() and len(messages) <= USUAL.messages:
        data = session.take_at_once([frames.of(message) for message in messages], at, now)
        if data is not None:
            socket.write(data, now)
            return
    # One after the other: of many to one socket, most have no room, and need no frame.
    for message in messages:
        if session.queue_is_full and socket.has_room():
            socket.write_queued()
        if not session.take_live(frames.of(message)):
            break
    socket.wake()
