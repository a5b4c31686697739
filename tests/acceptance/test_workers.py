"""`serve --workers`: several real processes over one ledger and one port."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
import time
from collections import Counter
from collections.abc import Coroutine
from contextlib import ExitStack
from pathlib import Path
from typing import Any, ClassVar, Optional, TypeVar

import pytest

from tests.acceptance.processes import (
    COMMAND,
    Program,
    command,
    gateway,
    gateway_with_tokens,
    running,
)
from tests.soak.processes import workers_on
from tests.support import LIMIT, PING, PONG, Closed, RawAgent, Refused, connect, run, until
from ws_manager.core.ledger import Ledger, ledger_over
from ws_manager.errors import Conflict
from ws_manager.gateway.net.binding import bind
from ws_manager.repository.sqlite.database import Database
from ws_manager.repository.sqlite.locks import gateway_lock, living
from ws_manager.tokens import mint, signing_key

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="several workers need Linux")

Answer = TypeVar("Answer")


class Agents:
    """Agents of one gateway."""

    open_ones: ClassVar[list[RawAgent]] = []
    tasks: ClassVar[list[asyncio.Future[list[int]]]] = []

    def __init__(self, url: str, token: Optional[str] = None) -> None:
        self._url = url
        self._token = {} if token is None else {"access_token": token}
        self.opened: dict[str, RawAgent] = {}

    async def open(self, ws_id: str, **query: str) -> RawAgent:
        """Connect an agent, and read its greeting."""
        agent = await connect(self._url, {"agent": "octavia", "ws_id": ws_id, **self._token, **query})
        self.opened[ws_id] = agent
        self.open_ones.append(agent)
        agent.greeting = await agent.json()
        return agent

    def answer_pings(self) -> None:
        """Let every agent answer Pings until it is closed."""
        self.tasks.append(asyncio.gather(*(agent.closed() for agent in self.opened.values())))

    async def statuses(self, count: int, first: int = 0) -> list[int]:
        """Connect `count` agents at once, and return the status of each handshake."""

        async def status(number: int) -> int:
            try:
                await self.open(f"ws-{number:03d}")
            except Refused as refused:
                return refused.status
            return 101

        return sorted(await asyncio.gather(*(status(number) for number in range(first, first + count))))


@pytest.fixture
def ledger(db: Database) -> Ledger:
    """The ledger's verbs."""
    return ledger_over(db)


def played(scene: Coroutine[Any, Any, None]) -> None:
    """Run a scene, and then close what it has opened."""

    async def run() -> None:
        try:
            await scene
        finally:
            tasks, Agents.tasks = Agents.tasks, []
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            agents, Agents.open_ones = Agents.open_ones, []
            for agent in agents:
                agent.drop()
            await asyncio.gather(*(agent._writer.wait_closed() for agent in agents), return_exceptions=True)

    asyncio.run(run())


def workers(program: Program, database: Path) -> list[int]:
    """The processes of a gateway's workers, in the order of their numbers."""
    found = {}
    for pid, parent in workers_on(database).items():
        if parent == program.process.pid:
            command = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            found[int(command[command.index(b"--as-worker") + 1])] = pid
    return [found[number] for number in sorted(found)]


def holders(db: Database) -> set[str]:
    """The gateways that hold a socket."""
    return {
        row[0]
        for row in db.rows(
            "SELECT DISTINCT gateway FROM connections WHERE status = 'active' AND close_code IS NULL"
        )
    }


