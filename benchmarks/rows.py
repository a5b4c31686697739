"""What is measured, a function for each row of the table of budgets. Each returns its figures."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from benchmarks import gateway, postgres
from benchmarks.ledgers import MESSAGE, Ledgers
from benchmarks.measure import Figure, in_turn, middle, quarters, ratios, seconds
from benchmarks.peers import peers
from ws_manager import (
    ConnectionPool,
    broadcast,
    connection_stats,
    get_db,
    get_message_history,
    open_ledger,
    send_message,
)
from ws_manager.models import Broadcast
from ws_manager.repository.sqlite.database import Database

HELLO = Path(__file__).with_name("hello.py")
MANY = 1_000_000
CROWD = 100_000


def start_up(ledgers: Ledgers) -> list[Figure]:
    """One-shot commands, against a Typer program that does nothing."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}

    def program(*arguments: str) -> Callable[[], object]:
        return lambda: subprocess.run(
            [sys.executable, *arguments], env=environment, check=True, stdout=subprocess.DEVNULL
        )

    works = {
        "hello": program(str(HELLO), "world"),
        "send": program("-m", "ws_manager", "send", "ws-0000001", '{"ping":true}'),
        "connect": program("-m", "ws_manager", "connect", "octavia", "--ws-id", "ws-0000001"),
        "heartbeat": program("-m", "ws_manager", "heartbeat", "ws-0000001", "--latency", "12"),
    }
    with ledgers.copy(ledgers.of(10)) as db:
        environment["BLACKROAD_WS_DB"] = str(db.path)
        # After this, what is imported has been compiled and is in the file system's cache.
        in_turn(3, *works.values())
        hello, *others = in_turn(31, *works.values())
    figures = [Figure("a Typer program that says hello", f"{middle(hello) * 1000:.0f} ms")]
    for name, times in zip(list(works)[1:], others):
        paired = ratios(times, hello)
        figures.append(
            Figure(
                f"one-shot `{name}`",
                f"{middle(paired):.2f} × hello ({middle(times) * 1000:.0f} ms)",
                "at most 1.25 ×",
                middle(paired) <= 1.25,
                quarters(paired, " ×"),
            )
        )
    return figures


def opening(ledgers: Ledgers) -> list[Figure]:
    """`get_db()` and `ConnectionPool(db)` on a current schema."""

    def opened(path: Path) -> Callable[[], object]:
        def work() -> None:
            db = get_db(path)
            ConnectionPool(db)
            opened_connections.append(db)

        return work

    opened_connections: list[sqlite3.Connection] = []
    sizes = (10, MANY)
    figures = []
    for size, times in zip(sizes, in_turn(51, *(opened(ledgers.of(size)) for size in sizes))):
        figures.append(
            Figure(
                f"`get_db()` and `ConnectionPool(db)`, {size:,} connections",
                f"{middle(times) * 1000:.2f} ms",
                "at most 2 ms",
                middle(times) <= 0.002,
                quarters(times, " ms", 1000),
            )
        )
    for db in opened_connections:
        db.close()
    return figures


def sending(ledgers: Ledgers) -> list[Figure]:
    """`send_message` among many connections and among few."""
    with ExitStack() as stack:

        def sender(size: int) -> Callable[[], object]:
            db = stack.enter_context(ledgers.copy(ledgers.of(size)))
            pool = ConnectionPool(db)
            ws_ids = iter(f"ws-{(number * 7919) % size:07d}" for number in range(10_000))
            return lambda: send_message(pool, db, next(ws_ids), MESSAGE)

        few, many = sender(1000), sender(MANY)
        in_turn(20, few, many)
        among_few, among_many = in_turn(501, few, many)
    ratio = middle(among_many) / middle(among_few)
    return [
        Figure(
            f"`send_message` among {MANY:,} connections",
            f"{ratio:.2f} × among 1,000 ({middle(among_many) * 1000:.2f} ms, {middle(among_few) * 1000:.2f} ms)",
            "at most 1.2 ×",
            ratio <= 1.2,
            quarters(ratios(among_many, among_few), " ×"),
        )
    ]


def broadcasting(ledgers: Ledgers) -> list[Figure]:
    """`broadcast` without a filter to 100,000."""
    empty, full = ledgers.of(CROWD), ledgers.of(CROWD, MANY)
    into: dict[str, list[float]] = {"empty": [], "full": []}
    checkpoints: dict[str, list[float]] = {"empty": [], "full": []}
    for _ in range(7):
        for name, path in (("empty", empty), ("full", full)):
            with ledgers.copy(path) as db:
                into[name].append(_broadcast(db))
                checkpoints[name].append(seconds(db.checkpoint))
    figures = []
    for name, what, budget in (
        ("empty", "an empty ledger", 120_000),
        ("full", f"one of {MANY:,} messages", 90_000),
    ):
        rates = [CROWD / taken for taken in into[name]]
        figures += [
            Figure(
                f"`broadcast` to {CROWD:,} into {what}",
                f"{middle(rates):,.0f}/s",
                f"at least {budget:,}/s",
                middle(rates) >= budget,
                quarters(rates, "/s", digits=0),
            ),
            Figure("… its checkpoint, not in the time above", f"{middle(checkpoints[name]) * 1000:,.0f} ms"),
        ]
    return figures


