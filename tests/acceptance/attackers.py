"""Those who attack a gateway: a program, so that nobody else's event loop is kept from its turn.

Arguments: the gateway's address, its database, and the number of a message that is in flight to somebody else.
A line on stdin says how many rounds of all attacks to make; one on stdout, that they have ended as they should.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import sys
from pathlib import Path

from tests.attacks import ATTACKS, Attack, Target
from tests.support import open_db
from ws_manager.tokens import signing_key

AT_ONCE = 4


async def make(attack: Attack, target: Target, number: int) -> None:
    """Make an attack; each has a connection of its own, so that none of them meet."""
    own = dataclasses.replace(target, ws_id=f"ws-{attack}-{number}")
    assert (attack, await attack.make(own)) == (attack, attack.ends)


async def make_all(target: Target, rounds: int) -> None:
    """Make every attack in each round, and those that take their time beside them."""
    slow = [asyncio.create_task(make(each, target, 0)) for each in ATTACKS if each.slow]
    for _ in range(rounds):
        for each in ATTACKS:
            if not each.slow:
                await asyncio.gather(*(make(each, target, number) for number in range(AT_ONCE)))
    await asyncio.gather(*slow)


def main(url: str, database: str, foreign: str) -> None:
    """Attack as often as stdin says."""
    key = signing_key(Path(database), create=False)
    assert key is not None
    with contextlib.closing(open_db(Path(database))) as db:
        for line in sys.stdin:
            asyncio.run(make_all(Target(url, key, db, int(foreign)), int(line)))
            print("ended as they should", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
