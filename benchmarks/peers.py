"""The same load on other servers and on the gateway, all in one run. `make peers` installs them.

A server that is not there is skipped, with a line that says what to install.
"""

from __future__ import annotations

import json
import re
import resource
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from importlib.util import find_spec
from pathlib import Path

from benchmarks.ledgers import Ledgers
from benchmarks.measure import Figure, middle, quarters
from benchmarks.processes import (
    LOAD_CORE,
    LOOPS,
    PATIENCE,
    SERVER_CORE,
    Gateway,
    Load,
    cpu_of,
    on_core,
    wait_for,
)
from benchmarks.senders import Mqtt, Nats, Nchan
from ws_manager.core.ledger import ledger_over

CROWD, BROADCASTS, ROUNDS = 1000, 100, 5
CASES = {"back to back": 0.0, "one every 100 ms": 0.1}
FRAME = 145
"""Bytes of a frame with a message, in the other protocols. The gateway's own is that of the row `throughput`."""
LONGEST_ROUND = 600.0
SETTLING = 0.3
"""Seconds until a server has read the confirmations of what came last."""

_PEERS = Path(__file__).with_name("peer_servers")
_NCHAN = Path("/usr/lib/nginx/modules/ngx_nchan_module.so")


@dataclass
class Server:
    """A server that runs.

    Attributes:
        name: with its version.
        guarantee: what it promises about a message.
        kind: of its agents; see `kinds.c`.
        group: the name of its agents.
        pids: all of its processes.
        publish: sends a message, known by its number, to all agents.
        confirmed: whether nothing is left that an agent has not confirmed.
        sends_here: its sender does a part of its work in this process.
        broadcasts: of each round.
        sent: messages until now.
        greetings: bytes that its agents got before the first.
        rates: messages per CPU-second, of each round of each case.
        with_sender: the same with this process's CPU for sending.
    """

    name: str
    guarantee: str
    kind: str
    group: str
    port: int
    pids: list[int]
    publish: Callable[[int], None]
    confirmed: Callable[[], bool] = lambda: True
    sends_here: bool = False
    broadcasts: int = BROADCASTS
    sent: int = 0
    greetings: int = 0
    rates: dict[str, list[float]] = field(default_factory=lambda: {case: [] for case in CASES})
    with_sender: dict[str, list[float]] = field(default_factory=lambda: {case: [] for case in CASES})


def peers(ledgers: Ledgers) -> list[Figure]:
    """Broadcasts to 1,000 sockets of each server, in turn."""
    # They inherit it.
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    figures = [Figure(what, f"skipped: {install}") for what, there, install in _needs() if not there]
    skipped = {figure.what for figure in figures}
    starts = [start for what, start in _STARTS.items() if what not in skipped]
    starts += [partial(_ws_manager, loop=loop) for loop in LOOPS]
    with ExitStack() as stack:
        with on_core(SERVER_CORE):
            servers = [start(stack, ledgers) for start in starts]
        stack.enter_context(on_core(LOAD_CORE))
        load = Load()
        stack.callback(load.end)
        for server in servers:
            load.open(server.group, server.kind, CROWD, server.port)
        time.sleep(1)
        for server in servers:
            server.greetings = load("state", server.group)["bytes"]
        # In turn, so that whatever else the machine does falls on all of them alike. The first is to warm up.
        for number in range(1 + ROUNDS):
            for case, every in CASES.items():
                for server in servers:
                    alone, together = _round(server, load, every)
                    if number:
                        server.rates[case].append(alone)
                        server.with_sender[case].append(together)
        sizes = [_check(server, load) for server in servers]
    return figures + _figures(servers, sizes)


def _round(server: Server, load: Load, every: float) -> tuple[float, float]:
    """Return the messages per CPU-second of the server, and of it and the sender."""
    before, sending, began = cpu_of(*server.pids), 0.0, time.monotonic()
    for number in range(server.broadcasts):
        time.sleep(max(0.0, began + number * every - time.monotonic()))
        own = time.thread_time()
        server.publish(server.sent)
        sending += time.thread_time() - own
        server.sent += 1
    wait_for(lambda: load("state", server.group)["received"] >= CROWD * server.sent, LONGEST_ROUND)
    time.sleep(SETTLING)
    if server.sends_here:
        wait_for(server.confirmed)
    spent, messages = cpu_of(*server.pids) - before, CROWD * server.broadcasts
    return messages / spent, messages / (spent + sending)


