"""What an operator asks at three in the morning: did it arrive, if not why, and why did this connection end."""

from __future__ import annotations

import functools
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple, Optional, cast

from ws_manager.core.presence import has_socket, living_gateways, seems_to_run
from ws_manager.core.read.lookup import look_up
from ws_manager.forms import message_form
from ws_manager.models import ACTIVE, Connection, Event, Gateway, Message, is_ahead, utc_now
from ws_manager.repository.findings import BroadcastState, MessageFilter

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ws_manager.core.sending import Sent
    from ws_manager.repository.store import Store

_EVENTS = 100
_MESSAGES = 10
_UNCONFIRMED = 20

GOOD, WAITING, BAD = "good", "waiting", "bad"
"""How a thing stands: as it should, not finished yet, or in need of attention."""


OF_A_MESSAGE = ("sent", "written", "confirmed", "answered", "set aside")
"""What happens to a message itself, in a timeline."""


class Entry(NamedTuple):
    """One line of a timeline: when (UTC), what, and what more there is to say."""

    at: str
    what: str
    detail: str


class Unconfirmed(NamedTuple):
    """A message that was not confirmed, its recipient, and why."""

    ws_id: str
    msg_id: str
    why: str


@dataclass(frozen=True)
class Explanation:
    """All there is about one thing.

    Attributes:
        kind: `connection`, `message` or `broadcast`.
        standing: `GOOD`, `WAITING` or `BAD`.
        verdict: one sentence that answers the question.
        facts: names and values, as the ledger has them; JSON values.
        timeline: what happened to it, oldest first.
    """

    kind: str
    standing: str
    verdict: str
    facts: dict[str, Any]
    timeline: list[Entry] = field(default_factory=list)


def explain(store: Store, identifier: str) -> Explanation:
    """Return all there is about what a ws_id, a msg_id, a broadcast_id or a part of one means."""
    explainer, found = _Explainer(store), look_up(store, identifier)
    if isinstance(found, Connection):
        return explainer.connection(found)
    if isinstance(found, Message):
        return explainer.message(found)
    return explainer.broadcast(found)


def unconfirmed(store: Store, sent: Sent) -> list[Unconfirmed]:
    """Return what has not been confirmed of what was sent, at most 20, and why."""
    return _Explainer(store).unconfirmed(sent)


