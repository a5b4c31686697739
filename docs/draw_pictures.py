"""Draw the pictures of docs/pictures.md: real output for made-up agents, on a clock that stands still.

`make pictures` runs it. The same version of the program draws the same pictures, to the letter.
"""

from __future__ import annotations

import fcntl
import io
import itertools
import os
import pty
import re
import struct
import subprocess
import sys
import tempfile
import termios
from collections.abc import Sequence
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Optional

from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console, RenderableType
from rich.text import Text

from ws_manager import models

if TYPE_CHECKING:
    from ws_manager import Ledger
    from ws_manager.models import Receipt
    from ws_manager.strict_json import Json

FOLDER = Path(__file__).parent
COLUMNS, LINES = 100, 24
NOW = datetime(2026, 11, 22, 17, 15, 18, 644305, tzinfo=timezone.utc)
DATABASE = "/var/lib/agents/ledger.db"
# Without the fonts that it would fetch from somewhere else: a picture is to be one file.
SVG = re.sub(r"@font-face \{\{.*?\n    \}\}", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL)


class Clock:
    """A clock that is set by hand, in the place of the system's."""

    def __init__(self) -> None:
        self.ago = 0.0
        self._ids = itertools.count(1)

    def utc_now(self) -> str:
        return models.timestamp(NOW - timedelta(seconds=self.ago))

    def new_ids(self, count: int, beside: Optional[str] = None) -> list[str]:
        return [f"5f0c31d2-7a{next(self._ids):02x}-4e1b-9c46-2d8be0a7f93c" for _ in range(count)]

    def take_over(self) -> None:
        """Before anything that uses the time is imported."""
        models.utc_now = self.utc_now
        models.new_ids = self.new_ids
        models.new_id = lambda: self.new_ids(1)[0]
        from ws_manager.cli.output import times

        times.now = lambda: NOW - timedelta(seconds=self.ago)


def main() -> None:
    clock = Clock()
    clock.take_over()
    from ws_manager.core.locations import hold_gateway

    if sys.argv[1:]:
        from ws_manager.__main__ import main as run

        run()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "ledger.db"
        rejected = fill(path, clock)
        # A gateway runs as long as somebody holds this.
        hold = hold_gateway(path)
        assert hold is not None
        for name, arguments in {
            "list": ["list"],
            "history": ["history", "--limit", "8"],
            "show": ["show", rejected],
        }.items():
            # The picture's edge cuts into its last line, so that is an empty one.
            shown = Text.from_ansi(output_of(path, arguments) + "\n")
            draw(name, f"ws-manager {' '.join(arguments)}", shown)
        draw("top", "ws-manager top", live(path, clock))
        hold.release()


def fill(path: Path, clock: Clock) -> str:
    """Write the ledger, and return the id of the message that was set aside."""
    from ws_manager import open_ledger
    from ws_manager.models import Closure, Gateway, Rejection, SignOfLife

    ledger = open_ledger(path)
    delivery = ledger.delivery
    clock.ago = 9000
    delivery.record_gateway(
        Gateway(models.new_id(), 4711, "http://127.0.0.1:8765", clock.utc_now(), models.timestamp(NOW))
    )
    gateway = ledger.latest_gateway()
    assert gateway is not None
    agents = (
        ("octavia", "ws-001", "us-west", 2, 11),
        ("octavia", "ws-002", "us-east", 4, 23),
        ("cipher", "ws-003", "eu-central", 1, 8),
        ("aria", "ws-004", "us-west", 3, 1840),
        ("billing", "ws-005", "eu-central", 47, 35),
    )
    for agent, ws_id, region, silent, trip in agents:
        clock.ago = 7300 - 13 * silent
        delivery.open_socket(agent, ws_id, metadata_of(region), gateway.id)
        at = models.timestamp(NOW - timedelta(seconds=silent + 0.5))
        delivery.settle([SignOfLife(ws_id, 1, at, trip, True)])
    clock.ago = 5000
    delivery.open_socket("aria", "ws-006", metadata_of("us-east"), gateway.id)
    clock.ago = 400.5
    delivery.settle([Closure("ws-006", 1, 1001, "going away", True)])
    clock.ago = 340.5
    sent = ledger.broadcast({"event": "deploy", "version": "2.1.0"})
    clock.ago = 340.488
    delivery.settle(receipts(ledger, sent.recipients, clock))
    clock.ago = 95.5
    message = ledger.send("ws-003", {"event": "rotate-keys", "by": "17:30"}, "command", "ws-001")
    assert message is not None and message.db_id is not None
    clock.ago = 95.25
    delivery.settle([Rejection("ws-003", 1, message.db_id, "keys are locked by an audit")])
    clock.ago = 62.5
    ledger.send("ws-005", {"event": "invoice.paid", "amount": 4200}, "stripe_invoice")
    clock.ago = 20.5
    ledger.send("ws-002", {"ping": True})
    delivery.settle(receipts(ledger, ["ws-002"], clock))
    ledger.close()
    clock.ago = 0
    return message.msg_id


