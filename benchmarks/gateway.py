"""What the gateway costs, and what agents that read nothing cost it. Each row runs `ws-manager serve` as it is."""

from __future__ import annotations

import signal
import statistics
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path
from typing import NamedTuple

from benchmarks.ledgers import Ledgers, add_pending
from benchmarks.measure import Figure, middle, quarters
from benchmarks.processes import LOOPS, Gateway, Load, Peak, serving, socket_memory, wait_for
from ws_manager.core.ledger import ledger_over, open_ledger
from ws_manager.repository.sqlite.database import Database

KIB, MIB = 1024, 1024 * 1024
CROWD = 1000
BROADCASTS = 100
RUNS = 5
"""Gateways that are started, one after the other: one differs from the next by more than its rounds do."""
PENDING_OF_ONE = 200_000
PENDING_OF_EACH = 10_000
UNTIL_CLOSED = 60.0
"""Seconds: the time-out of 30 and then some."""


def stalled_one(ledgers: Ledgers) -> list[Figure]:
    """One agent that reads nothing, or confirms nothing, with very many messages for it."""
    cases = [
        (kind, size, live)
        for size in (100, KIB, 100 * KIB)
        for kind, live in (("stalled", False), ("stalled", True), ("mute", False), ("pong", False))
    ]
    ledgers.of(10)
    # Its memory does not depend on what else the machine does.
    with ThreadPoolExecutor(4) as several:
        return list(several.map(lambda case: _stalled_one(ledgers, *case), cases))


def _stalled_one(ledgers: Ledgers, kind: str, size: int, live: bool) -> Figure:
    # 20 GB would be needed for as many of the large ones.
    count = PENDING_OF_ONE if size <= KIB else PENDING_OF_ONE // 100
    with ledgers.copy(ledgers.of(10)) as db:
        add_pending(db, kind, 1, 0 if live else count, size)
        with serving(db.path) as (gateway, load):
            before = gateway.memory()
            peak = Peak(gateway.memory)
            peak.start()
            load.open(kind, kind, 1, gateway.port)
            if live:
                for _ in range(0, count, 1000):
                    add_pending(db, kind, 1, min(count, 1000), size)
            if kind == "pong":
                wait_for(lambda: load("state", kind)["received"] == count)
            elif kind == "mute":
                time.sleep(15)
            else:
                wait_for(lambda: _closed(db, kind) == 1, UNTIL_CLOSED)
            cost = peak.stop()[0] - before
    what = {
        "stalled": "an agent that reads nothing",
        "mute": "one that confirms nothing",
        "pong": "a healthy one",
    }
    when = "sent while it is connected" if live else "pending"
    return Figure(
        f"{what[kind]}, {count:,} messages of {size:,} bytes {when}",
        f"{cost / MIB:.2f} MiB",
        "" if kind == "pong" else "less than 5 MiB",
        None if kind == "pong" else cost < 5 * MIB,
    )


def _closed(db: Database, agent: str) -> int:
    return int(
        db.value("SELECT count(*) FROM connections WHERE agent = ? AND close_code IS NOT NULL", (agent,))
    )


def stalled_many(ledgers: Ledgers) -> list[Figure]:
    """1,000 agents that read nothing, and 1,000 that have nothing to do."""
    figures = []
    with ledgers.copy(ledgers.of(10)) as db, serving(db.path) as (gateway, load):
        before = gateway.memory()
        load.open("idle", "pong", CROWD, gateway.port)
        time.sleep(2)
        figures.append(
            Figure(f"{CROWD:,} idle sockets", f"{(gateway.memory() - before) / CROWD / KIB:.1f} KiB each")
        )
    with ledgers.copy(ledgers.of(10)) as db:
        add_pending(db, "stalled", CROWD, PENDING_OF_EACH, 100)
        with serving(db.path) as (gateway, load):
            before, kernel_before = gateway.memory(), socket_memory()
            peak = Peak(gateway.memory, socket_memory)
            peak.start()
            taken = load.open("stalled", "stalled", CROWD, gateway.port)
            wait_for(lambda: _closed(db, "stalled") == CROWD, UNTIL_CLOSED)
            cost, kernel_cost = peak.stop()
    each = (cost - before) / CROWD / KIB
    figures += [
        Figure(
            f"{CROWD:,} agents that read nothing, {PENDING_OF_EACH:,} messages pending for each",
            f"{each:.1f} KiB each",
            "at most 100 KiB each",
            each <= 100,
        ),
        Figure("… in the kernel's buffers", f"{(kernel_cost - kernel_before) / CROWD / KIB:.0f} KiB each"),
        Figure("… until all were connected", f"{taken:.1f} s"),
    ]
    return figures