def _broadcast(db: Database, filter_fn: Callable[..., bool] | None = None) -> float:
    pool = ConnectionPool(db)

    def work() -> None:
        assert len(broadcast(pool, db, MESSAGE, filter_fn)) == CROWD

    return seconds(work)


def filtering(ledgers: Ledgers) -> list[Figure]:
    """`broadcast` with a filter to 100,000: a pool that has decoded nothing yet."""
    rates = []
    for _ in range(7):
        with ledgers.copy(ledgers.of(CROWD)) as db:
            rates.append(CROWD / _broadcast(db, lambda c: c.metadata["region"] == "us-west"))
    return [
        Figure(
            f"`broadcast` with `filter_fn` to {CROWD:,}",
            f"{middle(rates):,.0f}/s",
            "at least 60,000/s",
            middle(rates) >= 60_000,
            quarters(rates, "/s", digits=0),
        )
    ]


def reading(ledgers: Ledgers) -> list[Figure]:
    """`history` and `stats` at 1,000,000 messages and 100,000 connections, in the library."""
    db = get_db(ledgers.of(CROWD, MANY))
    pool = ConnectionPool(db)
    works: dict[str, tuple[Callable[[], object], float]] = {
        "`history --limit 50`": (lambda: get_message_history(db, limit=50), 0.020),
        "`history --limit 50 --ws-id`": (lambda: get_message_history(db, "ws-0050000", 50), 0.020),
        "`stats`": (lambda: connection_stats(pool, db), 0.060),
    }
    measured = in_turn(31, *(work for work, _ in works.values()))
    db.close()
    return [
        Figure(
            f"{what}, {MANY:,} messages, {CROWD:,} connections",
            f"{middle(times) * 1000:.2f} ms",
            f"at most {budget * 1000:.0f} ms",
            middle(times) <= budget,
            quarters(times, " ms", 1000),
        )
        for (what, (_, budget)), times in zip(works.items(), measured)
    ]


def following_broadcasts(ledgers: Ledgers) -> list[Figure]:
    """How far the delivery of broadcasts to 1,000 is, among 1,000,000 messages."""
    with open_ledger(ledgers.of(1000, MANY), read_only=True) as ledger:
        middle_one = Broadcast(ledger.broadcasts(MANY // 1000)[MANY // 2000].broadcast_id, [])
        works: dict[str, tuple[Callable[[], object], float]] = {
            "the state of a broadcast to 1,000": (lambda: ledger.wait(middle_one, 0), 0.005),
            "a list of 50 broadcasts to 1,000": (lambda: ledger.broadcasts(50), 0.050),
        }
        measured = in_turn(31, *(work for work, _ in works.values()))
    return [
        Figure(
            f"{what}, {MANY:,} messages",
            f"{middle(times) * 1000:.2f} ms",
            f"at most {budget * 1000:.0f} ms",
            middle(times) <= budget,
            quarters(times, " ms", 1000),
        )
        for (what, (_, budget)), times in zip(works.items(), measured)
    ]


def batch(ledgers: Ledgers) -> list[Figure]:
    """`send --batch` of 200,000 lines, the whole command."""
    lines = 200_000
    with ledgers.copy(ledgers.of(10)) as db:
        source = db.path.with_suffix(".ndjson")
        source.write_text((json.dumps(MESSAGE) + "\n") * lines, encoding="utf-8")
        command = [
            sys.executable,
            "-m",
            "ws_manager",
            "--db",
            str(db.path),
            "send",
            "ws-0000001",
            "--batch",
            str(source),
        ]

        def work() -> None:
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)

        rates = [lines / taken for taken in in_turn(5, work)[0]]
        assert connection_stats(ConnectionPool(db), db)["total_messages"] == 5 * lines
        source.unlink()
    return [
        Figure(
            f"`send --batch`, {lines:,} lines",
            f"{middle(rates):,.0f}/s",
            "at least 30,000/s",
            middle(rates) >= 30_000,
            quarters(rates, "/s", digits=0),
        )
    ]


ROWS: dict[str, Callable[[Ledgers], list[Figure]]] = {
    "start-up": start_up,
    "opening": opening,
    "send": sending,
    "broadcast": broadcasting,
    "filter": filtering,
    "history": reading,
    "broadcasts": following_broadcasts,
    "batch": batch,
    **gateway.ROWS,
    **postgres.ROWS,
    "peers": peers,
}
"""Every row by the name that is typed."""
