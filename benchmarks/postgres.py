"""What a ledger in PostgreSQL can do. The server is a private one that writes to the disk before it answers."""

from __future__ import annotations

import functools
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from benchmarks.ledgers import MESSAGE, Ledgers
from benchmarks.measure import Figure, middle, quarters, ratios, seconds
from benchmarks.processes import Gateway, Load, cpu_of_server, wait_for
from tests.postgres import Server, server
from ws_manager import Ledger, open_ledger
from ws_manager.models import new_id, new_ids, utc_now

CROWD = 100_000
EACH = 500
"""Sockets of each of two gateways."""

BROADCASTS = 100
SENDERS = 16
SENDING_SECONDS = 3.0

_COLUMNS = ("msg_id", "recipient_id", "msg_type", "content", "sent_at", "broadcast_id", "gateway")
_SENDER = """
import sys, time
from ws_manager import open_ledger
url, ws_id, hints, seconds = sys.argv[1:]
if hints == "without":
    from ws_manager.repository.postgres.database import Database
    Database.send_hint = lambda self, channels: None
with open_ledger(url) as ledger:
    ledger.send(ws_id, 0)
    print("ready", flush=True)
    sys.stdin.readline()
    sent, until = 0, time.monotonic() + float(seconds)
    while time.monotonic() < until:
        ledger.send(ws_id, sent)
        sent += 1
    print(sent, flush=True)
"""

Row = Callable[[Ledgers], list[Figure]]


def _where_there_is_a_server(work: Callable[[Server, Ledgers], list[Figure]]) -> Row:
    """Give a row a server; where there can be none, the row says why."""

    @functools.wraps(work)
    def row(ledgers: Ledgers) -> list[Figure]:
        try:
            with server(durable=True) as started:
                return work(started, ledgers)
        except pytest.skip.Exception as error:
            return [Figure(f"{work.__name__} on PostgreSQL", f"not measured: {error}")]

    return row


@_where_there_is_a_server
def broadcasting(pg: Server, ledgers: Ledgers) -> list[Figure]:
    """`broadcast` to 100,000, and a bare COPY of the same rows into the same table, in turn."""
    with open_ledger(pg.new()) as ledger:
        db = ledger._store.db  # type: ignore[attr-defined]
        db.execute(
            "INSERT INTO connections (ws_id, agent, gateway) SELECT 'ws-' || lpad(n::text, 7, '0'),"
            " 'agent-' || mod(n, 100), 'gateway-' || mod(n, 2) FROM generate_series(1, %s) AS n",
            (CROWD,),
        )
        recipients = db.rows("SELECT ws_id, gateway FROM connections ORDER BY ws_id")

        def copy() -> None:
            broadcast_id, content, at = new_id(), '{"event":"deploy","version":"2.1.0"}', utc_now()
            rows = (
                (msg_id, ws_id, "data", content, at, broadcast_id, gateway)
                for msg_id, (ws_id, gateway) in zip(new_ids(CROWD, beside=broadcast_id), recipients)
            )
            with db.session.transaction():
                db.copy("messages", _COLUMNS, rows)

        def broadcast() -> None:
            assert len(ledger.broadcast({"event": "deploy", "version": "2.1.0"}).recipients) == CROWD

        copy()
        broadcast()
        copied, sent = [], []
        for _ in range(3):
            copied.append(seconds(copy))
            sent.append(seconds(broadcast))
    rates, share = [CROWD / taken for taken in sent], ratios(copied, sent)
    return [
        Figure(
            f"`broadcast` to {CROWD:,}, on PostgreSQL",
            f"{middle(rates):,.0f}/s",
            "at least 50,000/s",
            middle(rates) >= 50_000,
            quarters(rates, "/s", digits=0),
        ),
        Figure(
            "… a bare COPY of the same rows takes, of that time",
            f"{middle(share):.2f}",
            "at least 0.8",
            middle(share) >= 0.8,
            quarters(share),
        ),
    ]


@contextmanager
def _two_gateways(pg: Server, folder: Path, each: int) -> Iterator[tuple[Ledger, Load]]:
    """Two gateways, each with this number of agents, which confirm by Pong."""
    url = pg.new()
    with ExitStack() as stack:
        load = Load()
        stack.callback(load.end)
        for name in ("one", "two"):
            gateway = Gateway(url, log=folder / f"{name}.log")
            stack.callback(gateway.end)
            load.open(name, "pong", each, gateway.port)
        time.sleep(2)
        yield stack.enter_context(open_ledger(url)), load