class _Explainer:
    """Explains things of one ledger. What runs is asked once."""

    def __init__(self, store: Store) -> None:
        self._store = store

    @functools.cached_property
    def _gateway_runs(self) -> bool:
        return seems_to_run(self._store)

    @functools.cached_property
    def _living(self) -> frozenset[str]:
        return living_gateways(self._store)

    def _holder(self, connection: Connection) -> Optional[Gateway]:
        """Return the gateway that holds a connection, or held it last."""
        if connection.gateway is None:
            return None
        return next(iter(self._store.gateways.found([connection.gateway])), None)

    def connection(self, connection: Connection) -> Explanation:
        pending = self._store.messages.count_pending(connection.ws_id, connection.confirmed_seq)
        heartbeat = self._store.heartbeat_log.latest(connection.ws_id)
        facts = {
            **vars(connection),
            "pending": pending,
            "latency_ms": None if heartbeat is None else heartbeat.latency_ms,
        }
        facts["metadata"] = facts.pop("metadata_json")
        holder = self._holder(connection)
        if holder is not None:
            facts |= {"gateway_url": holder.url, "gateway_runs": holder.id in self._living}
        messages = self._store.history.newest(MessageFilter(ws_id=connection.ws_id), _MESSAGES)
        shown = {message.msg_id for message in messages}
        # That one of these was set aside is among its own times already.
        timeline = [
            _entry(event)
            for event in self._store.events.of(connection.ws_id, "", "~", _EVENTS)
            if event.kind != "set_aside" or event.msg_id not in shown
        ]
        for message in reversed(messages):
            timeline += _times_of(message, name=message.msg_id)
        timeline.append(Entry(connection.last_heartbeat, "last heard", ""))
        standing, verdict = self._state(connection)
        if pending:
            standing = WAITING if standing == GOOD else standing
            verdict += f"; {pending} message(s) pending"
        return Explanation("connection", standing, verdict, facts, _in_order(timeline))

    def message(self, message: Message) -> Explanation:
        timeline = _times_of(message)
        standing, verdict = self._verdict(message)
        facts = message_form(message)
        told = {"set_aside"}
        ask = self._store.asks.find(message.msg_id, "") if message.wants_reply else None
        if ask is not None:
            facts |= {"answer_id": ask.answer_id, "answered_at": ask.answered_at}
            if ask.answered_at is not None:
                told.add("answered")
                timeline.append(Entry(ask.answered_at, "answered", f"by {ask.answer_id}"))
                verdict += f"; answered by {ask.answer_id}"
            elif message.delivered:
                standing, verdict = WAITING, f"{verdict}; not answered yet"
        # A pending message has no end time. Not `now` either: the clock may have been set back since it was sent.
        ended = message.confirmed_at or message.rejected_at or "~"
        since, until = sorted((message.sent_at, ended))
        # What is among its own times already is left out.
        timeline += [
            _entry(event._replace(msg_id=None))
            for event in self._store.events.of(message.recipient_id, since, until, _EVENTS)
            if event.kind not in told and event.msg_id in (None, message.msg_id)
        ]
        return Explanation("message", standing, verdict, facts, _in_order(timeline))

    def broadcast(self, broadcast: BroadcastState) -> Explanation:
        timeline = [Entry(broadcast.sent_at, "sent", f"to {broadcast.recipients} connection(s)")]
        kept, pending, aside = broadcast.counts
        # Pruning deletes confirmed messages alone.
        confirmed = broadcast.recipients - pending - aside
        first, last = self._store.broadcasts.confirmation_times(broadcast.broadcast_id)
        if first and last:
            timeline += [
                Entry(first, "first confirmed", _after(broadcast.sent_at, first)),
                Entry(last, "last confirmed", _after(broadcast.sent_at, last)),
            ]
        missing = [one._asdict() for one in self.unconfirmed(broadcast)]
        facts = broadcast._asdict()
        del facts["counts"]
        facts |= {
            "confirmed": confirmed,
            "pending": pending,
            "set_aside": aside,
            "pruned": confirmed - kept,
            "unconfirmed": missing,
        }
        standing = BAD if aside else WAITING if pending or not broadcast.recipients else GOOD
        verdict = f"confirmed by {confirmed} of {broadcast.recipients}"
        if not broadcast.recipients:
            verdict = "addressed to nobody: no connection was active, or none was chosen"
        if pending or aside:
            verdict += f": {pending} pending, {aside} set aside"
        return Explanation("broadcast", standing, verdict, facts, timeline)

    def unconfirmed(self, sent: Sent) -> list[Unconfirmed]:
        broadcast_id = getattr(sent, "broadcast_id", None)
        if broadcast_id is not None:
            messages = self._store.broadcasts.unconfirmed(broadcast_id, _UNCONFIRMED)
        else:
            found = [self._store.history.find(one.msg_id) for one in cast("Sequence[Message]", sent)]
            messages = [message for message in found if message is not None and not message.delivered]
        return [
            Unconfirmed(message.recipient_id, message.msg_id, self._verdict(message)[1])
            for message in messages[:_UNCONFIRMED]
        ]

    def _verdict(self, message: Message) -> tuple[str, str]:
        """Return a message's standing, and in words whether it arrived, and if not, why."""
        if message.delivered:
            after = message.confirmed_at
            return GOOD, f"delivered {_after(message.sent_at, after)} it was sent" if after else "delivered"
        if message.rejected_at:
            return BAD, f"set aside: {message.reject_reason or 'no reason given'}"
        connection = self._store.connections.find(message.recipient_id)
        if connection is None:
            return WAITING, f"pending: there is no connection {message.recipient_id}"
        if message.written_at and has_socket(connection, self._living):
            return WAITING, "pending: written to the socket, and the agent has not confirmed it yet"
        ahead = self._store.messages.count_pending_before(
            connection.ws_id, connection.confirmed_seq, message.db_id or 0
        )
        behind = f"; {ahead} earlier message(s) wait too" if ahead else ""
        if message.written_at:
            behind += "; it was written to an earlier socket, which did not confirm it"
        standing, state = self._state(connection)
        return BAD if standing == BAD else WAITING, f"pending: {state}{behind}"

    def _state(self, connection: Connection) -> tuple[str, str]:
        """Return how a connection stands, and in words: why, and what brings it back."""
        name, reason = connection.ws_id, connection.close_reason or "no reason given"
        code = "" if connection.close_code is None else f" (close code {connection.close_code})"
        if connection.status != ACTIVE:
            return (
                BAD,
                f"{name} is disconnected since {connection.disconnected_at}: {reason}{code};"
                " it gets what is pending when it connects again",
            )
        ahead = ""
        if is_ahead(connection.last_heartbeat, utc_now()):
            ahead = "; its last heartbeat lies in the future: the clock was set back, and it counts as silent"
        if connection.gateway is None:
            return (
                GOOD,
                f"{name} was registered by a command: `receive` takes what is pending{ahead}",
            )
        runs = self._gateway_runs
        if has_socket(connection, self._living):
            holder = self._holder(connection)
            where = f" at {holder.url}" if holder is not None and len(self._living) > 1 else ""
            return GOOD, f"the socket of {name} is open{where}"
        back = (
            "it may still come back"
            if runs
            else "the gateway does not run: start it, and the agent comes back"
        )
        if connection.close_code is not None:
            return BAD, f"the socket of {name} was lost: {reason}{code}; {back}{ahead}"
        if runs:
            return WAITING, f"{name} has not come back since the gateway was started again{ahead}"
        return WAITING, f"{name} has no socket: {back}{ahead}"