class TestTogether:
    def test_they_share_the_port_and_the_ledger(self, database: Path, db: Database, ledger: Ledger) -> None:
        async def agents(url: str) -> None:
            connected = Agents(url)
            assert await connected.statuses(40) == [101] * 40
            # Each connection goes to one of them at random: that all 40 go to one happens once in 10**11 runs.
            assert len(holders(db)) == 3 or len(holders(db)) == 2
            ledger.broadcast({"to": "all"})
            for agent in connected.opened.values():
                assert (await agent.json())["content"] == {"to": "all"}
            connected.answer_pings()
            await until(lambda: db.value("SELECT count(*) FROM messages WHERE delivered = 0") == 0)

        with gateway(database, "--workers", "3") as (program, url):
            assert len(workers(program, database)) == 3
            rows = db.rows("SELECT id, pid, url FROM gateways")
            assert len({row[0] for row in rows}) == 3
            assert {tuple(row[1:]) for row in rows} == {(program.process.pid, url)}
            assert living(database) == {row[0] for row in rows}
            played(agents(url))
            assert program.end() == 0
        assert living(database) == frozenset()
        assert [path.name for path in database.parent.glob("*.lock")] == ["ledger.db.gateway.lock"]

    @pytest.mark.parametrize(
        "started",
        [
            [sys.executable, "-m", "ws_manager"],
            [sys.executable, "-c", "from ws_manager.__main__ import main; main()"],
            [str(Path(sys.executable).with_name("ws-manager"))],
        ],
        ids=["as a module", "as code", "as a script"],
    )
    def test_they_are_started_as_their_parent_was(self, database: Path, started: list[str]) -> None:
        serve = ("serve", "--no-auth", "--port", "0", "--workers", "2")
        with running(*started, "--db", str(database), *serve) as program:
            program.error_line("Ready: ")
            assert len(workers(program, database)) == 2
            assert program.end() == 0

    def test_a_second_serve_is_refused(self, database: Path) -> None:
        with gateway(database, "--workers", "2") as (program, url):
            for options in ((), ("--workers", "2")):
                other = command(database, "serve", "--no-auth", "--port", "0", *options)
                assert other.returncode == 6
                assert f"another gateway at {url} (pid {program.process.pid}) serves" in other.stderr

    def test_show_and_receive_know_that_a_worker_holds_a_socket(self, database: Path, db: Database) -> None:
        async def agents(url: str) -> None:
            connected = Agents(url)
            await connected.statuses(20)
            assert len(holders(db)) == 2
            for ws_id in connected.opened:
                assert f"the socket of {ws_id} is open" in command(database, "show", ws_id).stdout
            receive = command(database, "receive", "ws-000")
            assert (receive.returncode, "a socket holds ws-000" in receive.stderr) == (6, True)

        with gateway(database, "--workers", "2") as (_, url):
            played(agents(url))

    def test_a_socket_that_is_taken_over_in_another_is_closed_there(
        self, database: Path, db: Database, ledger: Ledger
    ) -> None:
        async def agents(url: str) -> None:
            connected = Agents(url)
            seen = set()
            for number in range(20):
                older = connected.opened.get("ws-001")
                agent = await connected.open("ws-001", ack="explicit")
                seen.add(db.value("SELECT gateway FROM connections WHERE ws_id = 'ws-001'"))
                if older is not None:
                    assert await older.closed() == 4009
                ledger.send("ws-001", number)
                message = await agent.json()
                # Nothing comes twice: what was acknowledged to another worker is written before the new socket opens.
                assert message["content"] == number
                await agent.ack(message["seq"])
            assert len(seen) == 2

        with gateway(database, "--workers", "2") as (_, url):
            played(agents(url))

    def test_what_was_acknowledged_does_not_come_again_in_another(
        self, database: Path, db: Database, ledger: Ledger
    ) -> None:
        """The receipts wait for the write lock while the agent goes away and comes back."""

        async def agents(url: str) -> None:
            connected = Agents(url)
            seen = set()
            for number in range(10):
                agent = await connected.open("ws-001", ack="explicit")
                seen.add(db.value("SELECT gateway FROM connections WHERE ws_id = 'ws-001'"))
                ledger.send("ws-001", number)
                message = await agent.json()
                assert message["content"] == number
                db.execute("BEGIN IMMEDIATE")
                await agent.ack(message["seq"])
                await agent.say_goodbye()
                again = asyncio.ensure_future(connected.open("ws-001", ack="explicit"))
                # The handshake comes to where it has to wait.
                await asyncio.wait({again}, timeout=0.1)
                db.execute("ROLLBACK")
                assert (await again).greeting["pending"] == 0
            assert len(seen) == 2

        with gateway(database, "--workers", "2") as (_, url):
            played(agents(url))


