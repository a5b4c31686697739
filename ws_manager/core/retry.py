"""Sending again what was set aside: rejected, refused, or meant for the agent that had the ws_id before."""

from __future__ import annotations

from typing import NamedTuple, Optional

from ws_manager.errors import Conflict, InvalidInput, NotFound
from ws_manager.models import new_id, utc_now
from ws_manager.repository.sqlite.connections import Connections
from ws_manager.repository.sqlite.database import Database
from ws_manager.repository.sqlite.journal import Events
from ws_manager.repository.sqlite.messages import Messages
from ws_manager.strict_json import BEYOND_LIMITS, is_beyond_limits


class Retried(NamedTuple):
    """A message that was sent again: the old id, the new one, and its recipient."""

    retry_of: str
    msg_id: str
    ws_id: str


def retry(db: Database, msg_id: str) -> Retried:
    """Send one set-aside message again, as a new message behind everything that waits already.

    Raises:
        NotFound: there is no such message.
        Conflict: it is not set aside, or was sent again before.
        InvalidInput: it exceeds the limits of `strict_json`: no agent could be sure to read it.
    """
    with db.transaction():
        sent, beyond_limits = _send_again(db, "", msg_id)
        if beyond_limits:
            raise InvalidInput(
                f"message {msg_id} is {BEYOND_LIMITS} of what is sent",
                hint=f"ws-manager show {msg_id} --json has its content: send it in a smaller form",
            )
        if not sent:
            message = Messages(db).find(msg_id)
            if message is None:
                raise NotFound(f"no message {msg_id}", hint="ws-manager history --set-aside lists them")
            state = "was sent again already" if message["rejected_at"] else "is not set aside"
            raise Conflict(
                f"message {msg_id} {state}", hint=f"ws-manager show {msg_id} tells what became of it"
            )
    return sent[0]


def retry_all(db: Database, since: str) -> tuple[list[Retried], int]:
    """Send everything again that was set aside since a time (UTC text), oldest first, in one transaction.

    Returns:
        What was sent, and how many messages stay set aside because they exceed the limits of `strict_json`.
    """
    with db.transaction():
        return _send_again(db, since)


def _send_again(db: Database, since: str, msg_id: Optional[str] = None) -> tuple[list[Retried], int]:
    messages, connections, events = Messages(db), Connections(db), Events(db)
    now = utc_now()
    sent, beyond_limits = [], 0
    for old in messages.to_retry(since, msg_id):
        if is_beyond_limits(old.content):
            beyond_limits += 1
            continue
        again = Retried(old.msg_id, new_id(), old.recipient_id)
        messages.insert_retry(again.msg_id, old, now)
        connections.count_message(old.recipient_id)
        events.insert("retried", now, old.recipient_id, old.msg_id, f"as {again.msg_id}")
        sent.append(again)
    return sent, beyond_limits
