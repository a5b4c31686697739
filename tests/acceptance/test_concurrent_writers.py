"""Many writers of every kind at once into one file, while a gateway delivers."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.acceptance.processes import COMMAND, gateway, listener
from ws_manager import get_db
from ws_manager.core.ledger import ledger_over
from ws_manager.repository.findings import MessageFilter

SENDER = """
import sys
from ws_manager import ConnectionPool, get_db, send_message
path, ws_id, name = sys.argv[1:]
db = get_db(path)
pool = ConnectionPool(db)
for number in range(500):
    assert send_message(pool, db, ws_id, [name, number]) is not None
db.close()
"""

# Two connections of one process, written to in turn.
STREAMS = """
import sys
from ws_manager import ConnectionPool, get_db, send_message
path = sys.argv[1]
first, second = get_db(path), get_db(path)
pools = ConnectionPool(first), ConnectionPool(second)
for number in range(500):
    for db, pool, ws_id in ((first, pools[0], "ws-0"), (second, pools[1], "ws-1")):
        assert send_message(pool, db, ws_id, ["stream", number]) is not None
first.close()
second.close()
"""

AGENTS = [f"ws-{number}" for number in range(4)]


@pytest.mark.long
def test_every_row_is_there_delivered_in_order_and_received(database: Path) -> None:
    with gateway(database), ExitStack() as stack:
        agents = {
            ws_id: stack.enter_context(listener(database, "octavia", "--ws-id", ws_id)) for ws_id in AGENTS
        }
        writers = [
            subprocess.Popen([sys.executable, "-c", SENDER, str(database), ws_id, f"library-{ws_id}"])
            for ws_id in AGENTS
        ]
        writers.append(subprocess.Popen([sys.executable, "-c", STREAMS, str(database)]))
        one_shots = "".join(
            f'"$@" send {AGENTS[number % 4]} \'["shell-{{}}",{number}]\' >/dev/null || exit; '
            for number in range(25)
        )
        writers += [
            subprocess.Popen(
                ["bash", "-c", one_shots.replace("{}", str(shell)), "-", *COMMAND, "--db", str(database)]
            )
            for shell in range(8)
        ]
        assert [writer.wait() for writer in writers] == [0] * len(writers)

        db = get_db(database)
        ledger = ledger_over(db)
        total = 4 * 500 + 2 * 500 + 8 * 25
        assert ledger.wait(ledger.messages(MessageFilter(), total), 60) == (total, 0, 0)
        rows = {
            ws_id: [
                json.loads(row[0])
                for row in db.execute(
                    "SELECT content FROM messages WHERE recipient_id = ? ORDER BY id", (ws_id,)
                )
            ]
            for ws_id in AGENTS
        }
        db.close()
        assert sum(map(len, rows.values())) == total

        for ws_id, agent in agents.items():
            # The order of the rows, each exactly once: nothing lost, nothing twice, nothing else.
            assert [json.loads(agent.line())["content"] for _ in rows[ws_id]] == rows[ws_id]
            assert agent.end() == 0
            assert agent.lines() == []
        for ws_id in AGENTS:
            numbers = [number for name, number in rows[ws_id] if name == f"library-{ws_id}"]
            assert numbers == list(range(500))
