"""The `messages` table as those read it who look for something. Nothing here writes.

Not every question has an index, because each index on `messages` slows every broadcast down. The statements say
which one they use: `+column` keeps SQLite from using the index of that column.
"""

from __future__ import annotations

import json
from typing import Optional, cast

from ws_manager.errors import InvalidInput
from ws_manager.models import Message
from ws_manager.repository.findings import MessageFilter
from ws_manager.repository.records import NO_PLACE, Position
from ws_manager.repository.sqlite.database import Database, Row
from ws_manager.repository.sqlite.messages import PENDING
from ws_manager.repository.sqlite.names import names_between, names_ending

COLUMNS = (
    "msg_id, msg_type, sender_id, recipient_id, content, sent_at, delivered, id, confirmed_at, rejected_at,"
    " reject_reason, retry_of, refusals, written_at, broadcast_id, traceparent, wants_reply, reply_to"
)
"""The columns of a message, in the order of `Message`."""

ITS_MESSAGES = (
    "id BETWEEN (SELECT first_id FROM broadcasts WHERE broadcast_id = :broadcast)"
    " AND (SELECT last_id FROM broadcasts WHERE broadcast_id = :broadcast) AND broadcast_id = :broadcast"
)
"""The condition for the messages of a broadcast. See `ws_manager.repository.sqlite.broadcasts`."""

_DELIVERED, _WANTS_REPLY = 6, 16


def message_of(row: Row) -> Message:
    """Turn a row of `COLUMNS` into a Message."""
    values = list(row)
    values[_DELIVERED], values[_WANTS_REPLY] = bool(row[_DELIVERED]), bool(row[_WANTS_REPLY])
    return Message(*values)


class _Terms:
    """The conditions of a WHERE clause and the values that belong to them."""

    def __init__(self) -> None:
        self.conditions = ["1"]
        self.values: list[object] = []

    def add(self, condition: str, *values: object) -> None:
        self.conditions.append(condition)
        self.values += values

    @property
    def where(self) -> str:
        return " AND ".join(self.conditions)


