"""The agent's side of a session: reads the gateway's frames and creates acks. No IO."""

from __future__ import annotations

from typing import Optional

from ws_manager.protocol.frames import (
    Connected,
    GatewayFrame,
    Received,
    Unreadable,
    ack_frame,
    parse_gateway_frame,
    reject_frame,
)

_REMEMBERED = 2000


class AgentSession:
    """What an agent keeps across reconnections.

    A message that is sent again because its receipt was lost has the same msg_id. It is not handed out twice, only
    confirmed again. Messages are compared by msg_id and not by `seq`: a restored ledger may count from an earlier
    one.

    Attributes:
        ws_id: the connection; None until it is known.
        connected: the last greeting.
        answers: frames for the caller to write.
    """

    def __init__(self, ws_id: Optional[str] = None) -> None:
        self.ws_id = ws_id
        self.connected: Optional[Connected] = None
        self.answers: list[str] = []
        # The highest seq that the present socket has received. The gateway has not yet sent higher ones on it, so
        # their acks wait until they are received again.
        self._reached = -1
        # Ids of messages that the agent is processing, in the order in which they were handed out.
        self._handed_out: dict[str, None] = {}
        # Ids of processed messages, with the reason if they were rejected. The oldest are removed.
        self._handled: dict[str, Optional[str]] = {}

    def text(self, text: str) -> Optional[GatewayFrame]:
        """Read a text frame and return it; None if the caller has nothing to do.

        Raises:
            InvalidInput: it is not a frame of this protocol.
        """
        frame = parse_gateway_frame(text)
        if isinstance(frame, Connected):
            self.connected, self.ws_id = frame, frame.ws_id
            self._reached = -1
            self.answers.clear()
        elif isinstance(frame, Unreadable):
            self._reached = frame.seq
            self._remember(frame.msg_id, frame.reason)
            self.answers.append(reject_frame(frame.seq, frame.reason))
            return None
        elif isinstance(frame, Received):
            self._reached = frame.seq
            if frame.msg_id in self._handled:
                reason = self._handled[frame.msg_id]
                answer = ack_frame(frame.seq) if reason is None else reject_frame(frame.seq, reason)
                self.answers.append(answer)
                return None
            if frame.msg_id in self._handed_out:
                # It is being processed; its ack follows.
                return None
        return frame

    def handed_out(self, message: Received) -> None:
        """Note that the agent is processing a message: if it is sent again meanwhile, it is ignored."""
        self._handed_out[message.msg_id] = None

    def ack(self, message: Received) -> None:
        """Confirm a message: it has been processed, and so has every message before it."""
        before = list(self._handed_out) if message.msg_id in self._handed_out else [message.msg_id]
        for earlier in before:
            self._remember(earlier, None)
            if earlier == message.msg_id:
                break
        if message.seq <= self._reached:
            self.answers.append(ack_frame(message.seq))

    def reject(self, message: Received, reason: str) -> None:
        """Reject a message: the gateway sets it aside."""
        self._remember(message.msg_id, reason)
        if message.seq <= self._reached:
            self.answers.append(reject_frame(message.seq, reason))

    @property
    def is_dealing(self) -> bool:
        """True while a message that was handed out is neither confirmed nor rejected."""
        return bool(self._handed_out)

    def take_answers(self) -> list[str]:
        """Return the frames to write, and clear them."""
        answers, self.answers = self.answers, []
        return answers

    def _remember(self, msg_id: str, rejected: Optional[str]) -> None:
        self._handed_out.pop(msg_id, None)
        self._handled.setdefault(msg_id, rejected)
        if len(self._handled) > _REMEMBERED:
            del self._handled[next(iter(self._handled))]
