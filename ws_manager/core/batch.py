"""Many messages in one transaction: what `--batch` and other bulk senders use.

A message that cannot be accepted gets an error of its own, and the rest goes on. What the ledger itself cannot take
(the disk is full, say) undoes the whole call.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, NamedTuple, Optional, Union

from ws_manager.core.traceparent import check_traceparent
from ws_manager.core.validation import check_name, encode_content
from ws_manager.errors import KeyReused, WsManagerError
from ws_manager.models import new_id, new_ids, utc_now
from ws_manager.repository.records import NewBroadcast, NewMessage
from ws_manager.settings import Sizes

if TYPE_CHECKING:
    from ws_manager.core.once import Key
    from ws_manager.repository.store import Store

MOST_ROWS = 100_000
"""Messages that one transaction of broadcasts writes at most, unless a single one has more recipients."""

MOST_BYTES = 64 * 1024 * 1024
"""Characters of content that one transaction of broadcasts writes at most, unless a single one has more."""


class OutgoingMessage(NamedTuple):
    """One message that is to be sent with others, checked. Make it with `Batch.message`.

    Attributes:
        content: compact JSON text.
        msg_type: a label.
        ws_id: the recipient; None for a broadcast.
        traceparent: the sender's trace; None for none.
    """

    content: str
    msg_type: str
    ws_id: Optional[str] = None
    traceparent: Optional[str] = None


class SentBroadcast(NamedTuple):
    """A broadcast that was sent with others: its id, and to how many connections it went."""

    broadcast_id: str
    recipients: int


class Batch:
    """Sending in bulk into one ledger: `Ledger.batch`.

    Args:
        store: the open ledger. This belongs to its thread.
        sizes: how large a message's content may be.

    Every method may raise `LedgerError`; then nothing of that call was written.
    """

    def __init__(self, store: Store, sizes: Sizes) -> None:
        self._store = store
        self._sizes = sizes

    @property
    def in_any_order(self) -> bool:
        """Whether one block of `together` may send more than once: no other transaction writes meanwhile."""
        return self._store.one_writer

    def together(self) -> AbstractContextManager[None]:
        """Commit what is sent in a block together: all of it at its end, or nothing if the block raises.

        Unless `in_any_order`, a block calls `send`, `send_once` or a broadcast once: see `Store`.
        """
        return self._store.atomic()

    def message(
        self,
        content: object,
        msg_type: str,
        ws_id: Optional[str] = None,
        traceparent: Optional[str] = None,
    ) -> OutgoingMessage:
        """Check one message that is to be sent with others.

        Args:
            content: any JSON value.
            msg_type: a label.
            ws_id: the recipient; None for a broadcast.
            traceparent: the sender's W3C trace context; None for none.

        Raises:
            InvalidInput: the content, the type or the traceparent cannot be accepted.
        """
        text = encode_content(content, self._sizes.content)
        trace = check_traceparent(traceparent)
        return OutgoingMessage(text, check_name(msg_type, "message type"), ws_id, trace)

    def send_once(
        self, messages: Sequence[OutgoingMessage], keys: Sequence[Key], sender_id: Optional[str] = None
    ) -> Sequence[Union[tuple[str, bool], KeyReused, None]]:
        """Commit messages to one connection each, in one transaction, but for those whose key was used before.

        Args:
            messages: as for `send`.
            keys: theirs, of one subject and operation; no two have the same name.
            sender_id: the sending connection; None for the system.

        Returns:
            For each the msg_id, and whether it was sent before; an error if its key was used for another request;
            None if its ws_id is not active.
        """
        from ws_manager.core.once import once_each

        return once_each(
            self._store,
            keys,
            lambda left: [
                str(sent) if sent else None
                for sent in self.send([messages[number] for number in left], sender_id)
            ],
        )

    def send(
        self, messages: Sequence[OutgoingMessage], sender_id: Optional[str] = None
    ) -> Sequence[Union[str, WsManagerError, None]]:
        """Commit messages to one connection each, in their order and in one transaction.

        Returns:
            For each the msg_id, or None if its ws_id is not active. Over HTTP, it may be an error of this one.
        """
        if not messages:
            return []
        with self._store.atomic():
            active = self._store.connections.active_among(
                {message.ws_id for message in messages if message.ws_id is not None}
            )
            accepted = [(m.ws_id, m) for m in messages if m.ws_id is not None and m.ws_id in active]
            now = utc_now()
            written = [
                NewMessage(
                    msg_id,
                    ws_id,
                    message.content,
                    message.msg_type,
                    sender_id,
                    now,
                    traceparent=message.traceparent,
                )
                for msg_id, (ws_id, message) in zip(new_ids(len(accepted)), accepted)
            ]
            self._store.messages.insert_each(written)
        following = iter(written)
        return [next(following).msg_id if message.ws_id in active else None for message in messages]

    def broadcast(
        self, messages: Sequence[OutgoingMessage], agent: Optional[str] = None
    ) -> Sequence[Union[SentBroadcast, WsManagerError]]:
        """Commit a broadcast for each of the first messages, in one transaction.

        With many recipients a transaction would outgrow memory and keep other writers waiting, so it ends after
        `MOST_ROWS` messages or `MOST_BYTES`: call it again with the rest.

        Args:
            messages: at least one, in the order in which they are written.
            agent: only to this agent's connections.

        Returns:
            What was sent: at least one broadcast, at most as many as there are messages. Over HTTP, it may be an
            error of one of them.
        """
        with self._store.atomic():
            recipients = self._store.connections.recipients(agent)
            now = utc_now()
            written = []
            rows = characters = 0
            for message in messages:
                written.append(
                    NewBroadcast(new_id(), message.content, message.msg_type, None, now, message.traceparent)
                )
                rows += len(recipients.ws_ids)
                characters += len(recipients.ws_ids) * len(message.content)
                if rows >= MOST_ROWS or characters >= MOST_BYTES:
                    break
            self._store.broadcasts.insert(written, recipients)
        return [SentBroadcast(new.broadcast_id, len(recipients.ws_ids)) for new in written]
