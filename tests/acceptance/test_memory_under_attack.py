"""A gateway that is attacked again and again needs no more memory and no more files than before."""

from __future__ import annotations

import asyncio
import contextlib
import re
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.acceptance.processes import COMMAND, Program, running
from tests.attacks import BYSTANDER, ORIGIN, Bystander
from tests.support import RawAgent, handshake, run, until
from ws_manager import get_db
from ws_manager.core.ledger import Ledger, ledger_over
from ws_manager.tokens import mint, signing_key

ROUNDS, MOST_TIMES = 12, 8
"""Each round has more than a hundred attacks. It is flat when it has not grown in so many of them."""

FLAT = 1024
"""KiB. What is freed is used again, but not at once: the last pages come late."""

MOST = 8 * 1024
"""KiB, from the first rounds to the last ones."""

BEAT_SECONDS = 0.5
ATTACKERS = (sys.executable, "-m", "tests.acceptance.attackers")
SHORT = ("--handshake-timeout", "1s", "--write-timeout", "1s", "--timeout", "3s", "--allow-origin", ORIGIN)

pytestmark = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")


def memory(pid: int) -> int:
    """Return a process's own memory in KiB, without pages of files."""
    found = re.search(r"^RssAnon:\s+(\d+) kB$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1])


def open_sockets(pid: int) -> int:
    """Return how many sockets a process has: its files of the ledger come and go."""
    found = 0
    for file in Path(f"/proc/{pid}/fd").iterdir():
        # It may be closed while it is looked at.
        with contextlib.suppress(FileNotFoundError):
            found += str(file.readlink()).startswith("socket:")
    return found


@contextlib.asynccontextmanager
async def beside(ledger: Ledger, url: str, key: bytes) -> AsyncIterator[tuple[Bystander, int]]:
    """An agent that is not to notice anything, and the number of the message that it has not confirmed."""
    query = f"agent=bystander&ws_id={BYSTANDER}&ack=explicit&access_token={mint(key, 'bystander')}"
    reader, writer, status = await handshake(url, query)
    assert status == 101
    agent = RawAgent(reader, writer)
    await agent.json()
    bystander = Bystander(agent)
    try:
        message = ledger.send(BYSTANDER, "before")
        assert message is not None
        await bystander.frame()
        yield bystander, message.db_id or 0
    finally:
        await bystander.leave()
        agent.drop()


async def attacked(attackers: Program, ledger: Ledger, bystander: Bystander) -> None:
    """Have the gateway attacked, while the agent beside them gets messages and shows that it is alive."""
    assert attackers.process.stdin is not None
    attackers.process.stdin.write(f"{ROUNDS}\n")
    attackers.process.stdin.flush()
    ended = asyncio.ensure_future(asyncio.to_thread(attackers.line))
    while not ended.done():
        await bystander.sign_of_life()
        ledger.send(BYSTANDER, "in between")
        assert b"in between" in await bystander.frame()
        await asyncio.wait({ended}, timeout=BEAT_SECONDS)
    await ended


@pytest.mark.long
def test_stays_flat(database: Path) -> None:
    async def scenario(pid: int, url: str) -> list[int]:
        key = signing_key(database, create=False)
        assert key is not None
        with contextlib.ExitStack() as stack:
            ledger = ledger_over(stack.enter_context(contextlib.closing(get_db(database))))
            async with beside(ledger, url, key) as (bystander, foreign):
                sockets = open_sockets(pid)
                program = (*ATTACKERS, url, str(database), str(foreign))
                attackers = stack.enter_context(running(*program, stdin=subprocess.PIPE))
                measured: list[int] = []
                while len(measured) < 2 or (not is_flat(measured) and len(measured) < MOST_TIMES):
                    await attacked(attackers, ledger, bystander)
                    await until(lambda: open_sockets(pid) == sockets)
                    measured.append(memory(pid))
                return measured

    with running(*COMMAND, "--db", str(database), "serve", "--port", "0", *SHORT) as gateway:
        measured = run(scenario(gateway.process.pid, gateway.error_line("Ready: ").split()[1]), seconds=300)
    assert is_flat(measured), measured
    assert measured[-1] - measured[0] < MOST, measured


def is_flat(measured: list[int]) -> bool:
    """Return whether the last rounds of attacks have cost nothing."""
    return measured[-1] - measured[-2] < FLAT
