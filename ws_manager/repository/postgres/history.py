"""The `messages` table as those read it who look for something. Nothing here writes."""

from __future__ import annotations

import json
import re
from typing import NamedTuple, Optional, cast

from ws_manager.errors import InvalidInput
from ws_manager.models import Message
from ws_manager.repository.findings import MessageFilter
from ws_manager.repository.postgres.database import Database, Row
from ws_manager.repository.postgres.names import names_between, names_ending
from ws_manager.repository.postgres.snapshots import BETWEEN, Seen, current, is_snapshot, reading
from ws_manager.repository.postgres.texts import contains
from ws_manager.repository.records import NO_PLACE, Position

COLUMNS = (
    "msg_id, msg_type, sender_id, recipient_id, content, sent_at, delivered, id, confirmed_at, rejected_at,"
    " reject_reason, retry_of, refusals, written_at, broadcast_id, traceparent, wants_reply, reply_to"
)
"""The columns of a message, in the order of `Message`."""

_DELIVERED, _WANTS_REPLY = 6, 16
# A time ends with +00:00, which is left out: in the query of a URL a + would be a space.
_PLACE = re.compile(r"([\d:,]+)/([\d:,]+)?/(\d{1,18})/([\dT:.-]+)?", re.ASCII)
_PENDING = "delivered = 0 AND rejected_at IS NULL"


def message_of(row: Row) -> Message:
    """Turn a row of `COLUMNS` into a Message."""
    values = list(row)
    values[_DELIVERED], values[_WANTS_REPLY] = bool(row[_DELIVERED]), bool(row[_WANTS_REPLY])
    return Message(*values)


class _Followed(NamedTuple):
    """A position.

    Attributes:
        seen: how far the table was read.
        since: what is read now was sent at this time or later. What is committed after that comes in any case.
    """

    seen: Seen
    since: Optional[str] = None


class _Terms:
    """The conditions of a WHERE clause and the values that belong to them."""

    def __init__(self) -> None:
        self.conditions = ["true"]
        self.values: dict[str, object] = {}

    def add(self, condition: str, *values: object) -> None:
        """Add a condition with a `%s` for each value."""
        names = [f"p{len(self.values) + number}" for number in range(len(values))]
        self.values.update(zip(names, values))
        self.conditions.append(condition % tuple(f"%({name})s" for name in names))

    @property
    def where(self) -> str:
        return " AND ".join(self.conditions)