class TestLimits:
    def test_hold_for_all_of_them(self, database: Path, db: Database) -> None:
        async def agents(url: str) -> None:
            connected = Agents(url)
            for number in range(100, 112):
                await connected.open(f"ws-{number}")
            assert len(holders(db)) == 2
            assert await connected.statuses(20) == [101] * 2 + [503] * 18
            # One that comes back replaces its own socket.
            some = next(iter(connected.opened))
            await connected.open(some)
            # One that leaves makes room.
            await connected.opened.pop(some).say_goodbye()
            await until(lambda: ledger_over(db).count() == 13)
            await let_in_once_there_is_room(connected, "ws-more")

        with gateway(database, "--workers", "2", "--max-connections", "14") as (_, url):
            played(agents(url))

    def test_of_a_token(self, database: Path) -> None:
        async def agents(url: str, tokens: list[str]) -> None:
            assert await Agents(url, tokens[0]).statuses(20) == [101] * 5 + [503] * 15
            assert await Agents(url, tokens[1]).statuses(5, first=50) == [101] * 5

        with gateway_with_tokens(database, "--workers", "2", "--max-per-token", "5") as (_, url):
            played(agents(url, minted(database, "connect")))

    def test_what_a_token_sends(self, database: Path) -> None:
        async def agents(url: str, token: str) -> None:
            connected = Agents(url, token)
            await connected.statuses(10)
            results = []
            for agent in connected.opened.values():
                await agent.say(type="broadcast", ref=1, content="x" * 1000)
                while (frame := await agent.json())["type"] != "result":
                    pass
                results.append(frame["ok"])
            # The first is allowed whatever it costs, and pays for the second they all wait.
            assert results == [True] + [False] * 9

        with gateway_with_tokens(database, "--workers", "2", "--max-send-rate", "1KiB") as (_, url):
            played(agents(url, minted(database, "connect", "broadcast")[0]))

    def test_handshakes_of_a_token(self, database: Path) -> None:
        async def agents(url: str, token: str) -> None:
            connected = Agents(url, token)
            statuses = []
            for number in range(25):
                try:
                    await (await connected.open(f"ws-{number}")).say_goodbye()
                    statuses.append(101)
                except Refused as refused:
                    statuses.append(refused.status)
            # Ten seconds' worth at once, and what was allowed in the meantime.
            assert 10 <= statuses.count(101) <= 20
            assert 429 in statuses

        with gateway_with_tokens(database, "--workers", "2", "--max-handshake-rate", "1") as (_, url):
            played(agents(url, minted(database, "connect")[0]))


def minted(database: Path, *scopes: str) -> list[str]:
    """Two tokens of the gateway that runs."""
    key = signing_key(database, create=False)
    assert key is not None
    return [mint(key, "*", scopes=scopes) for _ in range(2)]


async def let_in_once_there_is_room(connected: Agents, ws_id: str) -> None:
    """Connect as soon as there is room."""
    deadline = time.monotonic() + LIMIT
    while True:
        try:
            await connected.open(ws_id)
            return
        except Refused:
            assert time.monotonic() < deadline