def p99(ledgers: Ledgers) -> list[Figure]:
    """Healthy agents' latency beside 1,000 that read nothing, and without them, in turn."""
    healthy, rounds = 50, 4
    alone: list[list[float]] = []
    beside: list[list[float]] = []
    arriving: list[float] = []
    with ledgers.copy(ledgers.of(10)) as db:
        add_pending(db, "stalled", CROWD, PENDING_OF_EACH, 100)
        with serving(db.path) as (gateway, load):
            others = Load()
            load.open("healthy", "pong", healthy, gateway.port)
            for _ in range(rounds):
                # What connecting and closing left to do is done by then.
                time.sleep(2)
                alone.append(_latencies(db, load, "healthy", healthy, 100, 0.1))
                others.begin("stalled", "stalled", CROWD, gateway.port)
                while others("state", "stalled")["opened"] < CROWD:
                    arriving += _latencies(db, load, "healthy", healthy, 5, 0.1)
                time.sleep(2)
                beside.append(_latencies(db, load, "healthy", healthy, 100, 0.1))
                others("close", "stalled")
                wait_for(lambda: _closed(db, "stalled") == CROWD)
            others.end()
    ratios = [_percentile(those, 99) / _percentile(to, 99) for those, to in zip(beside, alone)]
    figures = [
        Figure(
            f"commit to frame, {healthy} healthy agents{name}",
            f"p50 {_percentile(times, 50) * 1000:.1f} ms, p99 {_percentile(times, 99) * 1000:.1f} ms",
        )
        for name, times in (
            ("", [*chain(*alone)]),
            (f" beside {CROWD:,} that read nothing", [*chain(*beside)]),
            (f" while {CROWD:,} that read nothing connect", arriving),
        )
    ]
    return [
        *figures,
        Figure(
            "… the ratio of the p99, with them and without",
            f"{middle(ratios):.2f} ×",
            "at most 1.5 ×",
            middle(ratios) <= 1.5,
            quarters(ratios, " ×"),
        ),
    ]


def _latencies(
    db: Database, load: Load, agent: str, recipients: int, broadcasts: int, every: float
) -> list[float]:
    """Broadcast so often, and return the seconds from each commit to each frame."""
    ledger = ledger_over(db)
    load("watch", agent)
    goal = load("state", agent)["received"] + recipients * broadcasts
    committed = []
    began = time.monotonic()
    for number in range(broadcasts):
        time.sleep(max(0.0, began + number * every - time.monotonic()))
        ledger.broadcast({"n": number, "text": "x" * 80}, agent=agent)
        committed.append(time.monotonic())
    wait_for(lambda: load("state", agent)["received"] >= goal)
    # A gateway may see a commit before the one who commits is told.
    return [max(0.0, at - committed[number]) for number, at in load("arrivals", agent)]


def _percentile(values: list[float], percent: int) -> float:
    return statistics.quantiles(values, n=100, method="inclusive")[percent - 1]


def storm(ledgers: Ledgers) -> list[Figure]:
    """The gateway is killed under 1,000 agents, and started again."""
    figures = []
    for kind in ("ack", "pong"):
        runs = [_storm(ledgers, kind) for _ in range(3)]
        back, complete, marked, again = zip(*runs)
        confirming = {"ack": "by explicit ack", "pong": "by Pong"}[kind]
        figures += [
            Figure(
                f"SIGKILL under {CROWD:,} agents that confirm {confirming}: from the new start until all are back"
                " and have everything",
                f"{middle(list(complete)):.1f} s (slowest {max(complete):.1f} s)",
                "at most 30 s",
                max(complete) <= 30,
                quarters(list(complete), " s"),
            ),
            Figure("… until all are back", f"{middle(list(back)):.1f} s"),
            Figure("… until the ledger says that everything is delivered", f"{middle(list(marked)):.1f} s"),
            Figure("… messages that came twice", f"{middle(list(again)):,.0f}"),
        ]
    return figures