def _check(server: Server, load: Load) -> float:
    """See that every agent has every message, once, in order and confirmed. Return the bytes of a message's frame."""
    state = load("state", server.group)
    assert state["opened"] == CROWD, server.name
    assert state["lost"] == state["disorder"] == 0, server.name
    assert all(received == server.sent for _, received, _, _ in load("each", server.group)), server.name
    assert server.confirmed(), server.name
    return float(state["bytes"] - server.greetings) / (CROWD * server.sent)


def _figures(servers: list[Server], sizes: list[float]) -> list[Figure]:
    figures = []
    for case in CASES:
        socketio = next((middle(one.rates[case]) for one in servers if one.group == "socketio"), None)
        for server, size in zip(servers, sizes):
            rate = middle(server.rates[case])
            ratio = f", {rate / socketio:.2f} × Socket.IO" if server.sends_here and socketio else ""
            figures.append(
                Figure(
                    f"{case}, {server.name}, {size:.0f} bytes a frame: {server.guarantee}",
                    f"{rate:,.0f} per CPU-second{ratio}",
                    spread=quarters(server.rates[case], digits=0),
                )
            )
            if server.sends_here:
                both = server.with_sender[case]
                what = "… together with the sender's CPU, which writes to the ledger"
                figures.append(
                    Figure(what, f"{middle(both):,.0f} per CPU-second", spread=quarters(both, digits=0))
                )
    return figures


# What there is, and how it starts


def _needs() -> list[tuple[str, bool, str]]:
    """What is compared with, whether it is installed, and what to do if it is not."""
    debian = "install Debian's {} (`make peers` says how)"
    node = shutil.which("node") is not None and (_PEERS / "node_modules" / "socket.io").exists()
    python = all(find_spec(name) for name in ("socketio", "uvicorn", "uvloop"))
    return [
        ("Socket.IO", node, "install Node.js with npm, and run `make peers`"),
        ("python-socketio", python, "run `make peers`"),
        ("Nchan", _NCHAN.exists() and bool(_found("nginx")), debian.format("nginx and libnginx-mod-nchan")),
        ("Mosquitto", bool(_found("mosquitto")), debian.format("mosquitto")),
        ("NATS", bool(_found("nats-server")), "run `make peers`"),
        ("NATS, confirmations in memory", bool(_found("nats-server")), "run `make peers`"),
    ]


def _socketio(stack: ExitStack, ledgers: Ledgers) -> Server:
    return _lines(stack, ledgers, "socketio", ["node", str(_PEERS / "server.js")])


def _python_socketio(stack: ExitStack, ledgers: Ledgers) -> Server:
    return _lines(stack, ledgers, "python-socketio", [sys.executable, str(_PEERS / "server.py")])


def _lines(stack: ExitStack, ledgers: Ledgers, group: str, command: list[str]) -> Server:
    """A server of ours: it says where it listens, and sends each line that it gets."""
    process = _started(stack, ledgers, group, command)
    assert process.stdin is not None
    assert process.stdout is not None
    inbox, outbox = process.stdin, process.stdout

    def publish(number: int) -> None:
        print(_content(number, FRAME - len('42["message",]')), file=inbox, flush=True)
        assert outbox.readline() == "sent\n"

    said = json.loads(outbox.readline())
    guarantee = "at most once, nothing kept"
    return Server(said["name"], guarantee, "socketio", group, said["port"], [process.pid], publish)


def _nchan(stack: ExitStack, ledgers: Ledgers) -> Server:
    port, _, config = _configured(ledgers, "nginx.conf", "nchan")
    command = [_found("nginx"), "-p", str(config.parent), "-c", config.name]
    process = _started(stack, ledgers, "nchan", command)
    _wait_for_port(port)
    workers = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    sender = Nchan(port)
    stack.callback(sender.close)

    def publish(number: int) -> None:
        sender.publish(_content(number, FRAME).encode())

    name = f"Nchan on nginx {_version('nginx', '-v')}"
    guarantee = "at most once, the last 1,000 kept in memory"
    return Server(name, guarantee, "nchan", "nchan", port, [process.pid, *map(int, workers)], publish)


def _mosquitto(stack: ExitStack, ledgers: Ledgers) -> Server:
    port, other, config = _configured(ledgers, "mosquitto.conf", "mosquitto")
    process = _started(stack, ledgers, "mosquitto", [_found("mosquitto"), "-c", str(config)])
    _wait_for_port(port)
    sender = Mqtt(_wait_for_port(other))
    stack.callback(sender.close)

    def publish(number: int) -> None:
        # The type and the length, the topic, and the number of the packet.
        sender.publish(_content(number, FRAME - 3 - 6 - 2).encode())

    name = f"Mosquitto {_version('mosquitto', '-h')}, QoS 1, persistent sessions"
    guarantee = "at least once, kept in memory, on disk every half hour"
    return Server(name, guarantee, "mqtt", "mosquitto", port, [process.pid], publish)


