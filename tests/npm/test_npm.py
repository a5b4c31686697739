"""`npx ws-manager`: the package, each of its commands, how it finds Python, and what it hands on."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import select
import shutil
import signal
import struct
import subprocess
import sys
import tarfile
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Optional

import pytest

import ws_manager
from tests.acceptance.processes import PATIENCE, Program, command, gateway, running
from tests.commands import EVERY
from tests.documentation import DOCS
from ws_manager import ConnectionPool, add_connection, get_message_history, send_message
from ws_manager.repository.sqlite.database import Database

LIMIT = 4 * 1024 * 1024
ONE_PYTHON = pytest.mark.parametrize("python", ["newest"], indirect=True)
"""For what is about the program, not about Python."""


def run(
    arguments: list[str], stdin: Optional[bytes] = None, **variables: str
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    ended = subprocess.run(
        arguments,
        input=b"" if stdin is None else stdin,
        capture_output=True,
        timeout=PATIENCE,
        check=False,
        env={**os.environ, **variables},
    )
    output, errors = (text.decode("utf-8", "surrogateescape") for text in (ended.stdout, ended.stderr))
    return subprocess.CompletedProcess(arguments, ended.returncode, output, errors)


@pytest.mark.timeout(900)  # the first of them builds it
class TestPackage:
    @pytest.fixture
    def names(self, package: Path) -> list[str]:
        with tarfile.open(package) as archive:
            return [name.split("/", 1)[1] for name in archive.getnames()]

    def test_is_small(self, package: Path) -> None:
        assert package.stat().st_size < LIMIT

    def test_has_our_version(self, package: Path) -> None:
        assert package.name == f"blackroad-websocket-manager-{ws_manager.__version__}.tgz"

    def test_runs_nothing_when_it_is_installed_and_needs_no_other_package(self, package: Path) -> None:
        with tarfile.open(package) as archive:
            file = archive.extractfile("package/package.json")
            assert file is not None
            about = json.load(file)
        assert about["version"] == ws_manager.__version__
        assert about["bin"] == {"ws-manager": "bin/ws-manager.js"}
        assert not {"scripts", "dependencies", "optionalDependencies", "os", "cpu", "gypfile"} & set(about)

    def test_has_nothing_compiled(self, names: list[str]) -> None:
        assert not [name for name in names if re.search(r"\.(so|pyd|dylib|dll|exe|pyc)\b", name)]

    def test_has_what_it_should(self, names: list[str]) -> None:
        assert {"package.json", "README.md", "LICENSE", "bin/ws-manager.js", "lib/launch.py"} <= set(names)
        assert {name.split("/")[0] for name in names} == {
            "package.json",
            "README.md",
            "LICENSE",
            "bin",
            "client",
            "lib",
        }
        assert {name.split("/")[1] for name in names if name.startswith("lib/")} == {
            "build.txt",
            "launch.py",
            "common",
            "newer",
        }

    def test_has_every_licence(self, names: list[str]) -> None:
        information = {name.split("/METADATA")[0] for name in names if name.endswith("/METADATA")}
        assert len(information) > 30
        for folder in information:
            assert [name for name in names if name.startswith(folder) and "LICENSE" in name], folder

    def test_says_nothing_about_where_it_was_built(self, package: Path) -> None:
        with tarfile.open(package) as archive:
            for member in archive:
                file = archive.extractfile(member)
                assert file is not None
                assert str(Path(__file__).parents[2]).encode() not in file.read(), member.name

    def test_launch_can_be_read_by_old_pythons(self, package: Path) -> None:
        text = (Path(__file__).parents[2] / "npm" / "launch.py").read_bytes()
        assert text.isascii()
        # What Python 2.7 cannot read at all.
        assert not re.search(rb"\bf\"|:=|nonlocal|\basync\b|->", text)


class TestCommands:
    def test_documented_first_line(self, shim: str, without_network: list[str], db: Database) -> None:
        connected = run([*without_network, "npx", "ws-manager", "connect", "octavia", "--ws-id", "ws-001"])
        assert (connected.returncode, connected.stdout) == (0, "Connected: ws-001 (agent=octavia)\n")

    def test_every_command(self, ws: list[str], python: Path, tmp_path: Path, db: Database) -> None:
        done = set()

        def does(line: str, code: int = 0) -> str:
            words = line.split()
            done.update({words[0], " ".join(words[:2])} & set(EVERY))
            ended = run([*ws, *words])
            assert ended.returncode == code, (line, ended.stdout, ended.stderr)
            return ended.stdout

        assert does("--version") == f"ws-manager {ws_manager.__version__}\n"
        assert does("connect octavia --ws-id ws-001") == "Connected: ws-001 (agent=octavia)\n"
        assert does("send ws-001 1").startswith("Sent message ")
        assert does('broadcast {"event":1}').startswith("Broadcast to 1 connection(s)\n")
        assert does("list -o id") == "ws-001\n"
        assert does("show ws-001 --json")
        received = [json.loads(line) for line in does("receive ws-001").splitlines()]
        assert [message["content"] for message in received] == [1, {"event": 1}]
        does(f"wait {received[0]['msg_id']} --timeout 30s")
        assert received[1]["broadcast_id"] in does("broadcasts")
        assert does(f"replay {received[0]['msg_id']} --to ws-001").startswith("Sent message ")
        does("help exit-codes")
        does("ask ws-001 1 --timeout 100ms", 5)
        assert len(json.loads(does("history --json"))) == 4
        assert does("heartbeat ws-001 --latency 12") == "Heartbeat updated for ws-001\n"
        assert does("heartbeat-check") == "Active: 1  Timed out: 0\n"
        assert json.loads(does("stats"))["total_messages"] == 4
        assert json.loads(does("top --once"))
        does("doctor")
        does("retry --all")
        does("prune --older-than 30d --dry-run")
        does(f"backup {tmp_path}/copy.db")
        does(f"export {tmp_path}/ledger.ndjson")
        does(f"import {tmp_path}/ledger.ndjson --db {tmp_path}/new.db")
        does(f"copy --from {tmp_path}/new.db --to {tmp_path}/moved.db --seal")
        assert does("disconnect ws-001") == "Disconnected: ws-001\n"
        does("bar octavia --yes")
        does("unbar octavia")
        does("stripe events")
        does("stripe replay evt_1", 5)
        does("stripe", 2)
        assert does("token octavia").count(".") == 2

        os.environ["STRIPE_WEBHOOK_SECRET"] = "whsec_of_a_test_and_long_enough"
        try:
            with running(*ws, "serve", "--port", "0") as server:
                warned = server.error_line("stripe")
                assert f"{python} -m pip install 'stripe>=7.0'" in warned
                server.error_line("Ready: ")
                with running(*ws, "listen", "octavia", "--ws-id", "ws-002", "--count", "1") as agent:
                    agent.error_line("Ready: ")
                    assert "Sent message" in does("send ws-002 2 --wait 30s")
                    assert json.loads(agent.line())["content"] == 2
                    assert agent.wait() == 0
                refused = run([*ws, "stripe", "trigger", "invoice.paid"])
                done.add("stripe trigger")
                assert refused.returncode == 1, refused
                assert "the package stripe is not installed" in refused.stderr
                assert "pip install" in refused.stderr
                assert server.end() == 0
        finally:
            del os.environ["STRIPE_WEBHOOK_SECRET"]
        done |= {"serve", "listen"}
        assert done == set(EVERY)

    def test_usage_names_the_program(self, ws: list[str]) -> None:
        assert run([*ws, "send", "--help"]).stdout.startswith("Usage: ws-manager send ")
        # The program looks at who started it to see which shell that is.
        shown = run(["bash", "-c", '"$@" --show-completion; :', "bash", *ws])
        assert "complete -o" in shown.stdout
        assert " ws-manager" in shown.stdout

    def test_only_python_39_is_limited_to_loopback(self, ws: list[str], python: Path, db: Database) -> None:
        version = run([str(python), "-c", "import sys; print(sys.version_info >= (3, 10))"]).stdout.strip()
        with running(*ws, "serve", "--port", "0", "--host", "0.0.0.0") as server:
            if version == "True":
                server.error_line("Ready: ")
                assert server.end() == 0
            else:
                assert server.wait() != 0
                assert "aiohttp" in " ".join(server.rest_of_errors())

    def test_same_file_side_by_side(self, ws: list[str], shim: str, database: Path) -> None:
        assert command(database, "connect", "octavia", "--ws-id", "ws-001").returncode == 0
        assert run([*ws, "send", "ws-001", '"from npm"']).returncode == 0
        assert command(database, "send", "ws-001", '"from pip"').returncode == 0
        received = [
            json.loads(line)["content"] for line in run([*ws, "receive", "ws-001"]).stdout.splitlines()
        ]
        assert received == ["from npm", "from pip"]
        assert json.loads(command(database, "stats").stdout) == json.loads(run([*ws, "stats"]).stdout)
        with (
            gateway(database),
            running(shim, "listen", "octavia", "--ws-id", "ws-002", "--count", "1") as agent,
        ):
            agent.error_line("Ready: ")
            assert command(database, "send", "ws-002", "3", "--wait", "30s").returncode == 0
            assert json.loads(agent.line())["content"] == 3

    def test_finds_stripe_that_is_installed_beside_it(self, ws: list[str], python: Path) -> None:
        version = run([str(python), "-c", "import sys; print('python%d.%d' % sys.version_info[:2])"])
        folder = python.parent.parent / "lib" / version.stdout.strip() / "site-packages"
        (folder / "stripe.py").write_text("import beside_it\n")
        (folder / "beside_it.py").write_text("")
        (folder / "typer.py").write_text("raise SystemExit('not this one')\n")
        try:
            with pytest.MonkeyPatch.context() as patch:
                patch.setenv("STRIPE_WEBHOOK_SECRET", "whsec_of_a_test_and_long_enough")
                for workers in ("1", "2") if sys.platform.startswith("linux") else ("1",):
                    with running(*ws, "serve", "--port", "0", "--workers", workers) as server:
                        server.error_line("Ready: ")
                        assert server.end() == 0
                        assert "pip install" not in " ".join(server.rest_of_errors())
        finally:
            for name in ("stripe", "beside_it", "typer"):
                (folder / f"{name}.py").unlink()


@ONE_PYTHON
class TestFindingPython:
    @pytest.fixture
    def only(self, tmp_path: Path, shim: str, monkeypatch: pytest.MonkeyPatch) -> Path:
        """A folder that is all of the PATH, with node in it."""
        folder = tmp_path / "bin"
        folder.mkdir()
        node = shutil.which("node")
        assert node is not None
        (folder / "node").symlink_to(node)
        monkeypatch.setenv("PATH", str(folder))
        monkeypatch.delenv("BLACKROAD_WS_PYTHON")
        return folder

    @staticmethod
    def program(path: Path, text: str) -> None:
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)

    def test_none(self, shim: str, only: Path) -> None:
        self.program(only / "python3", "echo 'manager: python3: not found' >&2; exit 127")
        self.program(only / "python", "exit 9")
        (only / "python3.13").symlink_to(only / "python")
        self.program(only / "python3.12", "kill -SEGV $$")
        old = only / "old"
        self.program(old, "echo 'Unknown option: -I' >&2; exit 2")
        ended = run([shim, "stats"], BLACKROAD_WS_PYTHON=str(old), VIRTUAL_ENV="/nowhere")
        assert (ended.returncode, ended.stdout) == (127, "")
        assert ended.stderr.splitlines() == [
            f"ws-manager: BLACKROAD_WS_PYTHON ({old}) is not used: it is older than Python 3.4",
            "ws-manager needs Python 3.9 or newer, and found none:",
            f"  BLACKROAD_WS_PYTHON ({old}): it is older than Python 3.4",
            "  VIRTUAL_ENV (/nowhere/bin/python): there is no such file",
            f"  python3 ({only}/python3): manager: python3: not found",
            f"  python ({only}/python): it ended with exit code 9",
            "  python3.14: it is not on the PATH",
            f"  python3.13 ({only}/python3.13): it is the same as python ({only}/python)",
            f"  python3.12 ({only}/python3.12): it was ended by SIGSEGV",
            "  python3.11: it is not on the PATH",
            "  python3.10: it is not on the PATH",
            "  python3.9: it is not on the PATH",
            "Install one from https://www.python.org, or name one with BLACKROAD_WS_PYTHON.",
        ]

    def test_files_that_python_cannot_open_are_not_its_fault(
        self, project: Path, python: Path, only: Path, tmp_path: Path
    ) -> None:
        package = tmp_path / "package"
        shutil.copytree(project / "node_modules" / "blackroad-websocket-manager", package)
        (package / "lib" / "launch.py").unlink()
        (only / "python3").symlink_to(python)
        ended = run([str(package / "bin" / "ws-manager.js"), "stats"])
        assert (ended.returncode, ended.stdout) == (1, "")
        assert ended.stderr.startswith(f"ws-manager: Python cannot open its files, in {package / 'lib'}:\n")
        assert "needs Python" not in ended.stderr

    def test_old_one_is_refused_and_the_next_gets_stdin(
        self, shim: str, only: Path, python: Path, db: Database
    ) -> None:
        add_connection(ConnectionPool(db), "ws-001", "octavia")
        versions = sorted(
            Path(os.environ.get("PYENV_ROOT", "/root/.pyenv"), "versions").glob("3.[678].*/bin/python")
        )
        if versions:
            (only / "python3").symlink_to(versions[-1])
            refused = run([shim, "stats"])
            assert re.search(r"python3 \(.*\): it is Python 3\.[678]\.\d+", refused.stderr)
        else:
            self.program(only / "python3", "exit 127")
        self.program(only / "python", "echo noise; echo noise >&2; exit 1")
        (only / "python3.12").symlink_to(python)
        ended = run([shim, "send", "ws-001", "-"], b"the message\n")
        assert (ended.returncode, ended.stderr) == (0, "")
        assert ended.stdout.startswith("Sent message ")
        assert get_message_history(db)[0]["content"] == '"the message"'

    def test_order(self, shim: str, only: Path, python: Path, tmp_path: Path) -> None:
        chosen = tmp_path / "chosen"
        active = tmp_path / "active"
        (active / "bin").mkdir(parents=True)
        for path in (
            chosen,
            active / "bin" / "python",
            *(only / name for name in ("python3", "python", "python3.9")),
        ):
            self.program(path, f'echo "$0" >> "$LOG"; exec "{python}" "$@"')
        log = tmp_path / "log"
        every = {"BLACKROAD_WS_PYTHON": str(chosen), "VIRTUAL_ENV": str(active), "LOG": str(log)}
        assert run([shim, "--version"], None, **every).returncode == 0
        del every["BLACKROAD_WS_PYTHON"]
        assert run([shim, "--version"], None, **every).returncode == 0
        del every["VIRTUAL_ENV"]
        for name in ("python3", "python", "python3.9"):
            assert run([shim, "--version"], None, **every).returncode == 0
            (only / name).unlink()
        assert log.read_text().split() == [
            str(chosen),
            str(active / "bin" / "python"),
            *(str(only / name) for name in ("python3", "python", "python3.9")),
        ]

    def test_later_folder_of_the_path(self, shim: str, only: Path, python: Path, tmp_path: Path) -> None:
        later = tmp_path / "later"
        later.mkdir()
        self.program(only / "python3", "exit 127")
        self.program(later / "python3", f'exec "{python}" "$@"')
        assert run([shim, "--version"], PATH=f"{only}:{later}").returncode == 0

    @pytest.mark.parametrize("trap", ["", "trap 'exit 1' TERM;"])
    def test_told_to_end_while_it_looks_it_looks_no_further(
        self, shim: str, only: Path, trap: str, tmp_path: Path
    ) -> None:
        self.program(only / "python3", f'{trap} echo up >> "$LOG"; while :; do /bin/sleep 0.1; done')
        self.program(only / "python", 'echo next >> "$LOG"')
        log = tmp_path / "log"
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("LOG", str(log))
            with running(shim, "stats") as program:
                limit = time.monotonic() + PATIENCE
                while not log.exists():
                    assert time.monotonic() < limit
                assert program.end() == -signal.SIGTERM
        assert log.read_text() == "up\n"

    def test_nothing_of_the_current_folder_or_of_pythons_variables_is_used(
        self, shim: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, database: Path
    ) -> None:
        for name in ("typer", "sqlite3", "ws_manager", "json"):
            (tmp_path / f"{name}.py").write_text("raise SystemExit('not this one')")
        (tmp_path / "python3").symlink_to("/bin/false")
        monkeypatch.chdir(tmp_path)
        path = ":" + os.environ["PATH"]
        ended = run([shim, "stats"], PYTHONPATH=str(tmp_path), PYTHONHOME="/nowhere", PATH=path)
        assert ended.returncode == 0, ended.stderr

    def test_exit_codes_of_the_program_are_not_taken_for_pythons(self, ws: list[str], db: Database) -> None:
        for arguments, code in ((["send", "nobody", "1"], 3), (["--no-such-option"], 2), ([], 2)):
            ended = run([*ws, *arguments])
            assert ended.returncode == code
            assert "needs Python" not in ended.stderr


@ONE_PYTHON
class TestCompiledFiles:
    def test_are_the_users_alone(self, shim: str, project: Path, tmp_path: Path) -> None:
        assert run([shim, "stats"], XDG_CACHE_HOME=str(tmp_path / "cache")).returncode == 0
        folder = tmp_path / "cache" / "ws-manager"
        assert folder.stat().st_mode & 0o777 == 0o700
        assert list(folder.rglob("app.*.pyc"))
        assert not list((project / "node_modules").rglob("__pycache__"))

    def test_where_others_can_write_there_are_none(self, shim: str, tmp_path: Path, project: Path) -> None:
        for base in (tmp_path / "cache", tmp_path / "ws-manager-cache"):
            base.mkdir()
        (tmp_path / "cache" / "ws-manager").mkdir()
        (tmp_path / "cache" / "ws-manager").chmod(0o777)
        (tmp_path / f"ws-manager-cache-{os.geteuid()}").symlink_to(tmp_path / "ws-manager-cache")
        variables = {"XDG_CACHE_HOME": str(tmp_path / "cache"), "TMPDIR": str(tmp_path)}
        assert run([shim, "stats"], None, **variables).returncode == 0
        assert not list(tmp_path.rglob("*.pyc"))
        assert not list((project / "node_modules").rglob("__pycache__"))


ODD = [
    "a b",
    "it's",
    'say "hi"',
    "*",
    "$HOME",
    "`id`",
    "🙂 日本",
    "",
    "two\nlines",
    "\\",
    "%PATH%",
    "!x",
    "a;b|c&d",
    " ",
]


@ONE_PYTHON
class TestHandingOn:
    @pytest.mark.parametrize("argument", ODD)
    def test_arguments(self, ws: list[str], argument: str, db: Database) -> None:
        add_connection(ConnectionPool(db), "ws-001", "octavia")
        ended = run([*ws, "send", "ws-001", argument])
        assert ended.returncode == 0, ended.stderr
        assert json.loads(get_message_history(db)[0]["content"]) == argument

    def test_argument_that_looks_like_an_option(self, ws: list[str], db: Database) -> None:
        add_connection(ConnectionPool(db), "ws-001", "octavia")
        assert run([*ws, "send", "ws-001", "--", "-x"]).returncode == 0
        assert json.loads(get_message_history(db)[0]["content"]) == "-x"

    def test_stdin_byte_for_byte(self, ws: list[str], db: Database) -> None:
        add_connection(ConnectionPool(db), "ws-001", "octavia")
        text = "line\r\n\ttab\x00nul 🙂 " + "x" * 200_000
        assert run([*ws, "send", "ws-001", "-"], text.encode()).returncode == 0
        assert json.loads(get_message_history(db)[0]["content"]) == text
        lines = b"".join(b"%d\n" % number for number in range(20_000))
        assert len(run([*ws, "send", "ws-001", "--batch", "-"], lines).stdout.splitlines()) == 20_000

    def test_other_files_of_the_shell(self, shim: str, db: Database, tmp_path: Path) -> None:
        add_connection(ConnectionPool(db), "ws-001", "octavia")
        exported = run([shim, "export"]).stdout
        (tmp_path / "ledger").write_text(exported)
        script = """
            "$1" import /dev/fd/3 --db "$2/3.db" 3<"$2/ledger"
            "$1" import <(cat "$2/ledger") --db "$2/x.db"
        """
        ended = run(["bash", "-ec", script, "bash", shim, str(tmp_path)])
        assert ended.returncode == 0, ended.stderr
        for name in ("3.db", "x.db"):
            # All but the first line, which says when.
            copy = run([shim, "export", "--db", str(tmp_path / name)]).stdout
            assert copy.splitlines()[1:] == exported.splitlines()[1:]

    @pytest.mark.parametrize("program", ["ours", "pip"])
    def test_closed_pipe(self, shim: str, db: Database, program: str) -> None:
        add_connection(ConnectionPool(db), "ws-001", "octavia")
        assert run([shim, "send", "ws-001", "--batch", "-"], b"1\n" * 20_000).returncode == 0
        words = f"'{shim}'" if program == "ours" else f"'{sys.executable}' -m ws_manager"
        script = f"{words} history --limit 20000 --json | head -n 1; echo ${{PIPESTATUS[0]}}"
        # Python itself says nothing of a pipe that was closed if it does not buffer.
        ended = run(["bash", "-c", script], PYTHONUNBUFFERED="")
        assert (ended.stdout.splitlines()[-1], ended.stderr) == ("141", "")

    def test_closed_stdout_and_a_full_one(self, shim: str, db: Database) -> None:
        assert run(["bash", "-c", '"$1" stats >&-', "bash", shim]).returncode == 0
        if Path("/dev/full").exists():
            ours = run(["bash", "-c", '"$1" stats >/dev/full', "bash", shim])
            direct = run(["bash", "-c", '"$1" -m ws_manager stats >/dev/full', "bash", sys.executable])
            assert (ours.returncode, ours.stderr) == (direct.returncode, direct.stderr)

    def test_output_to_a_file(self, shim: str, db: Database, tmp_path: Path) -> None:
        script = '"$1" stats >"$2/out" && "$1" stats >>"$2/out" && "$1" send nobody 1 >>"$2/out" 2>&1'
        assert run(["bash", "-c", script, "bash", shim, str(tmp_path)]).returncode == 3
        text = (tmp_path / "out").read_text()
        assert text.count("total_messages") == 2
        assert "no connection nobody" in text

    def test_size_and_kind_of_the_terminal(self, shim: str, db: Database) -> None:
        add_connection(ConnectionPool(db), "w" * 100, "a" * 60)
        for columns in (200, 60):
            with Terminal([shim, "list"], columns) as terminal:
                assert terminal.wait() == 0
                lines = re.sub(r"\x1b\[[0-9;]*m", "", terminal.seen).splitlines()
            assert max(map(len, lines)) <= columns
            assert any("w" * 100 in line and "a" * 60 in line for line in lines) == (columns == 200)


class Terminal:
    """A command in the foreground of a terminal of its own, started by a shell as users do."""

    def __init__(self, arguments: list[str], columns: int = 80) -> None:
        self.seen = ""
        self.code: Optional[int] = None
        # The shell is there when the command has ended: as long as it is, the terminal hangs up on nobody.
        script = 'trap : INT; "$@"; echo "[exit $?]"; read -r _'
        self.pid, self.end = pty.fork()
        if self.pid == 0:
            fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
            os.execvpe("bash", ["bash", "-c", script, "bash", *arguments], {**os.environ, "TERM": "xterm"})

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.end)
        os.kill(self.pid, signal.SIGKILL)
        os.waitpid(self.pid, 0)

    def until(self, pattern: str) -> re.Match[str]:
        """Wait until something was written to the terminal."""
        limit = time.monotonic() + PATIENCE
        while not (found := re.search(pattern, self.seen)):
            assert time.monotonic() < limit, self.seen
            if select.select([self.end], [], [], 1)[0]:
                self.seen += os.read(self.end, 65536).decode()
        return found

    def type(self, keys: bytes) -> None:
        os.write(self.end, keys)

    def wait(self) -> int:
        return int(self.until(r"\[exit (\d+)\]")[1])


@contextmanager
def agent(shim: str) -> Iterator[Program]:
    """An agent on the gateway of the database."""
    with running(sys.executable, "-m", "ws_manager", "listen", "octavia", "--ws-id", "ws-001") as program:
        program.error_line("Ready: ")
        yield program


def child_of(pid: int) -> int:
    """Return the process that a shim has started."""
    return int(run(["pgrep", "-P", str(pid)]).stdout)


def gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def wait_until_gone(pid: int) -> None:
    limit = time.monotonic() + PATIENCE
    while not gone(pid):
        assert time.monotonic() < limit
        time.sleep(0.01)


COUNTER = f"""#!{sys.executable}
import os, signal
for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
    signal.signal(number, lambda number, _frame: os.write(91, signal.Signals(number).name.encode() + b"\\n"))
