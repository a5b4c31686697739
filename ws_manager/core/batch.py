"""Many messages in one transaction: what `--batch` and other bulk senders use.

A request that cannot be accepted gets an error of its own and the rest goes on; what the file itself cannot take
(a full disk, say) undoes the whole call.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Callable, NamedTuple, Optional

from ws_manager.core.registry import Registry
from ws_manager.core.validation import check_name, encode_content
from ws_manager.models import Broadcast, Connection, new_id, new_ids, utc_now
from ws_manager.repository.sqlite.bulk import Bulk
from ws_manager.repository.sqlite.connections import Connections
from ws_manager.repository.sqlite.journal import Broadcasts
from ws_manager.repository.sqlite.messages import Messages

MOST_ROWS = 100_000
"""Messages that one transaction of broadcasts writes at most, unless a single one has more recipients."""

MOST_BYTES = 64 * 1024 * 1024
"""Characters of content that one transaction of broadcasts writes at most, unless a single one has more."""


class OutgoingMessage(NamedTuple):
    """One message to be sent, checked. Make it with `request`.

    Attributes:
        content: compact JSON text.
        msg_type: a label.
        ws_id: the recipient; None where it is a broadcast.
    """

    content: str
    msg_type: str
    ws_id: Optional[str] = None


class Batch:
    """Sending in bulk into one ledger.

    Args:
        registry: the verbs over that ledger. The batch belongs to its thread.

    Every method may raise `LedgerError`; then nothing of that call was written.
    """

    def __init__(self, registry: Registry) -> None:
        self._db = registry.db
        self._registry = registry
        self._bulk = Bulk(registry.db)
        self._connections = Connections(registry.db)
        self._messages = Messages(registry.db)
        self._broadcasts = Broadcasts(registry.db)

    def request(self, content: object, msg_type: str, ws_id: Optional[str] = None) -> OutgoingMessage:
        """Check one message that is to be sent with others.

        Args:
            content: any JSON value.
            msg_type: a label.
            ws_id: the recipient; None where it is a broadcast.

        Raises:
            InvalidInput: the content or the type cannot be accepted.
        """
        text = encode_content(content, self._registry.sizes.content)
        return OutgoingMessage(text, check_name(msg_type, "message type"), ws_id)

    def send(self, requests: Sequence[OutgoingMessage]) -> list[Optional[str]]:
        """Commit one message for each request, in their order and in one transaction.

        Returns:
            For each request the msg_id, or None if its ws_id is not active.
        """
        with self._db.transaction():
            active = self._bulk.active_among({r.ws_id for r in requests if r.ws_id is not None})
            accepted = [r for r in requests if r.ws_id in active]
            now = utc_now()
            msg_ids = new_ids(len(accepted))
            self._bulk.insert(
                [(msg_id, r.msg_type, r.ws_id, r.content) for msg_id, r in zip(msg_ids, accepted)], now
            )
            self._bulk.add_to_counters(Counter(str(r.ws_id) for r in accepted))
        following = iter(msg_ids)
        return [next(following) if r.ws_id in active else None for r in requests]

    def broadcast(
        self,
        requests: Sequence[OutgoingMessage],
        agent: Optional[str] = None,
        filter_fn: Optional[Callable[[Connection], bool]] = None,
    ) -> list[Broadcast]:
        """Commit a broadcast for each of the first requests, in one transaction.

        With many recipients a transaction would outgrow memory and keep other writers waiting, so it ends
        after `MOST_ROWS` messages or `MOST_BYTES`: call it again with the rest.

        Args:
            requests: at least one, in the order in which they are written.
            agent: only to this agent's connections.
            filter_fn: only to those for which it returns something true; see `Registry.broadcast`.

        Returns:
            What was sent, at least one and at most as many as there are requests.
        """
        chosen = (
            None if filter_fn is None else {c.ws_id for c in self._registry.active(agent) if filter_fn(c)}
        )
        sent: list[Broadcast] = []
        written = rows = 0
        with self._db.transaction():
            now = utc_now()
            recipients = self._connections.active_ids(agent)
            if chosen is not None:
                recipients = [ws_id for ws_id in recipients if ws_id in chosen]
            for each in requests:
                first = last = None
                if recipients:
                    first, last = self._messages.insert_many(
                        recipients, each.content, each.msg_type, None, now
                    )
                made = Broadcast(new_id(), recipients, first, last)
                self._broadcasts.insert(made, each.msg_type, None, now)
                sent.append(made)
                rows += len(recipients)
                written += len(recipients) * len(each.content)
                if rows >= MOST_ROWS or written >= MOST_BYTES:
                    break
            self._bulk.add_to_counters(dict.fromkeys(recipients, len(sent)))
        return sent
