"""Reading `connections` and `messages` by what somebody looks for. Nothing here writes.

There is no index for every question, because each index on `messages` slows every broadcast down. So the
statements say which one they use: `+column` keeps SQLite from using the index of that column.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, Optional

from ws_manager.repository.sqlite.connections import COLUMNS as CONNECTION_COLUMNS
from ws_manager.repository.sqlite.database import Database, Row
from ws_manager.repository.sqlite.messages import COLUMNS, NAMES, PENDING

_OLDEST, _NEWEST = 0, 2**63 - 1


@dataclass(frozen=True)
class MessageFilter:
    """Which messages are looked for; what is None or False is not asked.

    Attributes:
        ws_id: what this connection received or sent.
        agent: what this agent's connections, active or not, received or sent.
        msg_type: the type.
        pending: only what nobody has confirmed and nobody set aside.
        set_aside: only what was set aside. With `pending` too, either.
        since: sent at this time (fixed-width UTC) or later.
        before: sent before this time.
        first_id: the lowest `messages.id`.
        last_id: the highest.
        text: is in the content, in any case, as it stands or as JSON writes it.
    """

    ws_id: Optional[str] = None
    agent: Optional[str] = None
    msg_type: Optional[str] = None
    pending: bool = False
    set_aside: bool = False
    since: Optional[str] = None
    before: Optional[str] = None
    first_id: Optional[int] = None
    last_id: Optional[int] = None
    text: Optional[str] = None


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


class Search:
    """Statements that look for connections and messages in one ledger."""

    def __init__(self, db: Database) -> None:
        self._db = db

    def connections(
        self,
        *,
        active_only: bool,
        agent: Optional[str] = None,
        not_heard: Optional[tuple[str, str]] = None,
        limit: Optional[int] = None,
        count_pending: bool = True,
    ) -> list[tuple[Row, int]]:
        """Return rows of `connections` with the number of messages each has not confirmed, oldest first.

        Args:
            active_only: leave out those that are disconnected.
            agent: only this agent's.
            not_heard: only those without a sign of life between these two times.
            limit: at most so many; all if None.
            count_pending: False where nobody looks at the number; it is 0 then.
        """
        terms = _Terms()
        if active_only:
            terms.add("status = 'active'")
        if agent is not None:
            terms.add("agent = ?", agent)
        if not_heard is not None:
            terms.add("last_heartbeat NOT BETWEEN ? AND ?", *not_heard)
        # A seek in an index for each connection, in one statement.
        pending = (
            "(SELECT count(*) FROM messages AS m WHERE m.recipient_id = connections.ws_id"
            f" AND m.id > connections.confirmed_seq AND {PENDING})"
            if count_pending
            else "0"
        )
        rows = self._db.rows(
            f"SELECT {CONNECTION_COLUMNS}, {pending} FROM connections WHERE {terms.where} ORDER BY id LIMIT ?",
            [*terms.values, -1 if limit is None else limit],
        )
        return [(row[:-1], row[-1]) for row in rows]

    def newest(self, wanted: MessageFilter, limit: int) -> list[dict[str, Any]]:
        """Return the newest messages that are wanted as dicts of their columns, newest first."""
        if wanted.ws_id is not None:
            return self._of_connection(wanted.ws_id, self._terms(wanted), limit)
        if wanted.agent is not None:
            return self._of_agent(wanted.agent, self._terms(wanted), limit)
        # By time, the index on sent_at leads there; otherwise the newest row is the last of the table.
        timed = wanted.first_id is None and (wanted.since is not None or wanted.before is not None)
        order = "sent_at DESC, id DESC" if timed else "id DESC"
        terms = self._terms(wanted, "sent_at" if timed else "+sent_at")
        return self._read(
            f"SELECT {COLUMNS} FROM messages WHERE {terms.where} ORDER BY {order} LIMIT ?",
            [*terms.values, limit],
        )

    def after(self, wanted: MessageFilter, after: int, until: int, limit: int) -> list[dict[str, Any]]:
        """Return the messages that are wanted with ids above `after` and not above `until`, oldest first."""
        terms = self._terms(wanted)
        if wanted.ws_id is not None:
            terms.add("(+recipient_id = ? OR +sender_id = ?)", wanted.ws_id, wanted.ws_id)
        if wanted.agent is not None:
            terms.add(
                "EXISTS (SELECT 1 FROM connections WHERE ws_id IN (recipient_id, sender_id) AND agent = ?)",
                wanted.agent,
            )
        return self._read(
            f"SELECT {COLUMNS} FROM messages WHERE id > ? AND id <= ? AND {terms.where} ORDER BY id LIMIT ?",
            [after, until, *terms.values, limit],
        )

    def last_id_before(self, moment: str) -> int:
        """Return the highest id among the messages that were sent before a time, 0 for none."""
        return int(self._db.value("SELECT max(id) FROM messages WHERE sent_at < ?", (moment,)) or 0)

    def _of_connection(self, ws_id: str, terms: _Terms, limit: int) -> list[dict[str, Any]]:
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

    def _of_agent(self, agent: str, terms: _Terms, limit: int) -> list[dict[str, Any]]:
        """Do the same for each connection of the agent; CROSS keeps the order of the join."""
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
        if wanted.msg_type is not None:
            terms.add("msg_type = ?", wanted.msg_type)
        if wanted.pending and wanted.set_aside:
            terms.add("delivered = 0")
        elif wanted.pending:
            terms.add(PENDING)
        elif wanted.set_aside:
            terms.add("rejected_at IS NOT NULL")
        if wanted.first_id is not None or wanted.last_id is not None:
            first = _OLDEST if wanted.first_id is None else wanted.first_id
            terms.add("id BETWEEN ? AND ?", first, _NEWEST if wanted.last_id is None else wanted.last_id)
        if wanted.text is not None:
            self._add_text(terms, wanted.text)
        return terms

    def _add_text(self, terms: _Terms, text: str) -> None:
        # What somebody typed is in the content as it stands, or as JSON writes it: with \" for a quote.
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

    def _read(self, sql: str, values: list[object]) -> list[dict[str, Any]]:
        return [dict(zip(NAMES, row)) for row in self._db.rows(sql, values)]