def _nats(stack: ExitStack, ledgers: Ledgers, group: str) -> Server:
    port, other, config = _configured(ledgers, "nats.conf", group)
    process = _started(stack, ledgers, group, [_found("nats-server"), "-c", str(config)])
    _wait_for_port(port)
    sender = Nats(_wait_for_port(other))
    stack.callback(sender.close)
    # Around the message stand subjects with both names, the longest of which is for the ack.
    around, where = {
        "nats": (73, "all in files"),
        "nats-memory": (80, "messages in files, what is confirmed in memory"),
    }[group]

    def publish(number: int) -> None:
        sender.publish(_content(number, FRAME - around).encode())

    return Server(
        f"NATS {_version('nats-server', '-v')} with JetStream, explicit acks",
        f"at least once, {where}, synced every two minutes",
        *(group, group, port, [process.pid], publish),
        confirmed=lambda: sender.unconfirmed() == 0,
        # With files a message costs it 200 µs, and a round of 100 would take half a minute.
        broadcasts=20 if group == "nats" else BROADCASTS,
    )


def _ws_manager(stack: ExitStack, ledgers: Ledgers, loop: str) -> Server:
    db = stack.enter_context(ledgers.copy(ledgers.of(10)))
    gateway = Gateway(db.path, loop=loop)
    stack.callback(gateway.end)
    ledger = ledger_over(db)

    def publish(number: int) -> None:
        ledger.broadcast({"n": number, "text": "x" * 80}, agent=loop)

    return Server(
        f"ws-manager on {loop}",
        "at least once, in order, in SQLite, each confirmation recorded",
        *("pong", loop, gateway.port, [gateway.pid], publish),
        confirmed=lambda: db.value("SELECT count(*) FROM messages WHERE delivered = 0") == 0,
        sends_here=True,
    )


_STARTS: dict[str, Callable[[ExitStack, Ledgers], Server]] = {
    "Socket.IO": _socketio,
    "python-socketio": _python_socketio,
    "Nchan": _nchan,
    "Mosquitto": _mosquitto,
    "NATS": partial(_nats, group="nats"),
    "NATS, confirmations in memory": partial(_nats, group="nats-memory"),
}


def _content(number: int, size: int) -> str:
    """Return a message of a size in bytes."""
    head = f'{{"n":{number},"text":"'
    return head + "x" * (size - len(head) - 2) + '"}'


def _found(program: str) -> str:
    """Where a program is: beside this Python, on the path, or where Debian keeps servers; empty if it is nowhere."""
    folders = (str(Path(sys.executable).parent), None, "/usr/sbin")
    return next((found for folder in folders if (found := shutil.which(program, path=folder))), "")


def _version(program: str, option: str) -> str:
    said = subprocess.run([_found(program), option], capture_output=True, text=True, check=False)
    found = re.search(r"\d+\.\d+\.\d+", said.stdout + said.stderr)
    return found[0] if found else ""


def _configured(ledgers: Ledgers, name: str, group: str) -> tuple[int, int, Path]:
    """Write a configuration with two free ports into a folder of its own, and return all three."""
    folder = ledgers.folder / group
    folder.mkdir()
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as other:
        ports = one.getsockname()[1], other.getsockname()[1]
    text = (_PEERS / name).read_text()
    for word, value in (("PORT", ports[0]), ("SENDER", ports[1]), ("FOLDER", folder)):
        # Words in a comment are replaced too, and do no harm.
        text = text.replace(word, str(value))
    (folder / name).write_text(text)
    return (*ports, folder / name)


def _started(stack: ExitStack, ledgers: Ledgers, group: str, command: list[str]) -> subprocess.Popen[str]:
    """Start a server, and end it with the stack. What it complains about is in a file of the scratch folder."""
    log = stack.enter_context((ledgers.folder / f"{group}.log").open("wb"))
    pipe = subprocess.PIPE
    process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=log, text=True)

    def end() -> None:
        process.terminate()
        process.communicate(timeout=PATIENCE)

    stack.callback(end)
    return process


def _wait_for_port(port: int) -> int:
    def listens() -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    wait_for(listens)
    return port
