"""What a gateway deletes by and by."""

from __future__ import annotations

from pathlib import Path

from tests.support import Clock, gateway, open_db
from ws_manager.core.ledger import ledger_over
from ws_manager.models import seconds_before, utc_now

DAY = 86400.0


def log(database: Path, *ages: float) -> None:
    db = open_db(database)
    with db.transaction():
        for age in ages:
            db.execute(
                "INSERT INTO heartbeat_log (ws_id, ts) VALUES (?, ?)",
                ("ws-001", seconds_before(utc_now(), age)),
            )
    db.close()


def confirmed_long_ago(database: Path) -> None:
    """A message that was confirmed 40 days ago, and one that is as old and pending."""
    db = open_db(database)
    ledger = ledger_over(db)
    ledger.connect("octavia", "ws-001")
    for _ in range(2):
        ledger.send("ws-001", "x")
    then = seconds_before(utc_now(), 40 * DAY)
    db.execute("UPDATE messages SET sent_at = ?", (then,))
    db.execute("UPDATE messages SET delivered = 1, confirmed_at = ? WHERE id = 1", (then,))
    db.close()


async def test_heartbeats_are_logged_for_a_day(database: Path) -> None:
    log(database, 3 * DAY, 1.1 * DAY, 0.9 * DAY, 10.0)

    async with gateway(database) as running:
        await running.until(lambda: running.db.value("SELECT count(*) FROM heartbeat_log") == 2)
        assert running.db.value("SELECT min(id) FROM heartbeat_log") == 3


async def test_heartbeats_that_a_clock_left_in_the_future_do_not_keep_those_behind_them(
    database: Path,
) -> None:
    log(database, -1000 * DAY, 3 * DAY, -0.1 * DAY, 10.0)

    async with gateway(database) as running:
        await running.until(lambda: running.db.value("SELECT count(*) FROM heartbeat_log") == 2)
        assert running.db.value("SELECT min(id) FROM heartbeat_log") == 3


async def test_how_long_can_be_chosen(database: Path) -> None:
    log(database, 3600.0, 10.0)

    async with gateway(database, log_keep=60) as running:
        await running.until(lambda: running.db.value("SELECT count(*) FROM heartbeat_log") == 1)


async def test_how_often_they_are_logged_can_be_chosen(database: Path) -> None:
    clock = Clock()
    async with gateway(database, now=clock, heartbeat_timeout=30, log_interval=15) as running:
        agent = await running.agent()
        for count in (1, 2):
            clock.forward(16)
            await agent.send(9, b"")
            await running.until(lambda: running.db.value("SELECT count(*) FROM heartbeat_log") == count)  # noqa: B023


async def test_nothing_else_is_deleted_unless_said(database: Path) -> None:
    confirmed_long_ago(database)
    log(database, 3 * DAY)

    async with gateway(database) as running:
        await running.until(lambda: not running.db.value("SELECT count(*) FROM heartbeat_log"))
        assert running.db.value("SELECT count(*) FROM messages") == 2


async def test_what_is_over_is_pruned_where_it_is_said(database: Path) -> None:
    confirmed_long_ago(database)

    async with gateway(database, keep=30 * DAY) as running:
        await running.until(lambda: running.db.value("SELECT count(*) FROM messages") == 1)
        assert running.db.value("SELECT delivered FROM messages") == 0
