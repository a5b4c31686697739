"""A gateway that is attacked again and again needs no more memory and no more files than before."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import re
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.acceptance.processes import COMMAND, running
from tests.attacks import ATTACKS, BYSTANDER, ORIGIN, Attack, Bystander, Target
from tests.support import RawAgent, handshake, run, until
from ws_manager import get_db
from ws_manager.core.registry import Registry
from ws_manager.tokens import mint, signing_key

WARM_UP, ROUNDS = 18, 12
AT_ONCE = 4
BOUND = 12 * 1024
"""KiB. Caches still grow by some MiB, less with each round; if the gateway kept the sockets, it would be 19."""

pytestmark = [
    pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc"),
    # Since then a write that need not wait gives nobody else a turn, and all of them share one event loop.
    pytest.mark.skipif(
        sys.version_info >= (3, 12), reason="the attackers keep the agent beside them from its turn"
    ),
]


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
async def beside(registry: Registry, url: str, key: bytes) -> AsyncIterator[tuple[Bystander, int]]:
    """An agent that is not to notice anything, and the number of the message that it has not confirmed."""
    query = f"agent=bystander&ws_id={BYSTANDER}&ack=explicit&access_token={mint(key, 'bystander')}"
    reader, writer, status = await handshake(url, query)
    assert status == 101
    agent = RawAgent(reader, writer)
    await agent.json()
    bystander = Bystander(agent)
    try:
        message = registry.send(BYSTANDER, "before")
        assert message is not None
        await bystander.frame()
        yield bystander, message.db_id or 0
    finally:
        await bystander.leave()
        agent.drop()


async def attack(target: Target, attack: Attack, number: int) -> None:
    """Make an attack; each has a connection of its own, so that none of them meet."""
    own = dataclasses.replace(target, ws_id=f"ws-{attack}-{number}")
    assert (attack, await attack.make(own)) == (attack, attack.ends)


async def attack_often(target: Target, bystander: Bystander, rounds: int) -> None:
    """Make every attack in each round, and those that take their time beside them."""
    slow = [asyncio.create_task(attack(target, each, 0)) for each in ATTACKS if each.slow]
    for _ in range(rounds):
        for each in ATTACKS:
            if not each.slow:
                await asyncio.gather(*(attack(target, each, number) for number in range(AT_ONCE)))
                # A round may take longer than the time-out.
                await bystander.sign_of_life()
        target.registry.send(BYSTANDER, "in between")
        assert b"in between" in await bystander.frame()
    await asyncio.gather(*slow)


def test_stays_flat(database: Path) -> None:
    async def scenario(pid: int, url: str) -> None:
        key = signing_key(database, create=False)
        assert key is not None
        with contextlib.closing(get_db(database)) as db:
            async with beside(Registry(db), url, key) as (bystander, foreign):
                sockets = open_sockets(pid)
                target = Target(url, key, db, foreign)
                await attack_often(target, bystander, WARM_UP)
                await until(lambda: open_sockets(pid) == sockets)
                before = memory(pid)
                await attack_often(target, bystander, ROUNDS)
                assert memory(pid) - before < BOUND
                await until(lambda: open_sockets(pid) == sockets)

    short = (
        "--handshake-timeout",
        "1s",
        "--write-timeout",
        "1s",
        "--timeout",
        "3s",
        "--allow-origin",
        ORIGIN,
    )
    with running(*COMMAND, "--db", str(database), "serve", "--port", "0", *short) as program:
        run(scenario(program.process.pid, program.error_line("Ready: ").split()[1]))