class History:
    """Statements that look for messages."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def find(self, msg_id: str) -> Optional[Message]:
        found = self._read(f"SELECT {COLUMNS} FROM messages WHERE msg_id = %(msg_id)s", {"msg_id": msg_id})
        return found[0] if found else None

    def names(self, first: str, end: str, limit: int) -> list[str]:
        return names_between(self._db, "messages", "msg_id", first, end, limit)

    def names_ending(self, part: str, limit: int) -> list[str]:
        return names_ending(self._db, "messages", "msg_id", part, limit)

    def newest(self, wanted: MessageFilter, limit: int) -> list[Message]:
        terms = self._terms(wanted)
        values = {**terms.values, "limit": limit}
        if wanted.ws_id is not None:
            return self._of_connection(wanted.ws_id, terms.where, values)
        if wanted.agent is not None:
            return self._of_agent(wanted.agent, terms.where, values)
        # By time, the index on sent_at leads there; otherwise the newest row is the last of the table.
        timed = wanted.broadcast_id is None and (wanted.since is not None or wanted.before is not None)
        order = "sent_at DESC, id DESC" if timed else "id DESC"
        return self._read(
            f"SELECT {COLUMNS} FROM messages WHERE {terms.where} ORDER BY {order} LIMIT %(limit)s", values
        )

    def position(self, since: Optional[str] = None) -> Position:
        if since is None:
            return Position(_Followed(Seen(current(self._db))))
        now = current(self._db)
        first = self._db.value(
            "SELECT tx::text FROM messages WHERE sent_at >= %s ORDER BY messages.tx LIMIT 1", (since,)
        )
        if first is None:
            return Position(_Followed(Seen(now)))
        # The snapshot before that transaction. What is still open now comes afterwards, in what is read behind `now`.
        return Position(_Followed(Seen(f"{first}:{first}:", now), since))

    def after(self, position: Position, wanted: MessageFilter, limit: int) -> tuple[list[Message], Position]:
        old = cast("_Followed", position)
        # Taken first: what is committed in between is read by the next call.
        seen = reading(self._db, old.seen)
        assert seen.now is not None
        if seen.now == seen.past:
            return [], Position(_Followed(Seen(seen.now)))
        terms = self._terms(wanted)
        if old.since is not None:
            terms.add("sent_at >= %s", old.since)
        if wanted.ws_id is not None:
            terms.add("(recipient_id = %s OR sender_id = %s)", wanted.ws_id, wanted.ws_id)
        if wanted.agent is not None:
            terms.add(
                "EXISTS (SELECT 1 FROM connections WHERE ws_id IN (recipient_id, sender_id) AND agent = %s)",
                wanted.agent,
            )
        found = self._read(
            f"SELECT {COLUMNS} FROM messages WHERE {BETWEEN} AND {terms.where} ORDER BY id LIMIT %(limit)s",
            {**terms.values, **seen._asdict(), "limit": limit},
        )
        if len(found) == limit:
            return found, Position(_Followed(seen._replace(last=found[-1].db_id or 0), old.since))
        reached = Position(_Followed(Seen(seen.now)))
        if old.seen.now is None:
            return found, reached
        # This was the rest of an earlier moment: whoever has not got a full page waits for news, and may have heard
        # already of what was committed since.
        more, reached = self.after(reached, wanted, limit - len(found))
        return found + more, reached

    def text_of(self, position: Position) -> str:
        seen, since = cast("_Followed", position)
        moment = "" if since is None else since.partition("+")[0]
        return f"{seen.past}/{seen.now or ''}/{seen.last}/{moment}"

    def position_of(self, text: str) -> Position:
        parts = _PLACE.fullmatch(text)
        if parts is None:
            raise InvalidInput(NO_PLACE)
        past, now, last, moment = parts.groups()
        if not is_snapshot(past) or not (now is None or is_snapshot(now)):
            raise InvalidInput(NO_PLACE)
        return Position(_Followed(Seen(past, now, int(last)), f"{moment}+00:00" if moment else None))

    def _of_connection(self, ws_id: str, where: str, values: dict[str, object]) -> list[Message]:
        """Read two indexes, both limited: an OR over both columns would read the whole table."""
        newest = (
            f"(SELECT {COLUMNS} FROM messages WHERE {{}} = %(ws_id)s AND {where}"
            " ORDER BY id DESC LIMIT %(limit)s)"
        )
        return self._read(
            f"{newest.format('recipient_id')} UNION {newest.format('sender_id')} ORDER BY id DESC LIMIT %(limit)s",
            {**values, "ws_id": ws_id},
        )

    def _of_agent(self, agent: str, where: str, values: dict[str, object]) -> list[Message]:
        """Like `_of_connection`, for each connection of the agent."""
        ids = (
            "SELECT newest.id FROM connections AS c CROSS JOIN LATERAL (SELECT id FROM messages"
            f" WHERE {{}} = c.ws_id AND {where} ORDER BY id DESC LIMIT %(limit)s) AS newest"
            " WHERE c.agent = %(agent)s"
        )
        chosen = f"SELECT id FROM ({ids.format('recipient_id')} UNION {ids.format('sender_id')}) AS ids"
        return self._read(
            f"SELECT {COLUMNS} FROM messages WHERE id IN ({chosen} ORDER BY id DESC LIMIT %(limit)s)"
            " ORDER BY id DESC",
            {**values, "agent": agent},
        )

    def _terms(self, wanted: MessageFilter) -> _Terms:
        terms = _Terms()
        if wanted.since is not None:
            terms.add("sent_at >= %s", wanted.since)
        if wanted.before is not None:
            terms.add("sent_at < %s", wanted.before)
        if wanted.below is not None:
            terms.add("id < %s", wanted.below)
        if wanted.msg_type is not None:
            terms.add("msg_type = %s", wanted.msg_type)
        if wanted.pending and wanted.set_aside:
            terms.add("delivered = 0")
        elif wanted.pending:
            terms.add(_PENDING)
        elif wanted.set_aside:
            terms.add("rejected_at IS NOT NULL")
        if wanted.broadcast_id is not None:
            terms.add("broadcast_id = %s", wanted.broadcast_id)
        if wanted.text is not None:
            # The content may have the text as it was typed, or as JSON writes it: with \" for a quote.
            forms = list(dict.fromkeys([wanted.text, json.dumps(wanted.text, ensure_ascii=False)[1:-1]]))
            condition, values = contains(self._db, "content", forms)
            terms.add(condition, *values)
        return terms

    def _read(self, sql: str, values: dict[str, object]) -> list[Message]:
        return [message_of(row) for row in self._db.rows(sql, values)]
