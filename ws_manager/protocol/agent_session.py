"""The agent's side of a session: reads the gateway's frames and creates acks. No IO."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
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

_REMEMBERED = 20_000
"""Messages whose answers are kept: a gateway that is killed while another process writes to the ledger loses every
receipt that waited for that, and those messages come again."""


class _State(Enum):
    """Of a message that is not settled yet."""

    RECEIVED = "not handed out yet; no ack confirms it"
    OPEN = "the ack of a later message confirms it too"
    HELD = "only its own ack confirms it"
    FAILED = "as HELD, and nobody is processing it"
    DONE = "acked; its ack waits for an earlier message"


@dataclass
class _Unsettled:
    """A message that was received and is not settled. `seq` is the one under which it was received last."""

    seq: int
    state: _State = _State.RECEIVED


class AgentSession:
    """What an agent keeps across reconnections.

    A message that is sent again because its receipt was lost has the same msg_id. It is not handed out twice, only
    confirmed again. Messages are compared by msg_id and not by `seq`: a restored ledger may count from an earlier
    one.

    An ack confirms everything before it, so it is written only up to the first message that is held: see `hold`.

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
        # Messages that are not settled, by their ids, in the order in which they were received.
        self._unsettled: dict[str, _Unsettled] = {}
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
            # They come again.
            for msg_id in [key for key, each in self._unsettled.items() if each.state is _State.RECEIVED]:
                del self._unsettled[msg_id]
        elif isinstance(frame, Unreadable):
            self._reached = frame.seq
            self._remember(frame.msg_id, frame.reason)
            self.answers.append(reject_frame(frame.seq, frame.reason))
            return None
        elif isinstance(frame, Received):
            return frame if self._receive(frame) else None
        return frame

    def _receive(self, message: Received) -> bool:
        """Take a message, and return whether it is to be handed out."""
        self._reached = message.seq
        if message.msg_id in self._handled:
            self._settle_again(message)
            return False
        known = self._unsettled.setdefault(message.msg_id, _Unsettled(message.seq))
        known.seq = message.seq
        # Otherwise it is being processed; its ack follows.
        return known.state in (_State.RECEIVED, _State.FAILED)

    def _settle_again(self, message: Received) -> None:
        """Repeat the receipt of a message that has come again."""
        reason = self._handled[message.msg_id]
        if reason is not None:
            self.answers.append(reject_frame(message.seq, reason))
        elif any(
            each.state is not _State.DONE and each.seq <= self._reached for each in self._unsettled.values()
        ):
            # An ack would confirm those before it, too.
            self._unsettled[message.msg_id] = _Unsettled(message.seq, _State.DONE)
        else:
            self.answers.append(ack_frame(message.seq))

    def handed_out(self, message: Received) -> bool:
        """Note that the agent is processing a message: if it is sent again meanwhile, it is ignored.

        A message that failed stays held when it is handed out again.

        Returns:
            False if it must not be handed out: it had failed and come again, and was settled since then.
        """
        if message.msg_id in self._handled:
            return False
        given = self._unsettled.setdefault(message.msg_id, _Unsettled(message.seq))
        if given.state is _State.RECEIVED:
            given.state = _State.OPEN
        return given.state is not _State.DONE

    def hold(self, message: Received) -> None:
        """Let only a message's own ack confirm it. Until then, acks of later messages are not written."""
        given = self._unsettled.get(message.msg_id)
        if given is not None and given.state is not _State.DONE:
            given.state = _State.HELD

    def fail(self, message: Received) -> None:
        """Note that nobody is processing a held message any more. If it is sent again, it is handed out again."""
        given = self._unsettled.get(message.msg_id)
        if given is not None and given.state is _State.HELD:
            given.state = _State.FAILED

    def ack(self, message: Received) -> None:
        """Confirm a message: it has been processed, and so has every message before it that is not held.

        Nothing happens if it is settled already.
        """
        if message.msg_id not in self._unsettled:
            return
        for msg_id, given in self._unsettled.items():
            if msg_id == message.msg_id:
                given.state = _State.DONE
                break
            if given.state is _State.OPEN:
                given.state = _State.DONE
        self._confirm()

    def reject(self, message: Received, reason: str) -> None:
        """Reject a message: the gateway sets it aside. Nothing happens if it is settled already."""
        given = self._unsettled.get(message.msg_id)
        if given is None or given.state is _State.DONE:
            return
        self._remember(message.msg_id, reason)
        if given.seq <= self._reached:
            self.answers.append(reject_frame(given.seq, reason))
        self._confirm()

    def drop(self, message: Received) -> None:
        """Note that the ledger has settled a message without this agent's receipt."""
        self._unsettled.pop(message.msg_id, None)
        self._confirm()

    def replied(self, message: Received) -> None:
        """Note that the ledger has confirmed a message with this agent's answer to it."""
        self._remember(message.msg_id, None)
        self._confirm()

    def confirm(self, message: Received) -> None:
        """Confirm a message alone: its ack is written once those before it are settled."""
        known = self._unsettled.get(message.msg_id)
        if known is not None:
            known.state = _State.DONE
            self._confirm()

    def seq(self, message: Received) -> int:
        """Return the `seq` under which the agent has received a message last."""
        given = self._unsettled.get(message.msg_id)
        return message.seq if given is None else given.seq

    @property
    def is_dealing(self) -> bool:
        """True while a message that was handed out is being processed."""
        return any(given.state in (_State.OPEN, _State.HELD) for given in self._unsettled.values())

    def take_answers(self) -> list[str]:
        """Return the frames to write, and clear them."""
        answers, self.answers = self.answers, []
        return answers

    def _confirm(self) -> None:
        """Write one ack for all that is done, up to the first message that is not."""
        reached = -1
        while self._unsettled:
            msg_id, given = next(iter(self._unsettled.items()))
            if given.state is not _State.DONE:
                break
            self._remember(msg_id, None)
            if given.seq <= self._reached:
                reached = max(reached, given.seq)
        if reached >= 0:
            self.answers.append(ack_frame(reached))

    def _remember(self, msg_id: str, rejected: Optional[str]) -> None:
        self._unsettled.pop(msg_id, None)
        self._handled.setdefault(msg_id, rejected)
        if len(self._handled) > _REMEMBERED:
            del self._handled[next(iter(self._handled))]
