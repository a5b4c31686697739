"""A randomised run that shows that the gateway loses nothing: `make soak`.

Real agents, senders and commands use a real gateway, while it is killed, stopped and suspended, sockets break and are
taken over, and others hold the write lock or delete what is confirmed. With `--workers` the gateway has several
processes, and one of them alone is killed or suspended too. With `--postgres` there are three gateways over a server
of PostgreSQL, which is killed too, and to which the gateways' lines are cut; agents go from one gateway to another.
`judgement.py` has the rules. A seed gives the same faults again, though not at the same moment of the gateway.
Linux only.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import shutil
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Optional

from tests.soak.faults import GatewayFaults
from tests.soak.soak import Soak, file_soak

_SHOWN_COMPLAINTS, _SHOWN_FAULTS, _SHOWN_LINES = 10, 30, 20


def summary(soak: Soak, given: argparse.Namespace, seed: int, problems: list[str]) -> str:
    """What a run was, and what was wrong with it."""
    judge, faults = soak.judge, soak.faults
    codes = ", ".join(f"{code} {times}" for code, times in sorted(judge.codes.items()))
    if isinstance(faults, GatewayFaults):
        what, more = f"workers {given.workers}", f"{faults.pruned} pruned"
    else:
        what, more = "three gateways on PostgreSQL", f"{judge.unsure} read that nobody knew to be committed"
    made = ", ".join(f"{kind} {times}" for kind, times in sorted(faults.made.items()))
    lines = [
        f"soak: {given.seconds:.0f} s on {given.loop}, {what}, seed {seed}",
        f"messages: {judge.addressed} in {len(judge.sent)} sends; {judge.read} read, {judge.again} came again,"
        f" {judge.aside} set aside, {more}",
        f"faults: {made}",
        f"sockets: {judge.sockets} greeted; the gateway closed them with {codes or 'no code'}",
        f"gateway: {soak.gateway.starts} starts, {soak.gateway.refused} of them refused,"
        f" at most {soak.gateway.most_memory >> 20} MiB a process",
    ]
    if problems:
        lines += ["the last faults:", *faults.log[-_SHOWN_FAULTS:]]
        for ws_id in judge.concerned[:1]:
            lines += [f"faults of {ws_id}:", *(line for line in faults.log if ws_id in line)]
            lines += [f"the gateway's log about {ws_id}:", *soak.gateway.lines_about(ws_id)[-_SHOWN_LINES:]]
        lines += [f"{len(problems)} complaints:", *problems[:_SHOWN_COMPLAINTS]]
    else:
        lines.append("nothing lost")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.soak.run", description=__doc__.split("\n")[0])
    parser.add_argument("--seconds", type=float, default=60, help="at most, with --postgres")
    parser.add_argument("--loop", choices=["asyncio", "uvloop"], default="asyncio")
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--agents", type=int, default=80)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--postgres", action="store_true", help="three gateways over a server of PostgreSQL")
    parser.add_argument("--rounds", type=int, default=1, help="this many runs, each with the next seed")
    given = parser.parse_args()
    if given.loop == "uvloop" and importlib.util.find_spec("uvloop") is None:
        print("uvloop is not installed here: pip install uvloop", file=sys.stderr)
        return 1
    first = int.from_bytes(os.urandom(4), "big") if given.seed is None else given.seed
    failed = 0
    total: Counter[str] = Counter()
    for seed in range(first, first + given.rounds):
        soak = one_round(given, seed)
        if soak is None:
            return 0
        failed += bool(soak.problems())
        judge = soak.judge
        total.update(messages=judge.addressed, again=judge.again, sockets=judge.sockets, **soak.faults.made)
    if given.rounds > 1:
        print(
            f"{given.rounds} rounds, {failed} failed: {', '.join(f'{what} {total[what]}' for what in sorted(total))}"
        )
    return 1 if failed else 0


def one_round(given: argparse.Namespace, seed: int) -> Optional[Soak]:
    """Make one run, and say what it was. None if it needs what is not there."""
    folder = Path(tempfile.mkdtemp(prefix="ws-manager-soak-"))
    if given.postgres:
        # What these need is not on every machine.
        import pytest

        from tests.postgres import server
        from tests.soak.fleet import fleet_soak

        try:
            with server(durable=True) as postgres:
                soak: Soak = fleet_soak(folder, postgres, given.loop, seed, given.agents)
                problems = soak.run(given.seconds)
        except pytest.skip.Exception as missing:
            print(missing)
            return None
    else:
        soak = file_soak(folder, given.loop, seed, given.agents, given.workers)
        problems = soak.run(given.seconds)
    print(summary(soak, given, seed, problems), flush=True)
    if problems:
        print(f"the ledger, the journals and the logs are in {folder}")
        print(
            f"again: python -m tests.soak.run {' '.join(sys.argv[1:])} --rounds 1 --seed {seed}", flush=True
        )
    else:
        shutil.rmtree(folder)
    return soak


if __name__ == "__main__":
    sys.exit(main())
