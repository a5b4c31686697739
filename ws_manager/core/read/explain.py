"""What an operator asks at three in the morning: did it arrive, if not why, and why did this connection end.

Read-only. `Answers.show` tells all there is about one connection, message or broadcast.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, NamedTuple

from ws_manager.errors import NotFound
from ws_manager.models import ACTIVE, Connection, Event, is_ahead, seconds_before, utc_now
from ws_manager.repository.sqlite.connections import Connections, decode
from ws_manager.repository.sqlite.database import Database
from ws_manager.repository.sqlite.journal import Broadcasts, Events, Gateways, Heartbeats
from ws_manager.repository.sqlite.locks import gateway_lock
from ws_manager.repository.sqlite.messages import Messages

_EVENTS = 100
_MESSAGES = 10
_UNCONFIRMED = 20

_SEEN_SECONDS = 30.0
"""A gateway notes every 10 seconds that it is there."""


GOOD, WAITING, BAD = "good", "waiting", "bad"
"""How what is asked for stands: as it should, not there yet, or in need of somebody who looks after it."""


class Entry(NamedTuple):
    """One line of a timeline: when (UTC), what, and what more there is to say."""

    at: str
    what: str
    detail: str


@dataclass(frozen=True)
class Answer:
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


class Answers:
    """Questions to one ledger. It belongs to the thread of its database connection."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._connections = Connections(db)
        self._messages = Messages(db)
        self._broadcasts = Broadcasts(db)
        self._events = Events(db)
        self._heartbeats = Heartbeats(db)

    def show(self, identifier: str) -> Answer:
        """Return all there is about a ws_id, a msg_id or a broadcast_id.

        Raises:
            NotFound: it is none of them.
        """
        row = self._connections.find(identifier)
        if row is not None:
            return self._connection(decode(row))
        message = self._messages.find(identifier)
        if message is not None:
            return self._message(message)
        broadcast = self._broadcasts.find(identifier)
        if broadcast is not None:
            return self._broadcast(broadcast)
        raise NotFound(
            f"no connection, message or broadcast {identifier}",
            hint="ws-manager list --all and ws-manager history show what there is",
        )

    def _connection(self, connection: Connection) -> Answer:
        pending = self._messages.count_pending(connection.ws_id, connection.confirmed_seq)
        heartbeat = self._heartbeats.latest(connection.ws_id)
        facts = {**vars(connection), "pending": pending, "latency_ms": heartbeat[1] if heartbeat else None}
        facts["metadata"] = facts.pop("metadata_json")
        messages = self._messages.history(connection.ws_id, _MESSAGES)
        told = {row["msg_id"] for row in messages}
        # That one of these was set aside is in its row already.
        timeline = [
            _entry(event)
            for event in self._events.of(connection.ws_id, "", "~", _EVENTS)
            if event.kind != "set_aside" or event.msg_id not in told
        ]
        for row in reversed(messages):
            timeline += _life_of(row, name=row["msg_id"])
        timeline.append(Entry(connection.last_heartbeat, "last heard", ""))
        standing, verdict = self._state(connection)
        if pending:
            standing = WAITING if standing == GOOD else standing
            verdict += f"; {pending} message(s) pending"
        return Answer("connection", standing, verdict, facts, _in_order(timeline))

    def _message(self, message: dict[str, Any]) -> Answer:
        timeline = _life_of(message)
        # What is pending has no end, not even the present: the clock may have been set back since it was sent.
        ended = message["confirmed_at"] or message["rejected_at"] or "~"
        since, until = sorted((message["sent_at"], ended))
        recipient = message["recipient_id"]
        # That it was set aside is in its row already.
        timeline += [
            _entry(event)
            for event in self._events.of(recipient, since, until, _EVENTS)
            if event.kind != "set_aside" and event.msg_id in (None, message["msg_id"])
        ]
        facts = {**message, "delivered": bool(message["delivered"])}
        return Answer("message", *self._verdict(message), facts, _in_order(timeline))

    def _broadcast(self, broadcast: dict[str, Any]) -> Answer:
        timeline = [Entry(broadcast["sent_at"], "sent", f"to {broadcast['recipients']} connection(s)")]
        # No row has the id 0: it is the span of a broadcast to nobody.
        span = (broadcast["first_id"] or 0, broadcast["last_id"] or 0)
        kept, pending, aside = self._messages.delivery_counts(*span)
        # Pruning takes confirmed messages alone.
        confirmed = broadcast["recipients"] - pending - aside
        first, last = self._messages.confirmation_times(*span)
        if first and last:
            timeline += [
                Entry(first, "first confirmed", _after(broadcast["sent_at"], first)),
                Entry(last, "last confirmed", _after(broadcast["sent_at"], last)),
            ]
        missing = [
            {"ws_id": row["recipient_id"], "msg_id": row["msg_id"], "why": self._verdict(row)[1]}
            for row in self._messages.unconfirmed_between(*span, _UNCONFIRMED)
        ]
        facts = {
            **broadcast,
            "confirmed": confirmed,
            "pending": pending,
            "set_aside": aside,
            "pruned": confirmed - kept,
            "unconfirmed": missing,
        }
        standing = BAD if aside else WAITING if pending or not broadcast["recipients"] else GOOD
        verdict = f"confirmed by {confirmed} of {broadcast['recipients']}"
        if not broadcast["recipients"]:
            verdict = "addressed to nobody: no connection was active, or none was chosen"
        if pending or aside:
            verdict += f": {pending} pending, {aside} set aside"
        return Answer("broadcast", standing, verdict, facts, timeline)

    def _verdict(self, message: dict[str, Any]) -> tuple[str, str]:
        """Return how a message stands, and in words whether it arrived, and if not, why."""
        if message["delivered"]:
            after = message["confirmed_at"]
            told = f"delivered {_after(message['sent_at'], after)} it was sent" if after else "delivered"
            return GOOD, told
        if message["rejected_at"]:
            return BAD, f"set aside: {message['reject_reason'] or 'no reason given'}"
        row = self._connections.find(message["recipient_id"])
        if row is None:
            return WAITING, f"pending: there is no connection {message['recipient_id']}"
        connection = decode(row)
        if message["written_at"] and self._socket_is_open(connection):
            return WAITING, "pending: written to the socket, and the agent has not confirmed it yet"
        ahead = self._messages.count_pending_before(connection.ws_id, connection.confirmed_seq, message["id"])
        behind = f"; {ahead} earlier message(s) wait too" if ahead else ""
        if message["written_at"]:
            behind += "; it was written to an earlier socket, which did not confirm it"
        standing, state = self._state(connection)
        return BAD if standing == BAD else WAITING, f"pending: {state}{behind}"

    def _state(self, connection: Connection) -> tuple[str, str]:
        """Return how a connection stands, and in words why, and what brings it back."""
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
                f"{name} was registered by a command: `ws-manager receive` takes what is pending{ahead}",
            )
        if self._socket_is_open(connection):
            return GOOD, f"the socket of {name} is open"
        runs = self._gateway_runs()
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

    def _socket_is_open(self, connection: Connection) -> bool:
        if connection.status != ACTIVE or connection.gateway is None or connection.close_code is not None:
            return False
        latest = Gateways(self._db).latest()
        return latest is not None and latest.id == connection.gateway and self._gateway_runs()

    def _gateway_runs(self) -> bool:
        """Say whether a gateway runs; who may not look at its lock judges by when it was last seen."""
        held = gateway_lock(self._db.path).holder()
        if held is None:
            latest = Gateways(self._db).latest()
            return latest is not None and latest.seen_at > seconds_before(utc_now(), _SEEN_SECONDS)
        return held


def _life_of(message: dict[str, Any], name: str = "") -> list[Entry]:
    """Return the times that a message's row holds."""
    prefix = f"{name} " if name else ""
    origin = f" from {message['sender_id']}" if message["sender_id"] else ""
    entries = [Entry(message["sent_at"], "sent", f"{prefix}to {message['recipient_id']}{origin}")]
    if message["written_at"]:
        entries.append(Entry(message["written_at"], "written", f"{prefix}to the socket"))
    if message["confirmed_at"]:
        entries.append(
            Entry(
                message["confirmed_at"],
                "confirmed",
                prefix + _after(message["sent_at"], message["confirmed_at"]) + " it was sent",
            )
        )
    if message["rejected_at"]:
        entries.append(Entry(message["rejected_at"], "set aside", prefix + (message["reject_reason"] or "")))
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
