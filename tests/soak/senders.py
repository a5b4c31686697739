"""A process that sends: `senders.py DATABASE JOURNAL NAME SEED COUNT`. It ends when its stdin does.

It sends through the library, and at times through the command `send --batch`. What was committed goes
into the journal, a line of JSON for each message or broadcast: `key` (in its content), `at`, `to` (the ws_ids), and
`msg_id` or `broadcast_id`.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from pathlib import Path
from random import Random

from tests.soak.cast import cast, content
from ws_manager import Ledger, open_ledger
from ws_manager.settings import Location

KIB = 1024
PACE = 12.0
"""Sends a second, when it sends one after the other."""

_BURST, _FLOOD = 0.02, 0.004
"""How often it sends a burst, or a flood, instead of one."""

_FLOODED = (1100, 1600)
"""Messages in a flood to one agent: more than may be in flight to it."""


class Sender:
    """Sends at random."""

    def __init__(self, database: Location, journal: Path, name: str, seed: str, count: int) -> None:
        self._database = database
        self._journal = journal.open("w", encoding="utf-8")
        self._name = name
        self._random = Random(seed)
        self._members = cast(count)
        self._groups = sorted({member.agent for member in self._members})
        self._sent = 0
        self._stop = threading.Event()

    def run(self) -> None:
        """Send until stdin ends."""
        threading.Thread(target=lambda: (sys.stdin.read(), self._stop.set()), daemon=True).start()
        with open_ledger(self._database) as ledger:
            while not self._stop.is_set():
                chance = self._random.random()
                if chance < _FLOOD:
                    self._flood()
                elif chance < _FLOOD + _BURST:
                    self._burst(ledger)
                else:
                    self._one(ledger)
                    self._stop.wait(self._random.expovariate(PACE))

    def _burst(self, ledger: Ledger) -> None:
        """Many at once: to anybody, or of all sizes to one."""
        one = self._random.choice([None, self._anybody()])
        for _ in range(self._random.randint(10, 40)):
            if one is None:
                self._one(ledger)
            else:
                self._send(ledger, one, self._size(largest=100 * KIB))

    def _one(self, ledger: Ledger) -> None:
        chance = self._random.random()
        if chance < 0.35:
            self._send(ledger, self._anybody(), self._size(largest=100 * KIB))
        else:
            agent = None if chance < 0.8 else self._random.choice(self._groups)
            key, text = self._next(self._size(largest=8 * KIB))
            sent = ledger.broadcast(text, agent=agent)
            self._note(key, list(sent.recipients), broadcast_id=sent.broadcast_id)

    def _send(self, ledger: Ledger, ws_id: str, size: int) -> None:
        key, text = self._next(size)
        sent = ledger.send(ws_id, text)
        if sent is not None:
            self._note(key, [ws_id], msg_id=sent.msg_id)

    def _flood(self) -> None:
        """Very many small ones to one agent, with the command."""
        ws_id = self._anybody()
        messages = [self._next(20) for _ in range(self._random.randint(*_FLOODED))]
        arguments = [sys.executable, "-m", "ws_manager", "--db", str(self._database), "send", "--batch", "-"]
        lines = [json.dumps({"to": ws_id, "content": text}) for _, text in messages]
        ended = subprocess.run(
            arguments, input="\n".join(lines), capture_output=True, text=True, encoding="utf-8", check=False
        )
        answers = [json.loads(line) for line in ended.stdout.splitlines()]
        if len(answers) != len(messages):
            raise RuntimeError(f"send --batch has answered {len(answers)} of {len(messages)}: {ended.stderr}")
        for answer in answers:
            if answer["ok"]:
                self._note(messages[answer["line"] - 1][0], [ws_id], msg_id=answer["msg_id"])

    def _anybody(self) -> str:
        return self._random.choice(self._members).ws_id

    def _size(self, largest: int) -> int:
        """Most have 150 bytes, some 20, few are large."""
        chance = self._random.random()
        if chance < 0.8:
            return 150
        if chance < 0.9:
            return 20
        return self._random.randint(151, 2 * KIB if chance < 0.97 else largest)

    def _next(self, size: int) -> tuple[str, str]:
        self._sent += 1
        key = f"{self._name}{self._sent}"
        return key, content(key, size, self._random)

    def _note(self, key: str, to: list[str], **names: str) -> None:
        print(json.dumps({"key": key, "at": time.time(), "to": to, **names}), file=self._journal, flush=True)


def main() -> None:
    database, journal, name, seed, count = sys.argv[1:]
    Sender(Path(database), Path(journal), name, seed, int(count)).run()


if __name__ == "__main__":
    main()
