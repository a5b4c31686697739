"""Asking and answering while the gateway is killed again and again: real processes, one ledger, one port."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.acceptance.processes import killed_gateways, running
from ws_manager import get_db

KILLS = 6
EACH = 15
"""Answers that arrive between two kills."""

WORKER = """
import asyncio, itertools, signal, sys
from ws_manager import AgentClient

# Every connection has lasted, so that the delays do not grow.
clock = itertools.count(0, 60).__next__

async def main(url):
    client = AgentClient("octavia", url=url, ws_id="ws-works", clock=clock)

    @client.on("load", concurrency=4)
    async def load(message):
        await asyncio.sleep(0.001 * (message.content["n"] % 5))
        await message.reply({"twice": 2 * message.content["n"]})

    async with client:
        working = asyncio.ensure_future(client.run())
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, working.cancel)
        print("ready", flush=True)
        await asyncio.wait({working})

asyncio.run(main(sys.argv[1]))
"""

ASKER = """
import asyncio, itertools, sys
from ws_manager import AgentClient

clock = itertools.count(0, 60).__next__

async def main(url):
    ended = asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
    numbers = iter(range(1_000_000))

    async def ask(client):
        while not ended.done():
            n = next(numbers)
            answer = await client.ask("octavia", {"n": n}, "load", timeout=60)
            print(n, answer.content["twice"], flush=True)
            await asyncio.sleep(0.02)

    async with AgentClient("cipher", url=url, ws_id="ws-asks", clock=clock) as client:
        await asyncio.gather(*(ask(client) for _ in range(4)))

asyncio.run(main(sys.argv[1]))
"""


def halves(database: Path) -> int:
    """How many asks are answered and not confirmed, or the other way round."""
    db = get_db(database)
    (found,) = db.execute(
        "SELECT count(*) FROM messages JOIN asks ON asks.seq = messages.id WHERE delivered != (answer_id IS NOT NULL)"
    ).fetchone()
    db.close()
    return int(found)


@pytest.mark.long
@pytest.mark.timeout(300)
def test_every_ask_is_answered_once_and_confirmed_with_its_answer(tmp_path: Path) -> None:
    database = tmp_path / "ledger.db"
    lines: list[str] = []
    with ExitStack() as stack:
        for left, url in killed_gateways(database, KILLS):
            # However the one before ended: what is answered is confirmed, and what is confirmed is answered.
            assert halves(database) == 0
            if left == KILLS:
                worker = stack.enter_context(running(sys.executable, "-c", WORKER, url))
                assert worker.line() == "ready"
                asker = stack.enter_context(running(sys.executable, "-c", ASKER, url, stdin=subprocess.PIPE))
            lines += [asker.line() for _ in range(EACH)]
            if left:
                continue
            asker.process.stdin.write("enough\n")
            asker.process.stdin.flush()
            lines += asker.lines()
            assert asker.wait() == 0, asker.rest_of_errors()
            worker.end()
            assert worker.rest_of_errors() == []
    answered = {int(n): int(twice) for n, twice in (line.split() for line in lines)}
    assert len(answered) == len(lines)
    assert all(twice == 2 * n for n, twice in answered.items())
    db = get_db(database)
    asks = db.execute("SELECT msg_id, content, delivered FROM messages WHERE wants_reply = 1").fetchall()
    replies = db.execute("SELECT reply_to FROM messages WHERE reply_to IS NOT NULL").fetchall()
    db.close()
    assert sorted(json.loads(content)["n"] for _, content, _ in asks) == sorted(answered)
    assert all(delivered for _, _, delivered in asks)
    assert sorted(row[0] for row in replies) == sorted(msg_id for msg_id, _, _ in asks)