def _have(load: Load, messages: int) -> bool:
    """Return whether the agents have this number of messages, all together."""
    return sum(int(load("state", name)["received"]) for name in ("one", "two")) >= messages


@_where_there_is_a_server
def delivering(pg: Server, ledgers: Ledgers) -> list[Figure]:
    """Broadcasts to two gateways' sockets, until they are marked as delivered: the server's CPU."""
    rates = []
    assert pg.process is not None
    with _two_gateways(pg, ledgers.folder, EACH) as (ledger, load):
        crowd = 2 * EACH
        for number in range(4):
            before, goal = cpu_of_server(pg.process.pid), (number + 1) * crowd * BROADCASTS
            for _ in range(BROADCASTS):
                assert len(ledger.broadcast(MESSAGE).recipients) == crowd
            wait_for(functools.partial(_have, load, goal))
            wait_for(lambda: not ledger._store.overview.whole_backlog().pending)
            if number:
                rates.append(crowd * BROADCASTS / (cpu_of_server(pg.process.pid) - before))
    return [
        Figure(
            f"two gateways of {EACH} sockets, {BROADCASTS} broadcasts back to back: written, read, marked",
            f"{middle(rates):,.0f} per CPU-second of PostgreSQL",
            "at least 16,000",
            middle(rates) >= 16_000,
            quarters(rates, digits=0),
        )
    ]


@_where_there_is_a_server
def latency(pg: Server, ledgers: Ledgers) -> list[Figure]:
    """From commit to frame, with two gateways that have little to do."""
    with _two_gateways(pg, ledgers.folder, 50) as (ledger, load):
        for name in ("one", "two"):
            load("watch", name)
        committed, began = [], time.monotonic()
        for number in range(300):
            time.sleep(max(0.0, began + number * 0.037 - time.monotonic()))
            ledger.broadcast({"n": number})
            committed.append(time.monotonic())
        wait_for(lambda: _have(load, 300 * 100))
        times = [
            max(0.0, at - committed[number])
            for name in ("one", "two")
            for number, at in load("arrivals", name)
        ]
    cuts = statistics.quantiles(times, n=100, method="inclusive")
    p50, p99 = cuts[49] * 1000, cuts[98] * 1000
    return [
        Figure(
            "commit to frame, two gateways of 50 sockets, on PostgreSQL",
            f"p50 {p50:.1f} ms, p99 {p99:.1f} ms",
            "p50 5 ms, p99 25 ms",
            p50 <= 5 and p99 <= 25,
        )
    ]


@_where_there_is_a_server
def hinting(pg: Server, ledgers: Ledgers) -> list[Figure]:
    """16 processes that send, with hints and without."""
    url = pg.new()
    rates: dict[str, list[float]] = {"with": [], "without": []}
    with open_ledger(url) as ledger:
        for number in range(SENDERS):
            ledger.delivery.open_socket("octavia", f"ws-{number}", None, "g")
        changes = ledger.again().changes("g")
        changes.happened()
        for _ in range(3):
            for hints, found in rates.items():
                found.append(_sent(url, hints))
        changes.close()
    share = ratios(rates["with"], rates["without"])
    return [
        Figure(
            f"{SENDERS} processes that send, on PostgreSQL",
            f"{middle(rates['with']):,.0f}/s",
            spread=quarters(rates["with"], "/s", digits=0),
        ),
        Figure(
            "… of that without hints",
            f"{middle(share):.2f}",
            "at least 0.7",
            middle(share) >= 0.7,
            quarters(share),
        ),
    ]


def _sent(url: str, hints: str) -> float:
    """Return the commits a second of all senders."""
    senders = [
        subprocess.Popen(
            [sys.executable, "-c", _SENDER, url, f"ws-{number}", hints, str(SENDING_SECONDS)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(SENDERS)
    ]
    for sender in senders:
        assert sender.stdout is not None
        assert sender.stdout.readline() == "ready\n"
    for sender in senders:
        assert sender.stdin is not None
        sender.stdin.write("\n")
        sender.stdin.flush()
    return sum(int(sender.communicate()[0]) for sender in senders) / SENDING_SECONDS


ROWS: dict[str, Row] = {
    "postgres-broadcast": broadcasting,
    "postgres-delivery": delivering,
    "postgres-latency": latency,
    "postgres-hints": hinting,
}
"""Every row by the name that is typed."""