def metadata_of(region: str) -> Json:
    from ws_manager.strict_json import Json

    return Json(f'{{"region":"{region}"}}')


def receipts(ledger: Ledger, ws_ids: Sequence[str], clock: Clock) -> list[Receipt]:
    """Return the receipts of connections for all that is pending for them."""
    from ws_manager.models import Receipt

    pending = {ws_id: ledger.delivery.pending(ws_id, 0, 100) for ws_id in ws_ids}
    return [
        Receipt(ws_id, 1, [message.seq for message in messages], clock.utc_now())
        for ws_id, messages in pending.items()
    ]


def output_of(path: Path, arguments: list[str]) -> str:
    """Run a command on a terminal whose clock stands still, and return what appears there."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, COLUMNS, 0, 0))
    environment = {**os.environ, "TERM": "xterm-256color", "BLACKROAD_WS_DB": str(path)}
    environment.pop("NO_COLOR", None)
    with subprocess.Popen(
        [sys.executable, __file__, *arguments], stdin=theirs, stdout=theirs, stderr=theirs, env=environment
    ) as process:
        os.close(theirs)
        shown = b""
        while True:
            try:
                some = os.read(ours, 65536)
            except OSError:  # Linux says EIO when the other end is gone
                break
            if not some:
                break
            shown += some
        os.close(ours)
    text = shown.decode().replace("\r\n", "\n").rstrip("\n")
    if process.returncode:
        raise SystemExit(f"{arguments}: exit {process.returncode}\n{text}")
    return text


def live(path: Path, clock: Clock) -> RenderableType:
    """Return a frame of the live view, a second after the one before."""
    from ws_manager import Ledger
    from ws_manager.cli.top.keyboard import Controls
    from ws_manager.cli.top.top_screen import frame, query_for
    from ws_manager.core.read.overview import Sampler
    from ws_manager.repository.engines import engine_of
    from ws_manager.repository.findings import ORDERS

    seconds = iter((100.0, 101.0))
    store = engine_of(path).open_to_write(path)
    ledger = Ledger(store)
    sampler = Sampler(store, now=clock.utc_now, timer=lambda: next(seconds))
    controls = Controls(tuple(ORDERS), "pending")
    query = query_for(controls, LINES)
    sampler.sample(query)
    clock.ago = 1.5
    sent = ledger.broadcast({"event": "alert"}, agent="octavia")
    ledger.delivery.settle(receipts(ledger, sent.recipients, clock))
    clock.ago = 0
    overview = sampler.sample(query)
    ledger.close()
    return frame(overview, controls, DATABASE, (COLUMNS, LINES), keys=True)


def draw(name: str, title: str, shown: RenderableType) -> None:
    """Write a picture."""
    console = Console(
        record=True,
        file=io.StringIO(),
        width=COLUMNS,
        height=LINES,
        force_terminal=True,
        color_system="truecolor",
    )
    console.print(shown)
    picture = console.export_svg(title=title, code_format=SVG, unique_id=f"ws-manager-{name}")
    target = FOLDER / f"{name}.svg"
    target.write_text("\n".join(line.rstrip() for line in picture.splitlines()) + "\n", encoding="utf-8")
    print(f"{target.name}: {target.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
