"""Sending again what was set aside: rejected, refused, or meant for the agent that had the ws_id before."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Optional

from ws_manager.errors import Conflict, InvalidInput, NotFound
from ws_manager.models import Message, new_id, utc_now
from ws_manager.remedies import LIST_SET_ASIDE, SHOW, SHOW_CONTENT
from ws_manager.repository.records import NewMessage
from ws_manager.strict_json import BEYOND_LIMITS, is_beyond_limits

if TYPE_CHECKING:
    from ws_manager.repository.store import Store


def retry_of(store: Store, msg_id: str) -> Optional[Retried]:
    """Return what a set-aside message was sent again as; None if it was not."""
    old = store.history.find(msg_id)
    again = None if old is None else store.messages.retry_of(msg_id, old.recipient_id, old.db_id or 0)
    return None if old is None or again is None else Retried(msg_id, again, old.recipient_id)


def replay(store: Store, message: Message, ws_id: str) -> Optional[Message]:
    """Send the content of any message to an active connection, as a new message; None if it is not active."""
    if is_beyond_limits(message.content):
        raise InvalidInput(
            f"message {message.msg_id} is {BEYOND_LIMITS} of what is sent",
            remedy=SHOW_CONTENT,
            about=message.msg_id,
        )
    with store.atomic():
        if not store.connections.is_active(ws_id):
            return None
        new = NewMessage(
            new_id(),
            ws_id,
            message.content,
            message.msg_type,
            message.sender_id,
            utc_now(),
            message.msg_id,
            message.traceparent,
        )
        seq = store.messages.insert(new)
        store.events.insert("replayed", new.sent_at, message.recipient_id, message.msg_id, f"as {new.msg_id}")
    return Message(**new._asdict(), db_id=seq)


class Retried(NamedTuple):
    """A message that was sent again: the old id, the new one, and its recipient."""

    retry_of: str
    msg_id: str
    ws_id: str


def retry(store: Store, msg_id: str) -> Retried:
    """Send one set-aside message again."""
    with store.atomic():
        sent, beyond_limits = _send_again(store, "", msg_id)
        if beyond_limits:
            raise InvalidInput(
                f"message {msg_id} is {BEYOND_LIMITS} of what is sent", remedy=SHOW_CONTENT, about=msg_id
            )
        if not sent:
            message = store.history.find(msg_id)
            if message is None:
                raise NotFound(f"no message {msg_id}", remedy=LIST_SET_ASIDE)
            state = "was sent again already" if message.rejected_at else "is not set aside"
            raise Conflict(f"message {msg_id} {state}", remedy=SHOW, about=msg_id)
    return sent[0]


def retry_all(store: Store, since: str, agent: Optional[str] = None) -> tuple[list[Retried], int]:
    """Send everything again that was set aside since a time, of all agents or of one, in one transaction."""
    with store.atomic():
        return _send_again(store, since, agent=agent)


def _send_again(
    store: Store, since: str, msg_id: Optional[str] = None, agent: Optional[str] = None
) -> tuple[list[Retried], int]:
    now = utc_now()
    sent, beyond_limits = [], 0
    for old in store.messages.to_retry(since, msg_id, agent):
        if is_beyond_limits(old.content):
            beyond_limits += 1
            continue
        again = Retried(old.msg_id, new_id(), old.recipient_id)
        store.messages.insert(
            NewMessage(
                again.msg_id,
                old.recipient_id,
                old.content,
                old.msg_type,
                old.sender_id,
                now,
                old.msg_id,
                old.traceparent,
            )
        )
        store.events.insert("retried", now, old.recipient_id, old.msg_id, f"as {again.msg_id}")
        sent.append(again)
    return sent, beyond_limits
