"""Events that another service brings, and that become messages once: however often, and by whomever, they come.

The event's row and the messages that it becomes are one transaction. An event that is routed is never routed again.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import Any, Callable, NamedTuple, Optional

from ws_manager.core.registry import Registry
from ws_manager.core.validation import check_limit, check_name, encode_content
from ws_manager.errors import Conflict, InvalidInput, NotFound
from ws_manager.models import ROUTED, UNROUTED, utc_now
from ws_manager.repository.sqlite.connections import Connections
from ws_manager.repository.sqlite.webhook_events import WebhookEvents
from ws_manager.strict_json import Json, checked


class IncomingEvent(NamedTuple):
    """An event as it came, and where it is to go.

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
    """What became of an event.

    Attributes:
        event_id: the sender's own identifier.
        event_type: such as `invoice.paid`.
        msg_type: of the messages.
        agent: to whose connections it goes; None for all.
        status: `routed`, or `unrouted` while nobody is connected that it is for.
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


class Webhooks:
    """The events of one ledger.

    Args:
        registry: the verbs over that ledger. This belongs to its thread.

    Every method may raise `LedgerError`; none leaves anything half written.
    """

    def __init__(self, registry: Registry) -> None:
        self._registry = registry
        self._db = registry.db
        self._events = WebhookEvents(registry.db)
        self._connections = Connections(registry.db)

    def take(self, event: IncomingEvent) -> WebhookOutcome:
        """Store an event, and route it if there is anybody that it is for; a known one that waits, again.

        An event whose content no message can have (it is too large, or nests too deeply) is stored with the reason,
        and not routed: it would come again for days, and never fare better.

        Raises:
            InvalidInput: a name cannot be accepted.
        """
        check_name(event.msg_type, "message type")
        if event.agent is not None:
            check_name(event.agent, "agent")
        content, reason = self._checked(event.content)
        with self._db.transaction():
            known = self._events.find(event.event_id)
            if known is not None and known["status"] == ROUTED:
                return _routed_before(known)
            now = utc_now()
            self._events.put(
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
            agent: to whose connections, instead of where it was to go.
            dry_run: only say what would become of it.

        Raises:
            NotFound: there is no such event.
            Conflict: it was routed before.
            InvalidInput: no message can have its content.
        """
        if agent is not None:
            check_name(agent, "agent", known=True)
        with contextlib.nullcontext() if dry_run else self._db.transaction():
            known = self._events.find(event_id)
            if known is None:
                raise NotFound(f"no event {event_id}", hint="ws-manager stripe events lists them")
            if known["status"] == ROUTED:
                raise Conflict(
                    f"event {event_id} was routed already, to {known['recipients']} connection(s)",
                    hint=f"ws-manager show {known['broadcast_id']} tells what became of it",
                )
            event = IncomingEvent(
                event_id,
                known["event_type"],
                known["payload"],
                content_of(known["payload"]),
                agent or known["agent"],
                known["msg_type"],
            )
            content, reason = self._checked(event.content)
            if content is None:
                raise InvalidInput(
                    f"event {event_id} cannot become messages: {reason}",
                    hint="ask Stripe for the event by its id",
                )
            if dry_run:
                would = len(self._connections.active_ids(event.agent))
                return _outcome(event, ROUTED if would else UNROUTED, would)
            return self._route(event, content, utc_now())

    def events(
        self,
        *,
        status: Optional[str] = None,
        since: str = "",
        pattern: Optional[str] = None,
        limit: int = 50,
    ) -> list[dict[str, Any]]:
        """Return events as dicts of their columns without the payload, the newest first.

        Args:
            status: `routed` or `unrouted`; None for both.
            since: only what was received since this time (UTC text).
            pattern: only of types that match it: `*` stands for anything.
            limit: at most so many.

        Raises:
            InvalidInput: there is no such status, or the limit is no number of rows.
        """
        if status not in (None, ROUTED, UNROUTED):
            raise InvalidInput(f"not a status: {status!r}", hint=f"{ROUTED} or {UNROUTED}")
        return self._events.listed(status, since, pattern, check_limit(limit))

    def waiting(self, since: str = "") -> list[str]:
        """Return the ids of the events that wait to be routed, received since a time, the oldest first."""
        return list(self._events.unrouted_ids(since))

    def _checked(self, text: str) -> tuple[Optional[Json], Optional[str]]:
        """Return the content of messages, or None and why no message can have it."""
        try:
            return encode_content(checked(text, "event"), self._registry.sizes.content), None
        except InvalidInput as error:
            return None, error.message

    def _route(self, event: IncomingEvent, content: Json, now: str) -> WebhookOutcome:
        if not self._connections.has_active(event.agent):
            return _outcome(event, UNROUTED, 0)
        sent = self._registry.broadcast(content, agent=event.agent, msg_type=event.msg_type)
        self._events.routed(event.event_id, sent.broadcast_id, len(sent.recipients), now)
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


def _routed_before(known: dict[str, Any]) -> WebhookOutcome:
    return WebhookOutcome(
        known["event_id"],
        known["event_type"],
        known["msg_type"],
        known["agent"],
        ROUTED,
        known["recipients"],
        duplicate=True,
        broadcast_id=known["broadcast_id"],
    )