class TestEnd:
    @pytest.mark.parametrize(
        ("number", "code"), [(signal.SIGTERM, 1001), (signal.SIGINT, 1001), (signal.SIGHUP, 1012)]
    )
    def test_a_signal_ends_all_in_order(self, database: Path, number: signal.Signals, code: int) -> None:
        async def agents(url: str, program: Program) -> None:
            connected = Agents(url)
            await connected.statuses(20)
            program.send(number)
            assert [await agent.closed() for agent in connected.opened.values()] == [code] * 20

        with gateway(database, "--workers", "2", "--drain", "0s") as (program, url):
            played(agents(url, program))
            assert program.wait() == 0
        assert gateway_lock(database).holder() is False

    def test_a_second_signal_ends_all_at_once(self, database: Path) -> None:
        with gateway(database, "--workers", "2", "--drain", "1h") as (program, url), ExitStack() as sockets:
            for _ in range(10):
                sockets.enter_context(socket.create_connection(_address(url)))
            pids = workers(program, database)
            program.send(signal.SIGTERM)
            run(until(lambda: _refused(url)))
            program.send_until_it_ends(signal.SIGTERM)
            assert program.wait() in (0, -signal.SIGTERM)
            run(until(lambda: not any(Path(f"/proc/{worker}/exe").exists() for worker in pids)))

    def test_without_their_parent_they_end_and_then_another_may_serve(self, database: Path) -> None:
        async def agents(url: str, program: Program) -> None:
            connected = Agents(url)
            await connected.statuses(20)
            program.send(signal.SIGKILL)
            assert [await agent.closed() for agent in connected.opened.values()] == [1012] * 20

        with gateway(database, "--workers", "2", "--drain", "0s") as (program, url):
            played(agents(url, program))
        run(until(lambda: gateway_lock(database).holder() is False))
        with gateway(database, "--workers", "2"):
            pass

    def test_as_long_as_one_lives_no_other_may_serve(self, database: Path) -> None:
        with gateway(database, "--workers", "2") as (program, _):
            worker = workers(program, database)[0]
            os.kill(worker, signal.SIGSTOP)
            program.send(signal.SIGKILL)
            program.process.wait()
            assert command(database, "serve", "--no-auth", "--port", "0").returncode == 6
            os.kill(worker, signal.SIGCONT)
        run(until(lambda: gateway_lock(database).holder() is False))


def _address(url: str) -> tuple[str, int]:
    return "127.0.0.1", int(url.rpartition(":")[2])


def _refused(url: str) -> bool:
    try:
        socket.create_connection(_address(url), timeout=5).close()
    except OSError:
        return True
    return False


class TestEndingWorker:
    def test_its_agents_come_back_to_the_others_at_once(self, database: Path) -> None:
        async def agents(url: str, program: Program, token: str) -> None:
            connected = Agents(url, token)
            assert Counter(await connected.statuses(250)) == {101: 250}
            os.kill(workers(program, database)[0], signal.SIGHUP)
            program.error_line("worker 1 ended with exit code 0")
            connected.opened.clear()
            assert Counter(await connected.statuses(50, first=300)) == {101: 50}

        with gateway_with_tokens(database, "--workers", "2", "--drain", "0s") as (program, url):
            played(agents(url, program, minted(database, "connect")[0]))

    def test_a_signal_that_comes_again_does_not_cut_it_short(self, database: Path) -> None:
        async def agents(url: str, program: Program) -> None:
            connected = Agents(url)
            assert Counter(await connected.statuses(250)) == {101: 250}
            pids = workers(program, database)
            for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGTERM):
                for worker in pids:
                    os.kill(worker, number)
            program.send(signal.SIGTERM)
            # A process gets the lowest of the signals that wait for it first, so either may be the first one.
            codes = {await agent.closed() for agent in connected.opened.values()}
            assert codes <= {1001, 1012}

        with gateway(database, "--workers", "2", "--drain", "1s") as (program, url):
            played(agents(url, program))
            assert program.wait() == 0


