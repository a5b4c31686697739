"""What `doctor` looks at in a ledger in PostgreSQL. Nothing here creates, migrates or repairs anything."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from typing import Callable, Optional

import psycopg

from ws_manager.errors import LedgerError
from ws_manager.models import seconds_before, utc_now
from ws_manager.remedies import LIST_PENDING, MAKE_LEDGER, REPLAY, RETRY, START_GATEWAY
from ws_manager.repository.findings import OK, PROBLEM, WARNING, Backlog, Finding
from ws_manager.repository.postgres.database import SCHEMA, Database
from ws_manager.repository.postgres.overview import whole_backlog
from ws_manager.repository.postgres.schema import VERSION, restored, version_of
from ws_manager.repository.postgres.seals import seal_of
from ws_manager.repository.records import LEASE_SECONDS

OLDEST_SERVER = 14
"""The oldest version of PostgreSQL that is supported."""

LONG_PENDING = 600.0
"""Seconds after which a pending message is worth a warning."""

LONG_TRANSACTION = 300.0
"""Seconds from which on an open transaction is worth a warning."""

_CLOCK_SECONDS = 5.0
_LATE_SECONDS = 30.0
_MANY_DEAD = 100_000
_SHOWN = 3

_Check = Callable[[Database], Iterator[Finding]]


def examine(url: str) -> Iterator[Finding]:
    """Look at a database, which may have anything or nothing in it, and at its server."""
    try:
        db = Database(url)
    except LedgerError as error:
        yield Finding("database", PROBLEM, error.message, error.hint, error.remedy)
        return
    with contextlib.closing(db):
        for check in _SERVER:
            yield from _looked(db, check)
        try:
            found = version_of(db)
        except (LedgerError, psycopg.Error) as error:
            yield _failed("schema", error)
            return
        yield _schema(found)
        if found == VERSION:
            for check in _LEDGER:
                yield from _looked(db, check)


def _looked(db: Database, check: _Check) -> Iterator[Finding]:
    """Give what a check finds. One that fails, such as for a right that is missing, does not end the others."""
    try:
        yield from list(check(db))
    except (LedgerError, psycopg.Error) as error:
        yield _failed(check.__name__.strip("_").replace("_", " "), error)


def _failed(check: str, error: Exception) -> Finding:
    message = error.message if isinstance(error, LedgerError) else str(error).partition("\n")[0]
    return Finding(check, WARNING, f"it cannot be looked at: {message}", "grant pg_monitor to the user")


def _database(db: Database) -> Iterator[Finding]:
    size = db.value("SELECT pg_size_pretty(pg_database_size(current_database()))")
    yield Finding("database", OK, f"{db.location}, {size}")


def _server(db: Database) -> Iterator[Finding]:
    version = str(db.value("SHOW server_version")).split()[0]
    if int(db.value("SHOW server_version_num")) < OLDEST_SERVER * 10_000:
        yield Finding("server", PROBLEM, f"{version} is too old", f"use PostgreSQL {OLDEST_SERVER} or newer")
    else:
        yield Finding("server", OK, f"PostgreSQL {version}")
    # A session cannot be opened with another encoding.
    yield Finding("encoding", OK, str(db.value("SHOW server_encoding")))


def _durability(db: Database) -> Iterator[Finding]:
    row = db.row("SELECT reset_val, setting FROM pg_settings WHERE name = 'synchronous_commit'")
    assert row is not None
    raised = "" if row[0] == row[1] else f" by default; our sessions have {row[1]}"
    yield Finding("synchronous_commit", OK, f"{row[0]}{raised}")
    off = [name for name in ("fsync", "full_page_writes") if db.value(f"SHOW {name}") == "off"]
    if off:
        yield Finding(
            "disk",
            PROBLEM,
            f"{' and '.join(off)} off: after a crash of the machine the ledger may be damaged",
            "turn it on in postgresql.conf",
        )


def _standby(db: Database) -> Iterator[Finding]:
    if db.value("SELECT pg_is_in_recovery()"):
        yield Finding(
            "standby", PROBLEM, "this server is one: nothing can be written", "use the primary's URL"
        )
        return
    row = db.row(
        "SELECT count(*), count(*) FILTER (WHERE sync_state IN ('sync', 'quorum')),"
        " count(*) FILTER (WHERE state IS NULL) FROM pg_stat_replication"
    )
    assert row is not None
    standbys, synchronous, hidden = row
    if not standbys:
        yield Finding("standby", OK, "none: what is committed is on this server alone")
    elif hidden:
        yield Finding("standby", OK, f"{standbys}; whether they are synchronous is not shown to this user")
    elif not synchronous:
        yield Finding(
            "standby",
            WARNING,
            f"{standbys}, none of them synchronous: when one takes over, the last commits are lost",
            "set synchronous_standby_names",
        )
    else:
        yield Finding("standby", OK, f"{standbys}, {synchronous} of them synchronous")


def _clock(db: Database) -> Iterator[Finding]:
    before = time.time()
    theirs = float(db.value("SELECT extract(epoch FROM clock_timestamp())"))
    after = time.time()
    ahead = theirs - (before + after) / 2
    # An answer that takes long says less.
    if abs(ahead) > _CLOCK_SECONDS + (after - before) / 2:
        where = "ahead of" if ahead > 0 else "behind"
        yield Finding(
            "clock",
            WARNING,
            f"the server's is {abs(ahead):.0f} seconds {where} this machine's: times will be out of order",
            "synchronise both by NTP",
        )
    else:
        yield Finding("clock", OK, "the server's and this machine's agree")


def _pooler(db: Database) -> Iterator[Finding]:
    first = int(db.value("SELECT pg_backend_pid()"))
    with contextlib.closing(Database(db.url)) as other, other.snapshot():
        # A pooler in transaction mode gives this transaction the backend that is free, or else gives it to the next.
        taken = int(other.value("SELECT pg_backend_pid()"))
        second = int(db.value("SELECT pg_backend_pid()"))
    if taken == first or second != first:
        yield Finding(
            "pooler",
            PROBLEM,
            "one that gives each transaction another session: locks and LISTEN do not hold",
            "use the server's own address, or the pooler in session mode",
        )
    elif first != db.session.info.backend_pid:
        yield Finding("pooler", OK, "one in session mode")
    else:
        yield Finding("pooler", OK, "none")


def _transactions(db: Database) -> Iterator[Finding]:
    rows = db.rows(
        "SELECT extract(epoch FROM clock_timestamp() - xact_start)::float, 'session ' || pid || coalesce("
        "' of ' || nullif(application_name, ''), ''), backend_xid IS NOT NULL FROM pg_stat_activity"
        " WHERE xact_start IS NOT NULL AND backend_type = 'client backend' AND pid <> pg_backend_pid()"
        " AND (backend_xid IS NOT NULL OR datname = current_database())"
        " UNION ALL SELECT extract(epoch FROM clock_timestamp() - prepared)::float, 'prepared transaction ' ||"
        " quote_literal(gid), true FROM pg_prepared_xacts ORDER BY 1 DESC"
    )
    # What has written holds up more than what only reads.
    for writes, harm in (
        (True, "the feed of events waits for it"),
        (False, "what it may still read is not cleaned up"),
    ):
        found = next((row for row in rows if row[2] == writes and row[0] > LONG_TRANSACTION), None)
        if found is not None:
            yield Finding(
                "transactions",
                WARNING,
                f"{found[1]} has one open for {_span(found[0])}: {harm}",
                "end it: see pg_stat_activity, pg_terminate_backend and ROLLBACK PREPARED",
            )
            return
    longest = f"; the longest for {_span(rows[0][0])}" if rows else ""
    yield Finding("transactions", OK, f"{len(rows)} of others open{longest}")


def _schema(found: int) -> Finding:
    if not found:
        return Finding("schema", PROBLEM, "there is no ledger in this database", remedy=MAKE_LEDGER)
    if found > VERSION:
        return Finding(
            "schema",
            PROBLEM,
            f"{found}, of a newer ws-manager; this one knows {VERSION}",
            "upgrade ws-manager",
        )
    if found < VERSION:
        return Finding(
            "schema",
            WARNING,
            f"{found}, older than {VERSION}",
            "the next command brings it up to date; make a dump first if you may go back",
        )
    return Finding("schema", OK, f"{VERSION}, the current version")


def _seal(db: Database) -> Iterator[Finding]:
    seal = seal_of(db)
    if seal is not None:
        yield seal.finding


def _restored(db: Database) -> Iterator[Finding]:
    """Look for rows of transactions that are still to come: readers who follow would not find them."""
    ahead = restored(db)
    if ahead:
        yield Finding(
            "restored",
            PROBLEM,
            f"{', '.join(ahead)}: rows of another server's transactions, which readers here do not find",
            "the next command that writes, or a gateway that starts, mends them",
        )


def _gateways(db: Database) -> Iterator[Finding]:
    rows = db.rows(
        "SELECT url, pid, seen_at, extract(epoch FROM until - clock_timestamp())::float FROM gateways"
        " LEFT JOIN leases ON gateway = id ORDER BY until > clock_timestamp() DESC NULLS LAST, number DESC LIMIT 100"
    )
    if not rows:
        yield Finding("gateways", WARNING, "none has ever run on this ledger", remedy=START_GATEWAY)
        return
    gone = [(url, pid, -left) for url, pid, _, left in rows if left is not None and left <= 0]
    if gone:
        shown = [f"{url}, process {pid}, {_span(ago)} ago" for url, pid, ago in gone[:_SHOWN]]
        more = [f"and {len(gone) - _SHOWN} more"] if len(gone) > _SHOWN else []
        yield Finding(
            "leases",
            WARNING,
            f"{len(gone)} ran out within the last hour: {'; '.join([*shown, *more])}",
            "look whether these gateways were killed, or cannot reach the database",
        )
    living = [(url, pid, LEASE_SECONDS - left) for url, pid, _, left in rows if left is not None and left > 0]
    if not living:
        yield Finding(
            "gateways", WARNING, f"none runs; the last was seen at {rows[0][2]}", remedy=START_GATEWAY
        )
        return
    shown = [
        f"{url}, process {pid}, lease renewed {max(age, 0):.0f} s ago" for url, pid, age in living[:_SHOWN]
    ]
    if len(living) > _SHOWN:
        shown.append(f"and {len(living) - _SHOWN} more")
    detail = f"{len(living)} run(s): {'; '.join(shown)}"
    late = [url for url, _, age in living if age > _LATE_SECONDS]
    if late:
        yield Finding(
            "gateways",
            WARNING,
            f"{detail}; late: {', '.join(late[:_SHOWN])}",
            "look whether they still run, and whether they reach the database",
        )
    else:
        yield Finding("gateways", OK, detail)


def _backlog(db: Database) -> Iterator[Finding]:
    """Say what has not arrived. What waits for long waits for somebody who does not come."""
    backlog: Backlog = whole_backlog(db)
    pending, set_aside, unrouted, oldest = backlog
    late = oldest is not None and oldest < seconds_before(utc_now(), LONG_PENDING)
    since = f", the oldest since {oldest}" if oldest else ""
    yield _counted("pending", f"{pending} message(s){since}", LIST_PENDING if late else None)
    yield _counted("set aside", f"{set_aside} message(s)", RETRY if set_aside else None)
    yield _counted("webhooks", f"{unrouted} event(s) unrouted", REPLAY if unrouted else None)


def _counted(check: str, detail: str, remedy: Optional[str]) -> Finding:
    return Finding(check, OK if remedy is None else WARNING, detail, remedy=remedy)


def _dead_rows(db: Database) -> Iterator[Finding]:
    row = db.row(
        "SELECT n_dead_tup, n_live_tup FROM pg_stat_user_tables WHERE schemaname = %s AND relname = 'messages'",
        (SCHEMA,),
    )
    dead, live = row or (0, 0)
    if dead > max(_MANY_DEAD, live):
        yield Finding(
            "dead rows",
            WARNING,
            f"{dead} in messages, beside {live} that live",
            "let autovacuum come more often: ALTER TABLE … SET (autovacuum_vacuum_scale_factor = 0.02)",
        )
    else:
        yield Finding("dead rows", OK, f"{dead} in messages, beside {live} that live")


def _size(db: Database) -> Iterator[Finding]:
    size = db.value(
        "SELECT pg_size_pretty(sum(pg_total_relation_size(oid))) FROM pg_class"
        " WHERE relkind = 'r' AND relnamespace = %s::regnamespace",
        (SCHEMA,),
    )
    yield Finding("size", OK, f"{size} with the indexes")


def _span(seconds: float) -> str:
    for unit, size in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * size:
            return f"{seconds // size:.0f} {unit}"
    return f"{seconds:.0f} seconds"


_SERVER: tuple[_Check, ...] = (_database, _server, _durability, _standby, _clock, _pooler, _transactions)
_LEDGER: tuple[_Check, ...] = (_seal, _restored, _gateways, _backlog, _dead_rows, _size)
