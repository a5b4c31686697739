"""See ws-manager work: a gateway, three agents, a kill and a resume. Run it with `make demo`.

Everything here is done by the installed `ws-manager` command in processes of its own, on a scratch database.
What is shown is also checked: the exit code is 1 if anything is not as it should be.
"""

from __future__ import annotations

import json
import os
import queue
import re
import shutil
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from typing import IO, Any

PATIENCE = 20.0  # seconds; nothing here takes nearly as long


class Failed(Exception):
    """Something is not as it should be."""


def check(holds: bool, what: str) -> None:
    """Stop the demo if something is not as it should be."""
    if not holds:
        raise Failed(what)


def say(text: str) -> None:
    """Print a line of the story."""
    print(f"\n# {text}", flush=True)


class Program:
    """A `ws-manager` command that stays, and the lines that it writes."""

    def __init__(self, command: list[str]) -> None:
        print(f"$ ws-manager {' '.join(command[3:])} &", flush=True)
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self._output = self._lines_of(self._process.stdout)
        self._errors = self._lines_of(self._process.stderr)

    def _lines_of(self, stream: IO[str] | None) -> queue.Queue[str]:
        lines: queue.Queue[str] = queue.Queue()

        def read() -> None:
            assert stream is not None
            with stream:
                for line in stream:
                    lines.put(line.rstrip("\n"))
            lines.put("")

        threading.Thread(target=read, daemon=True).start()
        return lines

    def _next(self, lines: queue.Queue[str]) -> str:
        try:
            return lines.get(timeout=PATIENCE)
        except queue.Empty:
            raise Failed("nothing was heard for too long") from None

    def ready(self) -> str:
        """Wait for the line that says so."""
        heard = []
        while True:
            line = _told(self._next(self._errors))
            if line.startswith("Ready"):
                print(f"  {line}", flush=True)
                return line
            heard.append(line)
            check(bool(line), "it ended before it was ready:\n" + "\n".join(heard))

    def message(self) -> dict[str, Any]:
        """Wait for the next message that it prints."""
        line = self._next(self._output)
        if not line:
            raise Failed(
                "an agent ended before it printed a message:\n" + "\n".join(iter(self._errors.get, ""))
            )
        message: dict[str, Any] = json.loads(line)
        return message

    def kill(self) -> None:
        """End it as a crash would: it cannot say goodbye."""
        self._process.kill()
        self._process.wait()

    def stop(self) -> int:
        """Ask it to end, and return its exit code."""
        self._process.terminate()
        try:
            return self._process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.kill()
            raise Failed("it did not end when asked to") from None


def _told(line: str) -> str:
    """Return what a line says: in a pipe, a gateway logs objects of JSON."""
    return str(json.loads(line)["message"]) if line.startswith("{") else line


