"""Events from another service. Each becomes messages once, however often it comes.

The event's row and the messages that it becomes are one transaction. An event that is routed is never routed again.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Callable, NamedTuple, Optional

from ws_manager.core.sending import broadcast
from ws_manager.core.validation import check_limit, check_name, encode_content
from ws_manager.errors import Conflict, InvalidInput, NotFound
from ws_manager.forms import WEBHOOK_OUTCOME_FIELDS
from ws_manager.models import ROUTED, UNROUTED, utc_now
from ws_manager.remedies import LIST_WEBHOOK_EVENTS, SHOW
from ws_manager.repository.findings import StoredEvent
from ws_manager.settings import Sizes
from ws_manager.strict_json import Json, checked

if TYPE_CHECKING:
    from ws_manager.repository.store import Store


class IncomingEvent(NamedTuple):
    """An event as it came, and where it goes.

    Attributes:
        event_id: the sender's own identifier.
        event_type: such as `invoice.paid`.
        payload: the body, as text.
        content: what becomes the messages' content: JSON text, unchecked.
        agent: to whose connections; None for all.
        msg_type: of the messages.
    """

    event_id: str
    event_type: str
    payload: str
    content: str
    agent: Optional[str]
    msg_type: str


@dataclass(frozen=True)
class WebhookOutcome:
    """The outcome of an event.

    Attributes:
        event_id: the sender's own identifier.
        event_type: such as `invoice.paid`.
        msg_type: of the messages.
        agent: to whose connections it goes; None for all.
        status: `routed`, or `unrouted` while no connection is there for it.
        recipients: how many messages it became.
        duplicate: True if it was routed before, so that nothing was done now.
        broadcast_id: of the broadcast; None while unrouted.
        reason: why it cannot become messages, now or later; None where it can.
    """

    event_id: str
    event_type: str
    msg_type: str
    agent: Optional[str]
    status: str
    recipients: int
    duplicate: bool = False
    broadcast_id: Optional[str] = None
    reason: Optional[str] = None

    def form(self) -> dict[str, Any]:
        """Return it by `WEBHOOK_OUTCOME_FIELDS`."""
        return {name: getattr(self, name) for name in WEBHOOK_OUTCOME_FIELDS}


class Webhooks:
    """The events of one ledger: `Ledger.webhooks`.

    Args:
        store: the open ledger. This belongs to its thread.
        sizes: how large a message's content may be.

    Every method may raise `LedgerError`. None leaves anything half written.
    """

    def __init__(self, store: Store, sizes: Sizes) -> None:
        self._store = store
        self._sizes = sizes

    def take(self, event: IncomingEvent) -> WebhookOutcome:
        """Store an event, and route it if a connection is there for it. An event that waits already is tried again.

        An event whose content no message can have (it is too large, or nests too deeply) is stored with the reason,
        and not routed: it would come again for days, and never fare better.

        Raises:
            InvalidInput: a name cannot be accepted.
        """
        check_name(event.msg_type, "message type")
        if event.agent is not None:
            check_name(event.agent, "agent")
        content, reason = self._checked(event.content)
        with self._store.atomic():
            known = self._store.webhook_events.find(event.event_id)
            if known is not None and known.status == ROUTED:
                return _routed_before(known)
            now = utc_now()
            self._store.webhook_events.put(
                event.event_id, event.event_type, event.agent, event.msg_type, event.payload, now, reason
            )
            if content is None:
                return _outcome(event, UNROUTED, 0, reason=reason)
            return self._route(event, content, now)

    def replay(
        self,
        event_id: str,
        content_of: Callable[[str], str],
        *,
        agent: Optional[str] = None,
        dry_run: bool = False,
    ) -> WebhookOutcome:
        """Route an event that waits, now.

        Args:
            event_id: the sender's own identifier.
            content_of: makes the messages' content, as JSON text, of the stored payload.
            agent: to this agent's connections, instead of its own target.
            dry_run: only say what would become of it.

        Raises:
            NotFound: there is no such event.
            Conflict: it was routed before.
            InvalidInput: no message can have its content.
        """
        if agent is not None:
            check_name(agent, "agent", known=True)
        with contextlib.nullcontext() if dry_run else self._store.atomic():
            known = self._store.webhook_events.find(event_id)
            if known is None:
                raise NotFound(f"no event {event_id}", remedy=LIST_WEBHOOK_EVENTS)
            if known.status == ROUTED:
                raise Conflict(
                    f"event {event_id} was routed already, to {known.recipients} connection(s)",
                    remedy=SHOW,
                    about=known.broadcast_id,
                )
            payload = self._store.webhook_events.payload(event_id)
            event = IncomingEvent(
                event_id,
                known.event_type,
                payload,
                content_of(payload),
                agent or known.agent,
                known.msg_type,
            )
            content, reason = self._checked(event.content)
            if content is None:
                raise InvalidInput(
                    f"event {event_id} cannot become messages: {reason}",
                    hint="ask Stripe for the event by its id",
                )
            if dry_run:
                would = len(self._store.connections.recipients(event.agent).ws_ids)
                return _outcome(event, ROUTED if would else UNROUTED, would)
            return self._route(event, content, utc_now())

    def events(
        self,
        *,
        status: Optional[str] = None,
        since: str = "",
        pattern: Optional[str] = None,
        limit: int = 50,
        after: Optional[str] = None,
    ) -> list[StoredEvent]:
        """Return events, the newest first.

        Args:
            status: `routed` or `unrouted`; None for both.
            since: only what was received since this time (UTC text).
            pattern: only of types that match it: `*` stands for anything.
            limit: the most events to return.
            after: an event's id: only those that come behind it.

        Raises:
            NotFound: `after` is not an event.
            InvalidInput: there is no such status, or the limit is not a number of rows.
        """
        if status not in (None, ROUTED, UNROUTED):
            raise InvalidInput(f"not a status: {status!r}", hint=f"{ROUTED} or {UNROUTED}")
        if after is not None and self._store.webhook_events.find(after) is None:
            raise NotFound(f"no event {after}", remedy=LIST_WEBHOOK_EVENTS)
        return self._store.webhook_events.listed(status, since, pattern, check_limit(limit), after)

    def waiting(self, since: str = "") -> list[str]:
        """Return the ids of the events that wait to be routed, received since a time, the oldest first."""
        return self._store.webhook_events.waiting(since)

    def _checked(self, text: str) -> tuple[Optional[Json], Optional[str]]:
        """Return the content of messages, or None and why no message can have it."""
        try:
            return encode_content(checked(text, "event"), self._sizes.content), None
        except InvalidInput as error:
            return None, error.message

    def _route(self, event: IncomingEvent, content: Json, now: str) -> WebhookOutcome:
        if not self._store.connections.has_active(event.agent):
            return _outcome(event, UNROUTED, 0)
        sent = broadcast(
            self._store,
            content,
            agent=event.agent,
            filter_fn=None,
            msg_type=event.msg_type,
            sender_id=None,
            traceparent=None,
            limit=self._sizes.content,
            admit=None,
        )
        self._store.webhook_events.routed(event.event_id, sent.broadcast_id, len(sent.recipients), now)
        return _outcome(event, ROUTED, len(sent.recipients), sent.broadcast_id)


def _outcome(
    event: IncomingEvent,
    status: str,
    recipients: int,
    broadcast_id: Optional[str] = None,
    reason: Optional[str] = None,
) -> WebhookOutcome:
    return WebhookOutcome(
        event.event_id,
        event.event_type,
        event.msg_type,
        event.agent,
        status,
        recipients,
        broadcast_id=broadcast_id,
        reason=reason,
    )


def _routed_before(known: StoredEvent) -> WebhookOutcome:
    return WebhookOutcome(
        known.event_id,
        known.event_type,
        known.msg_type,
        known.agent,
        ROUTED,
        known.recipients,
        duplicate=True,
        broadcast_id=known.broadcast_id,
    )
