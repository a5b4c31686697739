"""`AgentClient` while its gateway is killed again and again under load: real processes, one ledger, one port."""

from __future__ import annotations

import collections
import json
import signal
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.acceptance.processes import COMMAND, running
from ws_manager import get_db

KILLS = 20
EACH = 25
"""Messages that arrive, beyond those of before, between two kills."""

HEARER = """
import asyncio, itertools, signal, sys
from ws_manager import AgentClient

# Every connection has lasted, so that the delays do not grow.
clock = itertools.count(0, 60).__next__

async def main(url):
    client = AgentClient("cipher", url=url, ws_id="ws-hears", clock=clock)

    @client.on("load", concurrency=4)
    async def load(message):
        # Its receipt is written after this: a line that is here, and not confirmed, has a lost receipt.
        print(message.msg_id, message.content["n"], flush=True)
        await asyncio.sleep(0.001 * (message.content["n"] % 3))

    async with client:
        working = asyncio.ensure_future(client.run())
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, working.cancel)
        print("ready", flush=True)
        await asyncio.wait({working})

asyncio.run(main(sys.argv[1]))
"""

SPEAKER = """
import asyncio, itertools, json, sys
from ws_manager import AgentClient

clock = itertools.count(0, 60).__next__

async def main(url):
    ended = asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
    numbers = iter(range(1_000_000))
    sent = {}

    async def speak(client):
        while not ended.done():
            n = next(numbers)
            sent[n] = await client.send("ws-hears", {"n": n}, "load")
            await asyncio.sleep(0.04)

    client = AgentClient("octavia", url=url, ws_id="ws-speaks", clock=clock)
    async with client:
        await asyncio.gather(*(speak(client) for _ in range(3)))
    print(json.dumps(sent), flush=True)

asyncio.run(main(sys.argv[1]))
"""


def messages(database: Path) -> list[tuple[str, int, bool]]:
    """The msg_id, the number and the receipt of every message, in the order of their commits."""
    db = get_db(database)
    rows = db.execute("SELECT msg_id, content, delivered FROM messages ORDER BY id").fetchall()
    db.close()
    return [(msg_id, json.loads(content)["n"], bool(delivered)) for msg_id, content, delivered in rows]


@pytest.mark.timeout(300)
def test_nothing_is_lost_or_handled_or_sent_twice(tmp_path: Path) -> None:
    database = tmp_path / "ledger.db"
    serve = [*COMMAND, "--db", str(database), "serve", "--no-auth", "--port"]
    port = "0"
    handled: list[str] = []
    with ExitStack() as stack:
        for number in range(KILLS + 1):
            with running(*serve, port) as gateway:
                url = gateway.error_line("Ready: ").split()[1]
                if not number:
                    port = url.rpartition(":")[2]
                    hearer = stack.enter_context(running(sys.executable, "-c", HEARER, url))
                    assert hearer.line() == "ready"
                    speaker = stack.enter_context(
                        running(sys.executable, "-c", SPEAKER, url, stdin=subprocess.PIPE)
                    )
                handled += [hearer.line() for _ in range(EACH)]
                if number < KILLS:
                    gateway.end(signal.SIGKILL)
                    continue
                speaker.process.stdin.write("enough\n")
                speaker.process.stdin.flush()
                sent: dict[str, Any] = json.loads(speaker.line())
                assert speaker.wait() == 0, speaker.rest_of_errors()
                while len(set(handled)) < len(sent):
                    handled.append(hearer.line())
                hearer.end()
                handled += hearer.lines()
                assert hearer.rest_of_errors() == []
    in_ledger = messages(database)
    # What was sent is there, once each, under the ids that the senders were told.
    assert sorted((n, msg_id) for msg_id, n, _ in in_ledger) == sorted(
        (int(n), msg_id) for n, msg_id in sent.items()
    )
    # All of it was handled once, also where a receipt was lost: the client knows what it has handled.
    assert collections.Counter(handled) == collections.Counter(f"{msg_id} {n}" for msg_id, n, _ in in_ledger)
    assert all(confirmed for _, _, confirmed in in_ledger)
