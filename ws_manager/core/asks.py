"""Asking and answering: a message that wants an answer, and the one answer that it gets.

An ask is a message like any other. Its recipient answers once, and the answer confirms the message in the same
transaction: that message alone, not those before it. The answer is kept for whoever asked, and is a message to the
asking connection, if there is one. What is kept of an ask lasts a day from when it was made: an answer that comes
later is refused.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Optional

from ws_manager.core.attempts import check_registration
from ws_manager.core.sending import WAIT_STEP, Admit, checked
from ws_manager.core.validation import encode_content
from ws_manager.errors import Conflict, InvalidInput, NotFound, WsManagerError
from ws_manager.models import AHEAD_SECONDS, Message, new_id, seconds_before, utc_now
from ws_manager.repository.findings import MessageFilter
from ws_manager.repository.records import NewMessage
from ws_manager.repository.working import Ask

if TYPE_CHECKING:
    from ws_manager.repository.store import Store

KEPT_SECONDS = 86400.0
"""How long an ask, and its answer, are kept after it was made."""

_MOST = 2**63 - 1

ANSWER_TYPE = "reply"
"""The type of the message that an answer is."""


def ask(
    store: Store,
    to: str,
    content: object,
    msg_type: str,
    sender_id: Optional[str],
    subject: str,
    *,
    limit: int,
    traceparent: Optional[str],
    admit: Optional[Admit],
) -> Optional[Message]:
    """Commit a message that wants an answer. `limit` is the largest content in bytes."""
    text, trace = checked(store, content, msg_type, sender_id, traceparent, limit)
    with store.atomic():
        ws_id = _recipient(store, to)
        if ws_id is None:
            return None
        if admit is not None:
            admit(1, len(text.encode("utf-8")))
        new = NewMessage(
            new_id(), ws_id, text, msg_type, sender_id, utc_now(), traceparent=trace, wants_reply=True
        )
        seq = store.messages.insert(new)
        store.asks.insert(seq, new.msg_id, ws_id, sender_id, subject, new.sent_at)
    return Message(**new._asdict(), db_id=seq)


def asked(store: Store, msg_id: str) -> Ask:
    """Return an ask, and its answer.

    Raises:
        NotFound: there is no such ask, or it is more than a day old.
    """
    found = store.asks.find(msg_id, seconds_before(utc_now(), KEPT_SECONDS))
    if found is None:
        raise NotFound(f"no ask {msg_id}", hint="an ask and its answer are kept for 24 h")
    return found


def wait(store: Store, msg_id: str, seconds: float) -> Ask:
    """Follow the ledger until an ask is answered or set aside, or the time is over, and return it.

    Raises:
        NotFound: as `asked`.
    """
    deadline = time.monotonic() + seconds
    changes = store.changes()
    try:
        while True:
            if changes.happened():
                found = asked(store, msg_id)
            if found.is_over or time.monotonic() >= deadline:
                return found
            time.sleep(WAIT_STEP)
    finally:
        changes.close()


def reply(store: Store, ws_id: str, epoch: int, seq: int, content: object, *, limit: int) -> str:
    """Answer an ask and confirm it, in one transaction. The same answer again, from the same connection, is that one.

    A message that was confirmed already, by a Pong or an ack, may still be answered. One that was set aside may not:
    whoever asked has seen that. Where the asking connection has gone from the ledger, the answer is only kept with
    the ask; where it is disconnected, the answer waits for it as any message does.

    Args:
        store: the open ledger.
        ws_id: the connection that answers.
        epoch: of its registration.
        seq: of the message.
        content: any JSON value.
        limit: its largest size in bytes.

    Returns:
        The msg_id of the answer.

    Raises:
        InvalidInput: the content cannot be accepted, or the message wants no answer.
        Conflict: the message was answered otherwise, or set aside, or its day is over; or the ws_id was registered
            again.
        NotFound: the connection has no such message.
    """
    text = encode_content(content, limit)
    asker = store.asks.sender_of(seq)
    with store.atomic():
        store.connections.lock([ws_id] if asker is None else [ws_id, asker])
        check_registration(store, ws_id, epoch)
        now = utc_now()
        found = store.asks.find_number(seq, seconds_before(now, KEPT_SECONDS))
        if found is None or found.recipient_id != ws_id:
            raise _no_ask(store, ws_id, seq)
        if found.answer_id is not None:
            if found.answer != text:
                raise Conflict(f"message {seq} was answered before", hint="the first answer counts")
            return found.answer_id
        if found.rejected_at is not None:
            raise Conflict(
                f"message {seq} was set aside", hint="its answer does not count: whoever asked has seen that"
            )
        answer = NewMessage(
            new_id(), found.sender_id or "", text, ANSWER_TYPE, ws_id, now, reply_to=found.msg_id
        )
        if not found.delivered:
            store.receipts.settle_one(ws_id, seq, now)
        store.asks.answer(seq, answer.msg_id, text, now)
        if found.sender_id is not None and store.connections.is_known(found.sender_id):
            store.messages.insert(answer)
        store.events.insert("answered", now, ws_id, found.msg_id, f"by {answer.msg_id}")
    return answer.msg_id


def _recipient(store: Store, to: str) -> Optional[str]:
    """Return the active connection that is meant by a ws_id, or by an agent: the one that was heard last."""
    if store.connections.is_active(to):
        return to
    if store.connections.is_known(to):
        return None
    return store.asks.latest_of(to, seconds_before(utc_now(), -AHEAD_SECONDS))


def _no_ask(store: Store, ws_id: str, seq: int) -> WsManagerError:
    """Return the error for an answer to what is no ask, or none any more."""
    near = store.history.newest(MessageFilter(ws_id=ws_id, below=min(seq + 1, _MOST)), 1)
    message = near[0] if near and (near[0].db_id, near[0].recipient_id) == (seq, ws_id) else None
    if message is None:
        return NotFound(f"{ws_id} has no message {seq}", hint="only its recipient may answer")
    if not message.wants_reply:
        return InvalidInput(f"message {seq} wants no answer", hint="confirm it with ack")
    return Conflict(
        f"message {seq} was asked too long ago", hint="an answer is taken for 24 h; confirm it with ack"
    )
