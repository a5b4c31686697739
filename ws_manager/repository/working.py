"""The parts of a store about work on messages: who takes them, what is begun, and what is asked and answered.

`ws_manager.repository.store` has the rules that hold for all of them.
"""

from __future__ import annotations

from typing import NamedTuple, Optional, Protocol

PENDING, CONFIRMED, SET_ASIDE, ANSWERED = "pending", "confirmed", "set_aside", "answered"
STATES = (PENDING, CONFIRMED, SET_ASIDE, ANSWERED)
"""How far an ask is. One that is set aside gets no answer."""


class Ask(NamedTuple):
    """A message that wants an answer, and its answer.

    Attributes:
        seq: of the message.
        msg_id: of the message.
        recipient_id: who may answer.
        sender_id: the connection that gets the answer as a message; None if it is only kept here.
        subject: whose token asked; `*` for every agent's.
        asked_at: when.
        answer_id: the msg_id of the answer; None before it is answered, as the next two are.
        answer: its content, as compact JSON text.
        answered_at: when.
        delivered: whether the message is confirmed. One that was pruned was.
        rejected_at: when the message was set aside.
        reject_reason: why.
    """

    seq: int
    msg_id: str
    recipient_id: str
    sender_id: Optional[str]
    subject: str
    asked_at: str
    answer_id: Optional[str]
    answer: Optional[str]
    answered_at: Optional[str]
    delivered: bool
    rejected_at: Optional[str]
    reject_reason: Optional[str]

    @property
    def state(self) -> str:
        """How far it is: one of `STATES`."""
        if self.answer_id is not None:
            return ANSWERED
        if self.rejected_at is not None:
            return SET_ASIDE
        return CONFIRMED if self.delivered else PENDING

    @property
    def is_over(self) -> bool:
        """Whether it is answered, or will never be."""
        return self.state in (ANSWERED, SET_ASIDE)


class Attempts(Protocol):
    """Workers, and their attempts at messages: see `ws_manager.core.attempts`."""

    def worker(self, ws_id: str) -> Optional[tuple[str, int]]:
        """Return the name of a connection's worker, and its `max_attempts`; None if it has none."""

    def put_worker(self, ws_id: str, worker: Optional[tuple[str, int]]) -> None:
        """Write a connection's worker as `worker` returns it. Rows of pruned connections are deleted."""

    def find(self, seq: int) -> tuple[int, bool]:
        """Return how many attempts at a message have ended, and whether one is running."""

    def running(self, ws_id: str) -> list[tuple[int, int]]:
        """Return the `seq` of a connection's messages that have been begun, and how many attempts ended before."""

    def put(self, ws_id: str, seq: int, ended: int, *, running: bool) -> None:
        """Write how many attempts at a message have ended, and whether one is running."""

    def forget(self, ws_id: str) -> None:
        """Delete the attempts at a connection's messages that are not pending any more."""


class Holds(Protocol):
    """Who takes a connection's messages over HTTP, and until when: see `ws_manager.core.holds`."""

    def find(self, ws_id: str) -> Optional[tuple[str, str]]:
        """Return the latest hold of a connection, and the time at which it ends or has ended."""

    def put(self, ws_id: str, hold: str, until: str) -> None:
        """Write a connection's hold. It replaces the one before."""

    def delete(self, ws_id: str, hold: str) -> bool:
        """Delete a hold. False if it was not the connection's."""

    def delete_before(self, until: str) -> None:
        """Delete the holds that ended before a time."""


class Asks(Protocol):
    """Messages that want an answer, and the answers: see `ws_manager.core.asks`."""

    def insert(
        self, seq: int, msg_id: str, recipient_id: str, sender_id: Optional[str], subject: str, at: str
    ) -> None:
        """Write that a message wants an answer. The arguments are members of `Ask`."""

    def find(self, msg_id: str, since: str) -> Optional[Ask]:
        """Return the ask that is a message, if it was made since a time."""

    def find_number(self, seq: int, since: str) -> Optional[Ask]:
        """Return the ask that is the message with a `seq`, if it was made since a time."""

    def sender_of(self, seq: int) -> Optional[str]:
        """Return the connection that gets the answer to the message with a `seq`; None for none. It never changes."""

    def answer(self, seq: int, answer_id: str, content: str, at: str) -> None:
        """Write the answer."""

    def latest_of(self, agent: str, until: str) -> Optional[str]:
        """Return the active connection of an agent that was heard last, not counting what was heard after a time."""
