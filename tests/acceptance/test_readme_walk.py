"""The README, followed as a reader would: every command, in order, in one world that begins with nothing."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.acceptance.processes import Program, running

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")

# What a promised line may have where it differs from run to run.
UNKNOWN = {"<uuid>": "[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", "<event>": "evt_[0-9A-Za-z]+"}

ELSEWHERE = {
    "make demo": "tests/test_demo.py",
    "make npm": "tests/npm, with the rest of that section",
}
"""Blocks that other tests run, by the command that they begin with."""

REAL_NAMES = {"gateway.example.com:8765": "localhost:{port}", "--host 0.0.0.0": "--host 127.0.0.1"}
"""What the README calls things that a test machine does not have."""


class Block(NamedTuple):
    """A block of the README: its language, its lines, and the heading that it stands under."""

    language: str
    lines: list[str]
    heading: str


def blocks() -> list[Block]:
    """Everything that a reader would type, in order."""
    found, heading = [], ""
    for part in re.finditer(
        r"^#{2,3} ([^\n]*)$|^```(bash|sh|python)\n(.*?)^```", README, re.MULTILINE | re.DOTALL
    ):
        if part[1] is not None:
            heading = part[1]
        else:
            found.append(Block(part[2], part[3].splitlines(), heading))
    return found


class World:
    """One machine of one reader: a home, terminals, and the programs that still run in them."""

    def __init__(self, home: Path, copy: Path, stack: ExitStack) -> None:
        self.copy = copy
        self.stack = stack
        programs = home / "programs"
        programs.mkdir(parents=True)
        python = programs / "python3"
        python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
        python.chmod(0o700)
        kept = (
            "LANG",
            "SSL_CERT_FILE",
            "PIP_INDEX_URL",
            "PIP_CONFIG_FILE",
            "PIP_EXTRA_INDEX_URL",
            "PIP_CERT",
        )
        self.environment = {
            **{name: value for name, value in os.environ.items() if name in kept},
            "HOME": str(home),
            "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
        }
        self.gateway: Program | None = None
        self.address = ""
        self.agents: dict[str, Program] = {}

    def start(self, line: str) -> Program:
        """Run a command in a terminal of its own."""
        script = f"cd {self.copy}; exec {line}"
        return self.stack.enter_context(running("bash", "-c", script, environment=self.environment))

    def serve(self, line: str) -> None:
        # Any port: the documented one may be in use on the machine that runs the tests.
        self.gateway = self.start(f"{line} --port 0")
        self.address = self.gateway.error_line("Ready: ").split()[1]
        # Agents of before come back by themselves.
        for agent in self.agents.values():
            agent.error_line("Ready: ")

    def stop_the_gateway(self) -> None:
        assert self.gateway is not None
        assert self.gateway.end(signal.SIGINT) == 0
        for agent in self.agents.values():
            agent.error_line("Trying again")

    def listen(self, line: str) -> None:
        agent = self.start(line)
        agent.error_line("Ready: ")
        self.agents[line] = agent

    def export(self, line: str) -> None:
        shown = self.output(f"{line}; env -0")
        self.environment = dict(entry.split("=", 1) for entry in shown.rstrip("\0").split("\0"))

    def output(self, line: str) -> str:
        """Run a command to its end and return what it prints."""
        ended = subprocess.run(
            ["bash", "-c", f"set -o pipefail; {line}"],
            cwd=self.copy,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert ended.returncode == 0, (line, ended.stdout, ended.stderr)
        return ended.stdout

    def run_the_agent(self, python: list[str]) -> None:
        """Run all Python so far, with the agent at its end on the running gateway."""
        assert self.gateway is not None
        self.output("ws-manager connect octavia --ws-id ws-004")
        self.output("ws-manager send ws-004 '\"over the wire\"'")
        script = self.copy / "agent.py"
        script.write_text("\n".join([*python, f"asyncio.run(agent({self.address!r}))"]))
        agent = self.start("python agent.py")
        while agent.line() != "data over the wire":
            pass
        agent.end(signal.SIGTERM)

    def follow(self, block: Block) -> None:
        """Do what a block says, and check what it promises."""
        line, promised = "", []
        for text in [*block.lines, ""]:
            if text.startswith("# ") and not text.startswith("# ("):
                promised.append(text[2:])
                continue
            if line:
                self.do(line, promised)
            line, promised = text, []

    def do(self, line: str, promised: list[str]) -> None:
        line = line.split("    # ")[0]
        if line == "# (Ctrl-C in the gateway's terminal)":
            self.stop_the_gateway()
        elif line.startswith("# "):
            pytest.fail(f"nobody knows what this says to do: {line}")
        elif line.startswith("export "):
            self.export(line)
        elif line.startswith("ws-manager serve"):
            self.serve(line)
        elif line.startswith("ws-manager listen") and "|" not in line and "--count" not in line:
            self.listen(line)
        else:
            shown = self.output(line).splitlines()
            if promised:
                pattern = "\n".join(map(re.escape, promised))
                for name, any_of in UNKNOWN.items():
                    pattern = pattern.replace(re.escape(name), any_of)
                assert re.fullmatch(pattern, "\n".join(shown)), (line, shown)


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


@pytest.fixture
def world(tmp_path: Path, copy: Path) -> Iterator[World]:
    with ExitStack() as stack:
        yield World(tmp_path / "home", copy, stack)


@pytest.mark.timeout(600)
def test_a_reader_can_follow_it_from_the_first_line_to_the_last(world: World) -> None:
    python: list[str] = []
    for block in blocks():
        if block.lines[0].split("    ")[0] in ELSEWHERE:
            continue
        if block.language != "python":
            world.follow(block)
            continue
        python += block.lines
        if "async def agent(url):" in block.lines:
            world.run_the_agent(python)
    assert world.agents
    # Nobody of those who listen was lost on the way.
    for line, agent in world.agents.items():
        assert agent.process.poll() is None, (line, agent.rest_of_errors())


def test_each_command_that_is_left_out_is_there() -> None:
    assert {block.lines[0].split("    ")[0] for block in blocks()} >= ELSEWHERE.keys()