class TestDeadWorker:
    def test_is_started_again_and_the_others_serve_meanwhile(self, database: Path, db: Database) -> None:
        async def agents(url: str, program: Program) -> None:
            connected = Agents(url)
            await connected.statuses(20)
            first, second = workers(program, database)
            os.kill(first, signal.SIGKILL)
            ended = [agent for agent in connected.opened.values() if await _lost(agent)]
            assert 0 < len(ended) < 20
            program.error_line("worker 1 was ended by SIGKILL; it starts again in 0.1 s")
            program.error_line("worker 1 serves again")
            assert len(living(database) or ()) == 2
            assert first not in workers(program, database)
            assert second in workers(program, database)
            connected.opened.clear()
            assert await connected.statuses(40, first=100) == [101] * 40
            assert len(holders(db) & (living(database) or frozenset())) == 2

        with gateway(database, "--workers", "2") as (program, url):
            played(agents(url, program))

    def test_takes_its_share_of_the_limits_with_it(self, database: Path) -> None:
        async def agents(url: str, program: Program) -> None:
            connected = Agents(url)
            assert await connected.statuses(30) == [101] * 8 + [503] * 22
            for worker in workers(program, database):
                os.kill(worker, signal.SIGKILL)
            for _ in range(2):
                program.error_line("it starts again")
            connected.opened.clear()
            await until(lambda: len(living(database) or ()) == 2)
            assert await connected.statuses(30, first=100) == [101] * 8 + [503] * 22

        with gateway(database, "--workers", "2", "--max-connections", "8") as (program, url):
            played(agents(url, program))

    def test_leaves_what_it_held_to_the_one_that_takes_its_role(self, database: Path, db: Database) -> None:
        """The first worker has the role of sweeping and of checkpoints. It dies."""

        async def agents(url: str, program: Program) -> None:
            connected = Agents(url)
            await connected.statuses(20)
            first = _gateway_of(workers(program, database)[0], database)
            lost = {row[0] for row in db.rows("SELECT ws_id FROM connections WHERE gateway = ?", (first,))}
            connected.answer_pings()
            os.kill(workers(program, database)[0], signal.SIGKILL)
            ledger_over(db).broadcast("x" * 1000)
            await until(
                lambda: (
                    {row[0] for row in db.rows("SELECT ws_id FROM connections WHERE status <> 'active'")}
                    == lost
                )
            )
            # Only a checkpoint writes to the file itself.
            before = database.stat().st_mtime_ns
            ledger_over(db).broadcast("y" * 1000)
            await until(lambda: database.stat().st_mtime_ns > before)

        with gateway(database, "--workers", "2", "--timeout", "2s") as (program, url):
            played(agents(url, program))

    def test_cannot_start_at_all(self, database: Path) -> None:
        database.write_bytes(b"not a ledger" * 1000)
        with running(
            *COMMAND, "--db", str(database), "serve", "--no-auth", "--port", "0", "--workers", "3"
        ) as program:
            assert program.wait() == 1
            assert len([line for line in program.rest_of_errors() if line.startswith("error:")]) == 1


async def _lost(agent: RawAgent) -> bool:
    """Whether the connection is gone: what is alive answers a Ping."""
    try:
        await agent.send(PING, b"here?")
        while (await agent.frame())[0] != PONG:
            pass
    except (Closed, ConnectionError):
        return True
    return False


def _gateway_of(process: int, database: Path) -> str:
    """The id of the gateway that a process is: the one whose lock file it has open."""
    prefix = f"{database.name}.gateway-"
    for link in Path(f"/proc/{process}/fd").iterdir():
        name = Path(os.path.realpath(link)).name
        if name.startswith(prefix):
            return name[len(prefix) : -len(".lock")]
    raise AssertionError("it has no lock")


class TestPort:
    def test_of_another_program_is_a_conflict(self, database: Path) -> None:
        for shared in (False, True):
            with socket.socket() as other:
                if shared:
                    other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
                other.bind(("127.0.0.1", 0))
                other.listen()
                port = str(other.getsockname()[1])
                refused = command(database, "serve", "--no-auth", "--port", port, "--workers", "2")
                assert (refused.returncode, f"cannot listen on 127.0.0.1:{port}" in refused.stderr) == (
                    6,
                    True,
                )

    def test_is_kept_while_no_worker_listens(self, database: Path) -> None:
        with gateway(database, "--workers", "2") as (program, url):
            port = _address(url)[1]
            for worker in workers(program, database):
                os.kill(worker, signal.SIGKILL)
            with pytest.raises(Conflict, match="in use"):
                bind(["127.0.0.1"], port)

    def test_of_one_set_is_not_shared_with_another(self, database: Path, tmp_path: Path) -> None:
        with gateway(database, "--workers", "2") as (_, url):
            port = str(_address(url)[1])
            refused = command(tmp_path / "other.db", "serve", "--no-auth", "--port", port, "--workers", "2")
            assert refused.returncode == 6