os.write(2, b"\\0")
os.write(91, b"up\\n")
os.read(2, 1)
os.write(91, b"end\\n")
"""
"""A Python that runs nothing, and says which signals it gets."""


@ONE_PYTHON
class TestSignals:
    @pytest.fixture
    def counter(self, tmp_path: Path, shim: str, monkeypatch: pytest.MonkeyPatch) -> None:
        path = tmp_path / "counter"
        path.write_text(COUNTER)
        path.chmod(0o755)
        monkeypatch.setenv("BLACKROAD_WS_PYTHON", str(path))

    @pytest.fixture
    def server(self, shim: str) -> Iterator[Program]:
        with running(shim, "serve", "--port", "0") as program:
            program.error_line("Ready: ")
            yield program

    @pytest.mark.parametrize(
        ("number", "said"),
        [(signal.SIGTERM, "(1001)"), (signal.SIGINT, "(1001)"), (signal.SIGHUP, "(1012)")],
    )
    def test_reach_the_child(self, shim: str, server: Program, number: signal.Signals, said: str) -> None:
        with agent(shim) as octavia:
            server.send(number)
            octavia.error_line(said)
            assert server.wait() == 0

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
    def test_sent_to_the_group_count_once(self, shim: str, number: signal.Signals) -> None:
        script = 'set -m; "$@" & trap "kill -s USR1 -- -$!" USR1; echo $!; wait'
        with running("bash", "-c", script, "bash", shim, "serve", "--port", "0") as shell:
            group = int(shell.line())
            shell.error_line("Ready: ")
            with agent(shim) as octavia:
                os.killpg(group, number)
                octavia.error_line("(1012)" if number == signal.SIGHUP else "(1001)")
                assert shell.wait() == 0

    def test_each_reaches_the_child_once(self, shim: str, counter: None) -> None:
        with running(shim) as program:
            program.error_line("up")
            sent = [signal.SIGTERM, signal.SIGTERM, signal.SIGHUP, signal.SIGINT]
            for number in sent:
                program.send(number)
                program.error_line(number.name)
            program.process.kill()
            assert program.rest_of_errors() == ["up", *(number.name for number in sent), "end"]

    def test_ctrl_c_reaches_the_child_once(self, shim: str, counter: None) -> None:
        with Terminal([shim]) as terminal:
            terminal.until("up")
            for count in (1, 2):
                terminal.type(b"\x03")
                terminal.until(rf"(?s)(SIGINT.*){{{count}}}")
            # What follows is sent by the program alone, so that nothing of before is still on its way.
            terminal.type(b"\x1c")
            terminal.wait()
            assert terminal.seen.count("SIGINT") == 2

    @pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGUSR2])
    def test_ends_by_the_signal_of_the_child(self, server: Program, number: signal.Signals) -> None:
        os.kill(child_of(server.process.pid), number)
        assert server.wait() == (0 if number == signal.SIGTERM else -number)

    def test_child_ends_in_order_when_the_shim_is_killed(self, shim: str, server: Program) -> None:
        child = child_of(server.process.pid)
        with agent(shim) as octavia:
            server.process.kill()
            octavia.error_line("(1001)")
            wait_until_gone(child)

    def test_child_ends_while_it_reads_stdin(self, shim: str, db: Database) -> None:
        add_connection(ConnectionPool(db), "ws-001", "octavia")
        with running(shim, "send", "ws-001", "--batch", "-", stdin=subprocess.PIPE) as sender:
            assert sender.process.stdin is not None
            sender.process.stdin.write("1\n")
            sender.process.stdin.flush()
            sender.line()
            child = child_of(sender.process.pid)
            sender.process.kill()
            wait_until_gone(child)

    def test_ctrl_c_in_a_terminal(self, shim: str) -> None:
        with Terminal([shim, "serve", "--port", "0"]) as terminal:
            terminal.until("Ready: ")
            with agent(shim) as octavia:
                terminal.type(b"\x03")
                octavia.error_line("(1001)")
                assert terminal.wait() == 0

    @pytest.mark.parametrize("shell", ["bash", "sh"])
    def test_ctrl_c_with_npx(
        self, shim: str, shell: str, monkeypatch: pytest.MonkeyPatch, db: Database
    ) -> None:
        monkeypatch.setenv("npm_config_script_shell", shell)
        with Terminal(["npx", "ws-manager", "serve", "--port", "0"]) as terminal:
            terminal.until("Ready: ")
            (pid,) = db.execute("SELECT pid FROM gateways").fetchone()
            with agent(shim) as octavia:
                terminal.type(b"\x03")
                octavia.error_line("(1001)")
                # Where npm's shell stays between, it is what Ctrl-C ends.
                assert terminal.wait() in ((0,) if shell == "bash" else (0, 130))
                wait_until_gone(pid)

    @pytest.mark.parametrize("shell", ["bash", "sh"])
    def test_npx_that_is_told_to_end(
        self, shim: str, shell: str, monkeypatch: pytest.MonkeyPatch, db: Database
    ) -> None:
        monkeypatch.setenv("npm_config_script_shell", shell)
        with running("npx", "ws-manager", "serve", "--port", "0") as npx:
            npx.error_line("Ready: ")
            (pid,) = db.execute("SELECT pid FROM gateways").fetchone()
            with agent(shim) as octavia:
                npx.send(signal.SIGTERM)
                octavia.error_line("(1001)")
                wait_until_gone(pid)

    def test_stop_and_go_on_in_a_terminal(self, shim: str, db: Database) -> None:
        pool = ConnectionPool(db)
        add_connection(pool, "ws-001", "octavia")
        with Terminal(["bash", "-i"]) as terminal:
            terminal.type(f"PS1=; '{shim}' receive ws-001 --follow\n".encode())
            send_message(pool, db, "ws-001", "first")
            terminal.until("first")
            terminal.type(b"\x1a")
            terminal.until("Stopped")
            terminal.type(b"fg\n")
            send_message(pool, db, "ws-001", "second")
            terminal.until("second")
            terminal.type(b"\x03")
            terminal.type(b"echo ended=$?\n")
            terminal.until(r"ended=\d+")
            terminal.type(b"exit\n")


@ONE_PYTHON
class TestYarn:
    """Yarn 4 with Plug'n'Play, which keeps packages in archives unless they ask for more."""

    @pytest.fixture
    def yarn_project(
        self, yarn: str, package: Path, environment: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> Path:
        folder = tmp_path / "project"
        folder.mkdir()
        shutil.copy(package, folder / "package.tgz")
        (folder / "yarn.lock").touch()
        for name, value in {
            "YARN_GLOBAL_FOLDER": str(tmp_path / "global"),
            "YARN_ENABLE_TELEMETRY": "0",
            "YARN_ENABLE_NETWORK": "0",
            "YARN_ENABLE_IMMUTABLE_INSTALLS": "0",
            "YARN_NODE_LINKER": "pnp",
        }.items():
            monkeypatch.setenv(name, value)
        monkeypatch.chdir(folder)
        return folder

    @staticmethod
    def install(folder: Path, yarn: str, **more: object) -> None:
        dependencies = {"blackroad-websocket-manager": "file:./package.tgz"}
        (folder / "package.json").write_text(
            json.dumps({"private": True, "dependencies": dependencies, **more})
        )
        installed = run(["node", yarn, "install"])
        assert installed.returncode == 0, installed.stdout

    def test_it_is_unpacked_by_itself(self, yarn_project: Path, yarn: str) -> None:
        self.install(yarn_project, yarn)
        ended = run(["node", yarn, "ws-manager", "connect", "octavia", "--ws-id", "ws-001"])
        assert (ended.returncode, ended.stdout) == (0, "Connected: ws-001 (agent=octavia)\n"), ended.stderr

    def test_where_it_may_not_be_the_archive_is_named_not_python(self, yarn_project: Path, yarn: str) -> None:
        self.install(
            yarn_project, yarn, dependenciesMeta={"blackroad-websocket-manager": {"unplugged": False}}
        )
        ended = run(["node", yarn, "ws-manager", "stats"])
        assert (ended.returncode, ended.stdout) == (1, "")
        assert re.match(
            r"ws-manager: its files are inside .*\.zip, which Python cannot read\.\n", ended.stderr
        )
        assert "yarn unplug" in ended.stderr
        assert "Python 3.9" not in ended.stderr


@pytest.mark.timeout(900)
def test_the_documentation_leads_from_a_copy_to_a_message(
    package: Path, python: Path, tmp_path: Path, database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = (DOCS / "npm.md").read_text(encoding="utf-8")
    make, *lines = page.split("```sh\n", 1)[1].split("```", 1)[0].splitlines()
    # The package of these tests is what it makes.
    assert make == "make npm"
    (tmp_path / "ws-manager" / "npm").mkdir(parents=True)
    shutil.copy2(package, tmp_path / "ws-manager" / "npm")
    (tmp_path / "my-project").mkdir()
    (tmp_path / "my-project" / "package.json").write_text("{}")
    monkeypatch.chdir(tmp_path / "ws-manager")
    monkeypatch.setenv("npm_config_offline", "true")
    ended = run(
        ["bash", "-e", "-c", "\n".join(lines)],
        BLACKROAD_WS_PYTHON=str(python),
        BLACKROAD_WS_DB=str(database),
        npm_config_cache=str(tmp_path / "cache"),
    )
    assert ended.returncode == 0, (ended.stdout, ended.stderr)
    assert "Connected: ws-001 (agent=octavia)\nSent message " in ended.stdout