def _storm(ledgers: Ledgers, kind: str) -> tuple[float, float, float, float]:
    """Return the seconds until all are back, have everything, and it is marked; and how much came twice."""

    def send(seconds: float) -> None:
        began = time.monotonic()
        while time.monotonic() < began + seconds:
            ledger.broadcast({"n": 0, "text": "x" * 80}, agent="storm")
            time.sleep(0.1)

    load = Load()
    with ledgers.copy(ledgers.of(10)) as db:
        ledger = ledger_over(db)
        gateway = Gateway(db.path)
        try:
            load.open("storm", kind, CROWD, gateway.port, returns=True)
            send(3)
            ledger.broadcast({"n": 0, "text": "x" * 80}, agent="storm")
            # In the middle of it.
            time.sleep(0.02)
            gateway.end(signal.SIGKILL)
            send(2)
            began = time.monotonic()
            gateway = Gateway(db.path, gateway.port)
            send(1)
            rows, last = db.rows("SELECT count(*), max(id) FROM messages WHERE sender_id IS NULL")[0]
            wait_for(lambda: load("state", "storm")["opened"] == CROWD)
            wait_for(lambda: load("state", "storm")["received"] >= rows)
            wait_for(lambda: db.value("SELECT count(*) FROM messages WHERE delivered = 1") == rows)
            marked = time.monotonic() - began
            state, each = load("state", "storm"), load("each", "storm")
            assert state["disorder"] == 0
            for ws_id, received, _, highest in each:
                its_own = "SELECT count(*), max(id) FROM messages WHERE recipient_id = ?"
                assert tuple(db.rows(its_own, (ws_id,))[0]) == (received, highest)
            assert last == max(agent[3] for agent in each)
        finally:
            load.end()
            gateway.end()
    return (
        state["full_at"] - began,
        max(state["full_at"], state["last_at"]) - began,
        marked,
        sum(agent[2] for agent in each),
    )


def throughput(ledgers: Ledgers) -> list[Figure]:
    """Broadcasts to 1,000 sockets, committed by another process, until they are marked as delivered."""
    runs: dict[str, list[_Run]] = {loop: [] for loop in LOOPS}
    for _ in range(RUNS):
        for loop in LOOPS:
            runs[loop].append(_throughput(ledgers, loop))
    figures = []
    for loop, its in runs.items():
        fast = loop == "uvloop"
        together, paced = [run.together for run in its], [run.paced for run in its]
        p50, p99 = ([_percentile(run.times, percent) * 1000 for run in its] for percent in (50, 99))
        figures += [
            _rate(f"100 broadcasts back to back, on {loop}", together, 60_000 if fast else 50_000),
            _rate(f"a broadcast every 100 ms, on {loop}", paced, 20_000 if fast else 18_000),
            Figure(
                "… from commit to frame",
                f"p50 {middle(p50):.1f} ms, p99 {middle(p99):.1f} ms",
                "p50 12 ms, p99 25 ms",
                middle(p50) <= 12 and middle(p99) <= 25,
                f"p99 {quarters(p99, ' ms', digits=1)}",
            ),
        ]
    return figures


class _Run(NamedTuple):
    """What one gateway did: messages per CPU-second, and seconds from commit to frame of the paced ones."""

    together: float
    paced: float
    times: list[float]


def _throughput(ledgers: Ledgers, loop: str) -> _Run:
    together, _ = _rounds(ledgers, loop, 0.0, 3)
    paced, times = _rounds(ledgers, loop, 0.1, 1)
    return _Run(together, paced, times)


