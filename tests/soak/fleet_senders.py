"""A process that sends to a fleet: `fleet_senders.py URL JOURNAL NAME SEED COUNT PORTS`. It ends when its stdin does.

It sends through the library and with the command on the database, and over HTTP at any gateway. What is sent with an
idempotency key is repeated until there is an answer, at another gateway each time. Before each sending its key goes
into the journal as `tried`, and what was committed for sure as `senders.py` has it. What is rolled back is not noted.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from pathlib import Path

from tests.soak.senders import PACE, Sender
from ws_manager import Ledger, LedgerError, NotFound, WsManagerError, open_ledger
from ws_manager.client.api import ApiClient, path_of

_ROLLED_BACK, _BATCH, _HTTP = 0.08, 0.02, 0.4
"""How often it rolls back, sends a batch with the command, and uses HTTP; else the library."""

_BATCHED = (20, 120)
_LARGEST, _LARGEST_OF_MANY = 30_000, 4000
_TO_ONE = 0.65
_AGAIN_SECONDS = 0.1
_PATIENCE = 50.0


class _RolledBack(Exception):
    """Ends a transaction."""


class FleetSender(Sender):
    """Sends at random, in every way.

    Args:
        ports: of the gateways; the other arguments are those of `Sender`.
    """

    def __init__(
        self, database: str, journal: Path, name: str, seed: str, count: int, ports: list[int]
    ) -> None:
        super().__init__(database, journal, name, seed, count)
        self._gateways = [ApiClient(f"http://127.0.0.1:{port}", lambda: None) for port in ports]

    def run(self) -> None:
        """Send until stdin ends."""
        threading.Thread(target=lambda: (sys.stdin.read(), self._stop.set()), daemon=True).start()
        with self._opened() as ledger:
            while not self._stop.is_set():
                chance = self._random.random()
                if chance < _ROLLED_BACK:
                    self._roll_back(ledger)
                elif chance < _ROLLED_BACK + _BATCH:
                    self._batch()
                elif chance < _ROLLED_BACK + _BATCH + _HTTP:
                    self._by_http()
                else:
                    self._by_library(ledger)
                self._stop.wait(self._random.expovariate(PACE))

    def _opened(self) -> Ledger:
        """Open the ledger, once its server lets anybody in."""
        deadline = time.monotonic() + _PATIENCE
        while True:
            try:
                return open_ledger(self._database)
            except LedgerError:
                if time.monotonic() > deadline:
                    raise
                self._stop.wait(_AGAIN_SECONDS)

    def _by_library(self, ledger: Ledger) -> None:
        try:
            if self._random.random() < _TO_ONE:
                self._send(ledger, self._anybody(), self._size(_LARGEST))
            else:
                self._broadcast(ledger)
        except LedgerError:
            self._stop.wait(_AGAIN_SECONDS)

    def _broadcast(self, ledger: Ledger) -> None:
        key, text = self._next(self._size(_LARGEST_OF_MANY))
        agent = None if self._random.random() < 0.7 else self._random.choice(self._groups)
        sent = ledger.broadcast(text, agent=agent)
        self._note(key, list(sent.recipients), broadcast_id=sent.broadcast_id)

    def _roll_back(self, ledger: Ledger) -> None:
        """Send some in a transaction that ends with an error: nobody may ever read them."""
        texts = [super(FleetSender, self)._next(150)[1] for _ in range(self._random.randint(1, 4))]
        try:
            with ledger._store.atomic():
                for text in texts[:-1]:
                    ledger.send(self._anybody(), text)
                ledger.broadcast(texts[-1])
                raise _RolledBack
        except (_RolledBack, LedgerError):
            return

    def _batch(self) -> None:
        """Many to anybody, with the command."""
        messages = [(self._anybody(), *self._next(20)) for _ in range(self._random.randint(*_BATCHED))]
        ended = subprocess.run(
            [sys.executable, "-m", "ws_manager", "--db", str(self._database), "send", "--batch", "-"],
            input="\n".join(json.dumps({"to": to, "content": text}) for to, _, text in messages),
            capture_output=True,
            text=True,
            encoding="utf-8",
            check=False,
        )
        if "Traceback" in ended.stderr:
            raise RuntimeError(f"send --batch ended with {ended.returncode}: {ended.stderr}")
        for answer in map(json.loads, ended.stdout.splitlines()):
            if answer["ok"]:
                to, key, _ = messages[answer["line"] - 1]
                self._note(key, [to], msg_id=answer["msg_id"])

    def _by_http(self) -> None:
        """Send one with an idempotency key, at one gateway after the other until there is an answer."""
        if self._random.random() < _TO_ONE:
            path, to, size = "messages", {"to": self._anybody()}, self._size(_LARGEST)
        else:
            path, to, size = "broadcasts", {}, self._size(_LARGEST_OF_MANY)
        key, text = self._next(size)
        deadline = time.monotonic() + _PATIENCE
        while time.monotonic() < deadline:
            api = self._random.choice(self._gateways)
            try:
                answer = api.call(
                    "POST", path_of(path), body={**to, "content": text}, key=key, patient=False
                ).body
            except NotFound:
                return
            except WsManagerError:
                self._stop.wait(_AGAIN_SECONDS)
                continue
            if to:
                self._note(key, [to["to"]], msg_id=answer["msg_id"])
            else:
                self._note(key, answer["ws_ids"], broadcast_id=answer["broadcast_id"])
            return

    def _next(self, size: int) -> tuple[str, str]:
        key, text = super()._next(size)
        print(json.dumps({"tried": key}), file=self._journal, flush=True)
        return key, text


def main() -> None:
    database, journal, name, seed, count, ports = sys.argv[1:]
    FleetSender(
        database, Path(journal), name, seed, int(count), [int(port) for port in ports.split(",")]
    ).run()


if __name__ == "__main__":
    main()