class Demo:
    """The story, on one scratch database."""

    def __init__(self, command: str, database: Path) -> None:
        self._command = [command, "--db", str(database)]
        self._running: dict[str, Program] = {}

    def run(self, *arguments: str, quiet: bool = False) -> str:
        """Run a command to its end, show it, and return what it printed."""
        if not quiet:
            print(
                f"$ ws-manager {' '.join(repr(a) if re.search('[ {]', a) else a for a in arguments)}",
                flush=True,
            )
        ended = subprocess.run(
            [*self._command, *arguments], capture_output=True, text=True, timeout=PATIENCE, check=False
        )
        if not quiet:
            for line in (ended.stdout + ended.stderr).splitlines():
                print(f"  {line}", flush=True)
        check(ended.returncode == 0, f"{arguments[0]} ended with {ended.returncode}: {ended.stderr}")
        return ended.stdout

    def start(self, name: str, *arguments: str) -> str:
        """Start a command that stays, and wait until it is ready."""
        self._running[name] = Program([*self._command, *arguments])
        return self._running[name].ready()

    def expect(self, ws_id: str, content: object) -> None:
        """Wait for an agent's next message, show it, and make sure that it is this one."""
        message = self._running[ws_id].message()
        print(f"  {ws_id} received #{message['seq']}: {json.dumps(message['content'])}", flush=True)
        check(message["content"] == content, f"{ws_id} should have received {content}")

    def history(self) -> list[dict[str, Any]]:
        """Return the messages in the ledger, oldest first."""
        rows: list[dict[str, Any]] = json.loads(self.run("history", "--json", quiet=True))
        return rows[::-1]

    def end(self) -> None:
        """End whatever still runs."""
        for program in self._running.values():
            program.kill()

    def tell(self) -> None:
        """Tell the story."""
        say("A gateway on a scratch database. It takes a free port and writes its address into the file.")
        ready = self.start("gateway", "serve", "--port", "0")
        check(bool(re.search(r"http://127\.0\.0\.1:\d+", ready)), "the gateway should say its address")

        say("Three agents, each in a process of its own, each over a real WebSocket.")
        self.start("ws-001", "listen", "octavia", "--ws-id", "ws-001")
        self.start("ws-002", "listen", "octavia", "--ws-id", "ws-002")
        self.start("ws-003", "listen", "cipher", "--ws-id", "ws-003")

        say("To everybody. --wait returns when all of them have confirmed.")
        self.run("broadcast", '{"event":"deploy","version":"2.1.0"}', "--wait", "15s")
        for ws_id in ("ws-001", "ws-002", "ws-003"):
            self.expect(ws_id, {"event": "deploy", "version": "2.1.0"})

        say("To one agent's connections.")
        self.run("broadcast", '{"event":"alert"}', "--agent", "octavia", "--wait", "15s")
        for ws_id in ("ws-001", "ws-002"):
            self.expect(ws_id, {"event": "alert"})

        say("To one connection.")
        self.run("send", "ws-003", '{"ping":true}', "--wait", "15s")
        self.expect("ws-003", {"ping": True})
        check(all(row["delivered"] == 1 for row in self.history()), "everything should be delivered by now")

        say("ws-002 is killed: it cannot say goodbye. What is sent to it meanwhile is kept.")
        self._running.pop("ws-002").kill()
        print("$ kill -9 (the process of ws-002)", flush=True)
        for step in (1, 2):
            self.run("broadcast", json.dumps({"event": "while you were away", "step": step}))
            for ws_id in ("ws-001", "ws-003"):
                self.expect(ws_id, {"event": "while you were away", "step": step})
        missed = [row for row in self.history() if row["recipient_id"] == "ws-002" and not row["delivered"]]
        check(len(missed) == 2, "two messages should be waiting for ws-002")

        say("It comes back under the same id and gets what it missed, oldest first.")
        ready = self.start("ws-002", "listen", "octavia", "--ws-id", "ws-002")
        check("resumed" in ready, "ws-002 should have resumed")
        for step in (1, 2):
            self.expect("ws-002", {"event": "while you were away", "step": step})
        self.run("send", "ws-002", '"welcome back"', "--wait", "15s")
        self.expect("ws-002", "welcome back")

        say("Who is connected.")
        self.run(
            "list",
            "-o",
            "table",
            "--time",
            "relative",
            "--fields",
            "ws_id,agent,status,message_count,pending",
        )
        connections = json.loads(self.run("list", "--json", quiet=True))
        check(
            [(row["ws_id"], row["message_count"]) for row in connections]
            == [("ws-001", 4), ("ws-002", 5), ("ws-003", 4)],
            "three connections should be active, with their counts",
        )

        say("What was sent to whom, and whether it arrived.")
        self.run(
            "history",
            *("-o", "table", "--time", "relative", "--fields", "sent_at,recipient_id,delivered,content"),
        )
        rows = self.history()
        check(len(rows) == 13, "thirteen messages should be in the ledger")
        check(all(row["delivered"] == 1 for row in rows), "every one should be delivered")

        say("In short.")
        stats = json.loads(self.run("stats"))
        check(
            list(stats.items())[:4]
            == [
                ("active_connections", 3),
                ("total_ever_connected", 3),
                ("total_messages", 13),
                ("agents", {"cipher": 1, "octavia": 2}),
            ],
            "the counts should be these",
        )

        for name in ("ws-001", "ws-002", "ws-003", "gateway"):
            code = self._running.pop(name).stop()
            check(code == 0, f"{name} should end with 0 when asked to, not with {code}")
        say("Every message was confirmed by its receiver, and everything ended cleanly.")


def main() -> int:
    """Run the demo and return its exit code."""
    # The command of the environment that runs this, otherwise the one on the PATH.
    beside = str(Path(sys.executable).parent)
    command = shutil.which("ws-manager", path=os.pathsep.join([beside, os.environ.get("PATH", "")]))
    if command is None:
        print("ws-manager is not installed: run `make demo`", file=sys.stderr)
        return 1
    for name in [name for name in os.environ if name.startswith("BLACKROAD_")]:
        del os.environ[name]
    with tempfile.TemporaryDirectory() as folder:
        demo = Demo(command, Path(folder) / "ledger.db")
        try:
            demo.tell()
        except (Failed, subprocess.TimeoutExpired) as error:
            print(f"\nThe demo failed: {error}", file=sys.stderr)
            return 1
        finally:
            demo.end()
    return 0


if __name__ == "__main__":
    sys.exit(main())