class History:
    """Statements that look for messages."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def find(self, msg_id: str) -> Optional[Message]:
        found = self._read(f"SELECT {COLUMNS} FROM messages WHERE msg_id = ?", [msg_id])
        return found[0] if found else None

    def names(self, first: str, end: str, limit: int) -> list[str]:
        return names_between(self._db, "messages", "msg_id", first, end, limit)

    def names_ending(self, part: str, limit: int) -> list[str]:
        return names_ending(self._db, "messages", "msg_id", part, limit)

    def newest(self, wanted: MessageFilter, limit: int) -> list[Message]:
        if wanted.ws_id is not None:
            return self._of_connection(wanted.ws_id, self._terms(wanted), limit)
        if wanted.agent is not None:
            return self._of_agent(wanted.agent, self._terms(wanted), limit)
        # By time, the index on sent_at leads there; otherwise the newest row is the last of the table.
        timed = wanted.broadcast_id is None and (wanted.since is not None or wanted.before is not None)
        order = "sent_at DESC, id DESC" if timed else "id DESC"
        terms = self._terms(wanted, "sent_at" if timed else "+sent_at")
        return self._read(
            f"SELECT {COLUMNS} FROM messages WHERE {terms.where} ORDER BY {order} LIMIT ?",
            [*terms.values, limit],
        )

    def position(self, since: Optional[str] = None) -> Position:
        if since is None:
            return Position(self._db.highest_id("messages"))
        last = self._db.value("SELECT max(id) FROM messages WHERE sent_at < ?", (since,))
        return Position(int(last or 0))

    def after(self, position: Position, wanted: MessageFilter, limit: int) -> tuple[list[Message], Position]:
        # Asked first: what is committed in between is read by the next call.
        newest = self.position()
        if cast("int", position) >= cast("int", newest):
            return [], position
        terms = self._terms(wanted)
        if wanted.ws_id is not None:
            terms.add("(+recipient_id = ? OR +sender_id = ?)", wanted.ws_id, wanted.ws_id)
        if wanted.agent is not None:
            terms.add(
                "EXISTS (SELECT 1 FROM connections WHERE ws_id IN (recipient_id, sender_id) AND agent = ?)",
                wanted.agent,
            )
        found = self._read(
            f"SELECT {COLUMNS} FROM messages WHERE id > ? AND id <= ? AND {terms.where} ORDER BY id LIMIT ?",
            [position, newest, *terms.values, limit],
        )
        last = found[-1].db_id if len(found) == limit else None
        return found, newest if last is None else Position(last)

    def text_of(self, position: Position) -> str:
        return str(position)

    def position_of(self, text: str) -> Position:
        if not (text.isascii() and text.isdecimal()) or len(text) > 19 or int(text) >= 2**63:
            raise InvalidInput(NO_PLACE)
        return Position(int(text))

    def _of_connection(self, ws_id: str, terms: _Terms, limit: int) -> list[Message]:
        """Read two indexes, both limited: an OR over both columns would read the whole table."""
        newest = (
            f"SELECT * FROM (SELECT {COLUMNS} FROM messages WHERE {{}} = ? AND {terms.where}"
            " ORDER BY id DESC LIMIT ?)"
        )
        values = [ws_id, *terms.values, limit]
        return self._read(
            f"{newest.format('recipient_id')} UNION {newest.format('sender_id')} ORDER BY id DESC LIMIT ?",
            [*values, *values, limit],
        )

    def _of_agent(self, agent: str, terms: _Terms, limit: int) -> list[Message]:
        """Like `_of_connection`, for each connection of the agent. CROSS keeps the order of the join."""
        ids = (
            "SELECT m.id FROM connections AS c CROSS JOIN messages AS m WHERE c.agent = ? AND m.id IN"
            f" (SELECT id FROM messages WHERE {{}} = c.ws_id AND {terms.where} ORDER BY id DESC LIMIT ?)"
        )
        values = [agent, *terms.values, limit]
        return self._read(
            f"SELECT {COLUMNS} FROM messages WHERE id IN"
            f" ({ids.format('recipient_id')} UNION {ids.format('sender_id')}) ORDER BY id DESC LIMIT ?",
            [*values, *values, limit],
        )

    def _terms(self, wanted: MessageFilter, sent_at: str = "+sent_at") -> _Terms:
        terms = _Terms()
        if wanted.since is not None:
            terms.add(f"{sent_at} >= ?", wanted.since)
        if wanted.before is not None:
            terms.add(f"{sent_at} < ?", wanted.before)
        if wanted.below is not None:
            terms.add("id < ?", wanted.below)
        if wanted.msg_type is not None:
            terms.add("msg_type = ?", wanted.msg_type)
        if wanted.pending and wanted.set_aside:
            terms.add("delivered = 0")
        elif wanted.pending:
            terms.add(PENDING)
        elif wanted.set_aside:
            terms.add("rejected_at IS NOT NULL")
        if wanted.broadcast_id is not None:
            terms.add(ITS_MESSAGES.replace(":broadcast", "?"), *[wanted.broadcast_id] * 3)
        if wanted.text is not None:
            self._add_text(terms, wanted.text)
        return terms

    def _add_text(self, terms: _Terms, text: str) -> None:
        # The content may have the text as it was typed, or as JSON writes it: with \" for a quote.
        forms = list(dict.fromkeys([text, json.dumps(text, ensure_ascii=False)[1:-1]]))
        if text.isascii():
            # SQLite lowers ASCII alone, and needs no callback for it. Nothing is a wildcard for instr().
            terms.add(f"({' OR '.join(['instr(lower(content), ?)'] * len(forms))})", *map(str.lower, forms))
            return
        folded = [form.casefold() for form in forms]
        self._db.create_function(
            "ws_manager_holds", 1, lambda content: any(form in content.casefold() for form in folded)
        )
        terms.add("ws_manager_holds(content)")

    def _read(self, sql: str, values: list[object]) -> list[Message]:
        return [message_of(row) for row in self._db.rows(sql, values)]
