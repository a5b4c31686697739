"""`listen` and `serve` as real processes."""

from __future__ import annotations

import json
import signal
import subprocess
from pathlib import Path

import pytest

from tests.acceptance.processes import COMMAND, command, gateway, listener, running
from ws_manager import ConnectionPool, add_connection, get_message_history, send_message
from ws_manager.forms import WIRE_FIELDS
from ws_manager.models import Broadcast
from ws_manager.repository.sqlite.database import Database


def test_a_broadcast_from_another_process_is_printed_and_confirmed(database: Path) -> None:
    with gateway(database), listener(database, "octavia", "--ws-id", "ws-001") as agent:
        sent = command(database, "broadcast", '{"event":"deploy"}', "--wait", "30s")
        message = json.loads(agent.line())
        assert (sent.returncode, sent.stdout.splitlines()[0]) == (0, "Broadcast to 1 connection(s)")
        assert message["content"] == {"event": "deploy"}
        assert set(message) == set(WIRE_FIELDS)


def test_count_leaves_the_rest_pending(database: Path, db: Database, pool: ConnectionPool) -> None:
    add_connection(pool, "ws-001", "octavia")
    for number in range(5):
        send_message(pool, db, "ws-001", number)
    with (
        gateway(database) as (server, _),
        listener(database, "octavia", "--ws-id", "ws-001", "--count", "1") as agent,
    ):
        lines = agent.lines()
        assert agent.wait() == 0
        assert [json.loads(line)["content"] for line in lines] == [0]
        # It writes the receipts that it has before it ends.
        assert server.end() == 0
    assert sorted(row["delivered"] for row in get_message_history(db)) == [0, 0, 0, 0, 1]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_ends_cleanly_on_a_signal(number: signal.Signals, database: Path) -> None:
    with gateway(database) as (server, _), listener(database, "octavia", "--ws-id", "ws-001") as agent:
        assert agent.end(number) == 0
        assert command(database, "list").stdout == ""
        assert server.end(number) == 0


def test_disconnect_ends_it_with_the_cause(database: Path) -> None:
    with gateway(database), listener(database, "octavia", "--ws-id", "ws-001") as agent:
        assert command(database, "disconnect", "ws-001").stdout == "Disconnected: ws-001\n"
        assert agent.wait() == 6
        assert "disconnected by an operator (4010)" in "\n".join(agent.rest_of_errors())


def test_a_newer_socket_takes_over(database: Path) -> None:
    with (
        gateway(database),
        listener(database, "octavia", "--ws-id", "ws-001") as older,
        listener(database, "octavia", "--ws-id", "ws-001") as newer,
    ):
        assert older.wait() == 6
        assert "replaced by a newer socket (4009)" in "\n".join(older.rest_of_errors())
        assert command(database, "broadcast", "1", "--wait", "30s").returncode == 0
        assert json.loads(newer.line())["content"] == 1


def test_another_agents_ws_id_is_a_conflict(database: Path) -> None:
    with gateway(database), listener(database, "octavia", "--ws-id", "ws-001"):
        refused = command(database, "listen", "cipher", "--ws-id", "ws-001")
        assert refused.returncode == 6
        assert "belongs to another agent" in refused.stderr


def test_killed_it_resumes_with_what_it_missed_before_anything_newer(database: Path) -> None:
    with gateway(database):
        with listener(database, "octavia", "--ws-id", "ws-001") as agent:
            agent.end(signal.SIGKILL)
        assert command(database, "send", "ws-001", '"missed"').returncode == 0
        with listener(database, "octavia", "--ws-id", "ws-001") as agent:
            assert command(database, "send", "ws-001", '"newer"', "--wait", "30s").returncode == 0
            assert [json.loads(agent.line())["content"] for _ in range(2)] == ["missed", "newer"]


def test_without_a_ws_id_it_says_that_it_cannot_resume(database: Path) -> None:
    with gateway(database), listener(database, "octavia") as agent:
        assert "cannot be resumed" in agent.error_line("Without --ws-id")


def test_without_a_gateway_it_says_how_to_start_one(database: Path, db: Database) -> None:
    ended = command(database, "listen", "octavia")
    assert ended.returncode == 7
    assert "ws-manager serve" in ended.stderr


def test_a_url_where_nobody_answers(database: Path) -> None:
    ended = subprocess.run(
        [*COMMAND, "listen", "octavia", "--url", "http://127.0.0.1:9"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 7
    assert "does not answer" in ended.stderr


def test_a_reader_that_closes_the_pipe_ends_it_quietly(database: Path) -> None:
    with (
        gateway(database),
        running(
            *["bash", "-c", '"$@" | head -n 1; exit ${PIPESTATUS[0]}', "-"],
            *[*COMMAND, "--db", str(database), "listen", "octavia", "--ws-id", "ws-001"],
        ) as agent,
    ):
        agent.error_line("Ready: ")
        assert command(database, "broadcast", "1").returncode == 0
        assert json.loads(agent.line())["content"] == 1
        command(database, "broadcast", "2")
        assert agent.wait() == 141
        assert [line for line in agent.rest_of_errors() if "Traceback" in line or "error" in line] == []


def test_a_restarted_gateway_gets_every_agent_back(database: Path, db: Database) -> None:
    names = ["ws-001", "ws-002", "ws-003"]
    with (
        gateway(database) as (first, _),
        listener(database, "octavia", "--ws-id", names[0]) as one,
        listener(database, "octavia", "--ws-id", names[1]) as two,
        listener(database, "cipher", "--ws-id", names[2]) as three,
    ):
        agents = [one, two, three]
        assert first.end() == 0
        pool = ConnectionPool(db)
        assert sorted(connection.ws_id for connection in pool.get_all()) == names
        assert command(database, "broadcast", '"in between"').stdout.startswith(
            "Broadcast to 3 connection(s)\n"
        )
        with gateway(database):
            assert [json.loads(agent.line())["content"] for agent in agents] == ["in between"] * 3
            (sent,) = pool.ledger.broadcasts()
            assert pool.ledger.wait(Broadcast(sent.broadcast_id, []), 30) == (3, 0, 0)
            events = [row[0] for row in db.execute("SELECT kind FROM events")]
            assert "disconnected" not in events


def test_a_killed_gateway_gets_its_agent_back(database: Path) -> None:
    with gateway(database) as (server, _), listener(database, "octavia", "--ws-id", "ws-001") as agent:
        server.end(signal.SIGKILL)
        assert "lost (1006)" in agent.error_line("Disconnected: ")
        assert command(database, "broadcast", '"in between"').returncode == 0
        with gateway(database):
            assert json.loads(agent.line())["content"] == "in between"


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.1", "example.org"])
def test_serve_refuses_an_address_that_others_can_reach(host: str, database: Path) -> None:
    ended = command(database, "serve", "--no-auth", "--host", host)
    assert (ended.returncode, host in ended.stderr) == (2, True)


@pytest.mark.sqlite_only("one gateway alone")
def test_a_second_gateway_names_the_first(database: Path) -> None:
    with gateway(database) as (_, url):
        ended = command(database, "serve", "--no-auth", "--port", "0")
        assert ended.returncode == 6
        assert url in ended.stderr


def test_a_port_in_use_is_one_clear_line(database: Path, tmp_path: Path) -> None:
    with gateway(database) as (_, url):
        ended = command(tmp_path / "other.db", "serve", "--no-auth", "--port", url.rpartition(":")[2])
        assert ended.returncode == 6
        assert "cannot listen on 127.0.0.1" in ended.stderr