def _rounds(ledgers: Ledgers, loop: str, every: float, rounds: int) -> tuple[float, list[float]]:
    """Return messages per CPU-second, and the seconds from commit to frame, after half a round to warm up."""
    with ledgers.copy(ledgers.of(10)) as db, serving(db.path, loop) as (gateway, load):
        load.open("crowd", "pong", CROWD, gateway.port)
        time.sleep(1)

        _latencies(db, load, "crowd", CROWD, BROADCASTS // 2, every)
        before, times = gateway.cpu(), []
        for _ in range(rounds):
            times += _latencies(db, load, "crowd", CROWD, BROADCASTS, every)
            wait_for(lambda: db.value("SELECT count(*) FROM messages WHERE delivered = 0") == 0)
        rate = rounds * CROWD * BROADCASTS / (gateway.cpu() - before)
        assert load("state", "crowd")["disorder"] == 0
    return rate, times


def _rate(what: str, rates: list[float], budget: int) -> Figure:
    return Figure(
        f"{CROWD:,} sockets, {what}: pushed, confirmed, marked",
        f"{middle(rates):,.0f} per CPU-second",
        f"at least {budget:,}",
        middle(rates) >= budget,
        quarters(rates, digits=0),
    )


def _delay(what: str, times: list[float], most_p50: int, most_p99: int) -> Figure:
    p50, p99 = _percentile(times, 50) * 1000, _percentile(times, 99) * 1000
    return Figure(
        what,
        f"p50 {p50:.1f} ms, p99 {p99:.1f} ms",
        f"p50 {most_p50} ms, p99 {most_p99} ms",
        p50 <= most_p50 and p99 <= most_p99,
    )


def workers(ledgers: Ledgers) -> list[Figure]:
    """One process and two, in turn, with all cores for everybody."""
    speeds: dict[int, list[float]] = {1: [], 2: []}
    rates: dict[int, list[float]] = {1: [], 2: []}
    for count in (1, 2) * 3:
        with ledgers.copy(ledgers.of(10)) as db, serving(db.path, workers=count) as (gateway, load):
            load.open("crowd", "pong", CROWD, gateway.port)
            time.sleep(1)
            for number in range(3):
                cpu, began = gateway.cpu(), time.monotonic()
                _latencies(db, load, "crowd", CROWD, BROADCASTS, 0.0)
                wait_for(lambda: db.value("SELECT count(*) FROM messages WHERE delivered = 0") == 0)
                if number:
                    speeds[count].append(CROWD * BROADCASTS / (time.monotonic() - began))
                    rates[count].append(CROWD * BROADCASTS / (gateway.cpu() - cpu))
    return [
        Figure(
            f"{CROWD:,} sockets, 100 broadcasts back to back, with {count} worker(s)",
            f"{middle(speeds[count]):,.0f} a second ({middle(rates[count]):,.0f} per CPU-second)",
            spread=quarters(speeds[count], digits=0),
        )
        for count in (1, 2)
    ]


def latency(ledgers: Ledgers) -> list[Figure]:
    """From commit to frame on a gateway that has nothing else to do."""
    figures = []
    for loop in LOOPS:
        with ledgers.copy(ledgers.of(10)) as db, serving(db.path, loop) as (gateway, load):
            load.open("only", "pong", 1, gateway.port)
            times = _latencies(db, load, "only", 1, 500, 0.037)
        what = f"commit in another process to frame at the agent, idle gateway, on {loop}"
        figures.append(_delay(what, times, 2, 4))
    return figures


def beside(ledgers: Ledgers) -> list[Figure]:
    """Single messages to one agent, alone, and while 1,000 others get a broadcast every 100 ms."""
    with ledgers.copy(ledgers.of(10)) as db, serving(db.path, LOOPS[0]) as (gateway, load):
        load.open("crowd", "pong", CROWD, gateway.port)
        load.open("only", "pong", 1, gateway.port)
        alone = _latencies(db, load, "only", 1, 500, 0.037)
        ended = threading.Event()
        sender = threading.Thread(target=_broadcast_until, args=(ended, db.path))
        sender.start()
        during = _latencies(db, load, "only", 1, 1000, 0.037)
        ended.set()
        sender.join()
    later = (_percentile(during, 99) - _percentile(alone, 99)) * 1000
    return [
        Figure(
            f"commit to frame of a single message{name}",
            f"p50 {_percentile(times, 50) * 1000:.1f} ms, p99 {_percentile(times, 99) * 1000:.1f} ms",
        )
        for name, times in (("", alone), (f" while {CROWD:,} others get a broadcast every 100 ms", during))
    ] + [Figure("… how much later, at p99", f"{later:.1f} ms", "at most 30 ms", later <= 30)]


def _broadcast_until(ended: threading.Event, path: Path) -> None:
    with open_ledger(path) as ledger:
        while not ended.wait(0.1):
            ledger.broadcast({"n": 0, "text": "x" * 80}, agent="crowd")


def idle(ledgers: Ledgers) -> list[Figure]:
    """10,000 sockets that have nothing to do."""
    return [figure for loop in LOOPS for figure in _idle(ledgers, loop, 0.05 if loop == "uvloop" else 0.07)]


def _idle(ledgers: Ledgers, loop: str, budget: float) -> list[Figure]:
    count = 10_000
    with ledgers.copy(ledgers.of(10)) as db, serving(db.path, loop) as (gateway, load):
        before = gateway.memory()
        taken = load.open("idle", "pong", count, gateway.port)
        # Two thirds of the time-out: by then all of them had their heartbeats.
        time.sleep(20)
        cpu, pings, began = gateway.cpu(), load("state", "idle")["pings"], time.monotonic()
        time.sleep(40)
        spent = (gateway.cpu() - cpu) / (time.monotonic() - began)
        pings = load("state", "idle")["pings"] - pings
        assert load("state", "idle")["lost"] == 0
        each = (gateway.memory() - before) / count / KIB
    return [
        Figure(
            f"{count:,} idle sockets, on {loop}", f"{each:.1f} KiB each", "at most 28 KiB each", each <= 28
        ),
        Figure(
            f"… their heartbeats ({pings / 40:,.0f} Pings a second)",
            f"{spent * 100:.1f} % of a core",
            f"at most {budget * 100:.0f} %",
            spent <= budget,
        ),
        Figure("… until all were connected", f"{taken:.1f} s"),
    ]


ROWS: dict[str, Callable[[Ledgers], list[Figure]]] = {
    "throughput": throughput,
    "workers": workers,
    "latency": latency,
    "beside": beside,
    "idle": idle,
    "stalled-one": stalled_one,
    "stalled-many": stalled_many,
    "p99": p99,
    "storm": storm,
}