def _times_of(message: Message, name: str = "") -> list[Entry]:
    """Return what is known of a message's life: one entry for each of its times."""
    prefix = f"{name} " if name else ""
    origin = f" from {message.sender_id}" if message.sender_id else ""
    entries = [Entry(message.sent_at, "sent", f"{prefix}to {message.recipient_id}{origin}")]
    if message.written_at:
        entries.append(Entry(message.written_at, "written", f"{prefix}to the socket"))
    if message.confirmed_at:
        entries.append(
            Entry(
                message.confirmed_at,
                "confirmed",
                prefix + _after(message.sent_at, message.confirmed_at) + " it was sent",
            )
        )
    if message.rejected_at:
        entries.append(Entry(message.rejected_at, "set aside", prefix + (message.reject_reason or "")))
    return entries


def _entry(event: Event) -> Entry:
    detail = event.detail or ""
    return Entry(
        event.ts, event.kind.replace("_", " "), f"{event.msg_id} {detail}" if event.msg_id else detail
    )


def _in_order(timeline: list[Entry]) -> list[Entry]:
    """Sort by time alone: what has the same time stays in the order of the ledger."""
    return sorted(timeline, key=lambda entry: entry.at)


def _after(earlier: str, later: str) -> str:
    """Say how long after another time something was."""
    try:
        seconds = (datetime.fromisoformat(later) - datetime.fromisoformat(earlier)).total_seconds()
    except (ValueError, TypeError):
        # A file of the earlier implementation may hold anything.
        return "some time after"
    if seconds < 0:
        # The clock was set back in between.
        return "some time after"
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms after"
    for unit, size in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit} after"
    return f"{seconds:.1f} s after"
