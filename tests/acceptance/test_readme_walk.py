"""The README and its pages, followed as a reader would: every command, in order, in one world that starts empty."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import re
import shlex
import shutil
import signal
import struct
import subprocess
import sys
import termios
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple, Optional

import pytest

from tests.acceptance.processes import Program, made_certificate, running
from tests.documentation import ROOT, pages

UUID = re.compile("[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
STYLE = re.compile(r"\r|\x1b\[[0-9;]*m|\x1b\]8;;[^\x1b]*\x1b\\")
"""Carriage returns, colours, and links to click on."""

DIFFERS = {
    UUID.pattern: "<uuid>",
    r"evt_[0-9A-Za-z]+": "<event>",
    r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d": "<time>",
    r"\d+[smh] ago": "<ago>",
    r"[\d.]+ m?s after": "<duration> after",
    r"127\.0\.0\.1:\d+": "<address>",
    r"(?m)^waiting at most .*\n": "",  # what is confirmed at once is not waited for
    r" +": " ",
}
"""What differs from run to run in what is shown, as patterns; what is compared in its place."""

ELSEWHERE = {
    "make demo": "tests/test_demo.py",
    "make npm": "tests/npm/test_npm.py",
    "# worker.py": "tests/acceptance/test_documented_worker.py",
    "# app.py": "tests/acceptance/test_web_application.py",
    "# receiver.py": "tests/acceptance/test_documented_receiver.py",
    "openssl rand -base64 32 >forward.secret": "tests/acceptance/test_documented_receiver.py",
    "# sockets.py": "tests/acceptance/test_own_sockets.py",
}
"""Blocks that other tests run, by the command or the name of the file that they begin with."""

AGENTS = {
    "async def agent(url):": ("'\"over the wire\"'", "data over the wire"),
    "async def worker(url):": ('\'{"version": "1.4"}\' --type deploy', "deploying 1.4"),
}
"""Agents in Python, by their functions: what is sent to ws-004, and what they print of it."""

DOCUMENTED = "http://127.0.0.1:8765"
"""The address of a gateway in the documentation. Here it has any port."""

OPTIONAL = ("curl", "node")
"""Programs that a reader need not have."""

HOST = "gateway.example.com"
"""What the documentation calls a machine that has a name and a certificate. Here it is this machine."""


class Block(NamedTuple):
    """A block of the documentation: its language and its lines."""

    language: str
    lines: list[str]


def blocks(page: Path) -> list[Block]:
    """Everything on a page that a reader would type, in order."""
    found = re.findall(
        r"^```(bash|sh|python|js)\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
    )
    return [Block(language, text.replace("\\\n", " ").splitlines()) for language, text in found]


def left_to_others(block: Block) -> bool:
    return block.lines[0].split("    ")[0] in ELSEWHERE


def comparable(lines: list[str]) -> str:
    """Return lines without what differs from run to run."""
    text = "\n".join(lines)
    for pattern, name in DIFFERS.items():
        text = re.sub(pattern, name, text)
    return "\n".join(line.rstrip() for line in text.splitlines())


class Machine:
    """A machine of one user: a home, and the programs that run in its terminals.

    Args:
        home: a new folder.
        place: where commands are typed.
        environment: what its terminals have beside HOME.
        stack: ends its programs.
    """

    def __init__(self, home: Path, place: Path, environment: dict[str, str], stack: ExitStack) -> None:
        home.mkdir(parents=True, exist_ok=True)
        self.place = place
        self.environment = {**environment, "HOME": str(home)}
        self.address = ""
        self.agents: dict[str, Program] = {}
        self._gateway: Optional[Program] = None
        self._stack = stack

    def start(self, line: str) -> Program:
        """Run a command in a terminal of its own."""
        script = f"cd {shlex.quote(str(self.place))}; exec {line}"
        return self._stack.enter_context(running("bash", "-c", script, environment=self.environment))

    def output(self, line: str) -> str:
        """Run a command to its end and return what it prints."""
        ended = subprocess.run(
            ["bash", "-c", f"set -o pipefail; {line}"],
            cwd=self.place,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert ended.returncode == 0, (line, ended.stdout, ended.stderr)
        return ended.stdout

    def shown(self, line: str) -> list[str]:
        """Run a command to its end on a terminal, and return what appears there."""
        ours, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 140, 0, 0))
        with subprocess.Popen(
            ["bash", "-c", f"set -o pipefail; {line}"],
            cwd=self.place,
            env=self.environment,
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
        ) as process:
            os.close(theirs)
            shown = b""
            with contextlib.suppress(OSError):  # Linux says EIO when the other end is gone
                while some := os.read(ours, 65536):
                    shown += some
            os.close(ours)
        text = STYLE.sub("", shown.decode()).replace(self.environment["HOME"], "~")
        assert process.returncode == 0, (line, text)
        return text.splitlines()

    def do(self, line: str, *, promised: bool = False) -> list[str]:
        """Do what a reader would.

        Args:
            line: a command.
            promised: whether it is said what appears then.

        Returns:
            what appears, if that is promised.
        """
        if line.startswith("ws-manager serve"):
            return [self._serve(line).replace(self.environment["HOME"], "~")]
        if line.startswith("ws-manager listen") and "|" not in line and "--until-empty" not in line:
            agent = self.agents[line] = self.start(line)
            return [agent.error_line("Ready: ")]
        if line.startswith("export "):
            shown = self.output(f"{line}; env -0")
            self.environment = dict(entry.split("=", 1) for entry in shown.rstrip("\0").split("\0"))
        elif promised:
            return self.shown(line)
        else:
            self.output(line)
        return []

    def _serve(self, line: str) -> str:
        # Any port: the documented one may be in use on the machine that runs the tests.
        self._gateway = self.start(f"{line} --port 0")
        # On a terminal the log has the same messages in readable lines.
        ready: str = json.loads(self._gateway.error_line("Ready: "))["message"]
        self.address = ready.split()[1]
        # The agents of before come back by themselves.
        for agent in self.agents.values():
            agent.error_line("Ready: ")
        return ready

    def stop_the_gateway(self) -> None:
        assert self._gateway is not None
        assert self._gateway.end(signal.SIGINT) == 0
        for agent in self.agents.values():
            agent.error_line("Trying again")


class World:
    """The machines of a reader who follows the documentation from its first line to its last.

    Args:
        folder: where all of it is.
        copy: of the repository.
        stack: ends what was started.
    """

    def __init__(self, folder: Path, copy: Path, stack: ExitStack) -> None:
        self.folder = folder
        self.stack = stack
        programs = folder / "programs"
        programs.mkdir()
        python = programs / "python3"
        python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
        python.chmod(0o700)
        own = ("HOME", "BLACKROAD", "STRIPE", "XDG", "PYTHON", "VIRTUAL_ENV")
        environment = {name: value for name, value in os.environ.items() if not name.startswith(own)}
        environment["PATH"] = f"{programs}{os.pathsep}{environment['PATH']}"
        # pip may need a proxy; this machine must not be looked for behind it.
        for name in ("NO_PROXY", "no_proxy"):
            environment[name] = ",".join(filter(None, (environment.get(name), "127.0.0.1")))
        self.here = Machine(folder / "home", copy, environment, stack)
        self.elsewhere: dict[str, Machine] = {}
        self.missing: set[str] = set()
        self._python: list[str] = []
        self._uuid = ""

    def follow(self, page: Path) -> None:
        """Do what a page says, and check what it promises."""
        for block in blocks(page):
            if left_to_others(block):
                continue
            if block.language == "python":
                # Each continues the one before, so they are one program; an agent is the end of one.
                self._python += block.lines
                for function in AGENTS.keys() & set(block.lines):
                    self._run_the_agent(*AGENTS[function])
            elif block.lines[0].startswith("#!"):
                self._save(block.lines)
            elif block.language == "js":
                self._run("node", "example.mjs", block.lines, "// ")
            else:
                self._type(block.lines)
        if self._python:
            self._run("python", "example.py", self._python, "# ")
        self._python = []

    def _save(self, lines: list[str]) -> None:
        """Save a script under the name that its first comment begins with."""
        script = self.here.place / lines[1][2:].split(":")[0]
        script.write_text("\n".join([*lines, ""]))
        script.chmod(0o700)

    def _type(self, lines: list[str]) -> None:
        machine, line, promised = self.here, "", list[str]()
        for text in [*lines, ""]:
            if text == "# (Ctrl-C in the gateway's terminal)":
                machine.stop_the_gateway()
            elif text.startswith("# (on "):
                machine = self._machine(text)
            elif text.startswith("# "):
                promised.append(text[2:])
            else:
                if line:
                    self._do(machine, line, promised)
                line, promised = text, []

    def _run(self, program: str, name: str, lines: list[str], comment: str) -> None:
        """Run a program, whose last lines say as comments what it prints."""
        code = list(lines)
        promised: list[str] = []
        while code[-1].startswith(comment):
            promised.insert(0, code.pop()[len(comment) :])
        (self.here.place / name).write_text("\n".join(code).replace(DOCUMENTED, self.here.address))
        self._do(self.here, f"{program} {name}", promised)

    def _do(self, machine: Machine, line: str, promised: list[str]) -> None:
        program = line.split()[0]
        if program in OPTIONAL and shutil.which(program) is None:
            self.missing.add(program)
            return
        line = line.split("    # ")[0].replace("<uuid>", self._uuid)
        if machine is self.here:
            line = line.replace(DOCUMENTED, machine.address)
        else:
            line = line.replace("--host 0.0.0.0", "--host 127.0.0.1").replace(HOST, "localhost")
            line = line.replace(":8765", f":{self._port_elsewhere()}")
        shown = machine.do(line, promised=bool(promised))
        if promised:
            pattern = ".*".join(map(re.escape, re.split(" ?… ?", comparable(promised))))
            assert re.fullmatch(pattern, comparable(shown), re.DOTALL), (line, shown)
            self._uuid = next((found[0] for found in map(UUID.search, shown) if found), self._uuid)

    def _port_elsewhere(self) -> str:
        return self.elsewhere[HOST].address.rpartition(":")[2] if HOST in self.elsewhere else "8765"

    def _machine(self, text: str) -> Machine:
        """Return another machine: that of the gateway has a certificate; others trust it, and get their token."""
        theirs = re.fullmatch(r"# \(on the (\w+)'s machine, with (\w+\.token)\)", text)
        name = HOST if theirs is None else theirs[1]
        if name in self.elsewhere:
            return self.elsewhere[name]
        place = self.folder / name
        place.mkdir()
        if theirs is None:
            made = made_certificate(place / "certificate", "DNS:localhost,IP:127.0.0.1")
            (made / "cert.pem").rename(place / "chain.pem")
            (made / "key.pem").rename(place / "key.pem")
        else:
            shutil.copy2(self.folder / HOST / theirs[2], place)
        environment = {**self.here.environment, "SSL_CERT_FILE": str(self.folder / HOST / "chain.pem")}
        machine = self.elsewhere[name] = Machine(place / "home", place, environment, self.stack)
        return machine

    def _run_the_agent(self, sent: str, promised: str) -> None:
        """Run all Python so far, and the agent at its end on the running gateway."""
        self.here.output("ws-manager connect octavia --ws-id ws-004")
        self.here.output(f"ws-manager send ws-004 {sent}")
        script = self.here.place / "agent.py"
        script.write_text("\n".join(self._python).replace(DOCUMENTED, self.here.address))
        self._python = []
        agent = self.here.start("python -u agent.py")
        while agent.line() != promised:
            pass
        agent.end(signal.SIGTERM)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """A copy of the repository, as somebody gets it."""
    target = tmp_path / "ws-manager"
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target / name)
    return target


@pytest.mark.long
@pytest.mark.timeout(600)
def test_a_reader_can_follow_it_from_the_first_line_to_the_last(tmp_path: Path, copy: Path) -> None:
    with ExitStack() as stack:
        world = World(tmp_path, copy, stack)
        for page in pages():
            world.follow(page)
        assert len(world.here.agents) == 6
        # An agent on another machine gets what is sent on the gateway's.
        world.elsewhere[HOST].output("ws-manager send ws-005 '\"over TLS\"' --wait 30s")
        (remote,) = world.elsewhere["agent"].agents.values()
        assert json.loads(remote.line())["content"] == "over TLS"
        # Nobody of those who listen was lost on the way.
        for line, agent in world.here.agents.items():
            assert agent.process.poll() is None, (line, agent.rest_of_errors())
        if world.missing:
            pytest.skip(f"followed but for the examples with what is not installed: {sorted(world.missing)}")


def test_each_block_that_is_left_out_is_there() -> None:
    first_lines = [block.lines[0] for page in pages() for block in blocks(page) if left_to_others(block)]
    assert len(first_lines) == len(ELSEWHERE)
