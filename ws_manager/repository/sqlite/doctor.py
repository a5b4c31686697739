"""What `doctor` looks at in a SQLite ledger. Nothing here creates, migrates or repairs anything."""

from __future__ import annotations

import os
import sqlite3
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Optional

from ws_manager.errors import LedgerError
from ws_manager.models import Gateway, seconds_before, utc_now
from ws_manager.own_files import beside, real
from ws_manager.remedies import (
    CHECK_LOCATION,
    CHOOSE_LOCATION,
    COPY,
    LIST_PENDING,
    MAKE_LEDGER,
    REPLAY,
    RETRY,
    START_GATEWAY,
)
from ws_manager.repository.findings import OK, PROBLEM, WARNING, Backlog, Finding
from ws_manager.repository.sqlite.database import resets_wal_safely
from ws_manager.repository.sqlite.inspection import inspect
from ws_manager.repository.sqlite.judgement import DAMAGED, FOREIGN, NEWER, Judgement
from ws_manager.repository.sqlite.locks import gateway_lock, living
from ws_manager.repository.sqlite.opening import OLDEST_SQLITE
from ws_manager.repository.sqlite.readers import readers
from ws_manager.repository.sqlite.schema import VERSION
from ws_manager.settings import expanded

LARGE_LOG = 64 * 1024 * 1024
"""Bytes of a write-ahead log from which on it is worth a warning."""

LONG_PENDING = 600.0
"""Seconds after which a pending message is worth a warning."""

_NETWORK = {
    "nfs",
    "nfs4",
    "cifs",
    "smb3",
    "smbfs",
    "9p",
    "afs",
    "ceph",
    "glusterfs",
    "lustre",
    "beegfs",
    "gpfs",
}
_NETWORK_FUSE = {"fuse.sshfs", "fuse.glusterfs", "fuse.cephfs", "fuse.s3fs", "fuse.rclone", "fuse.davfs"}


def examine(path: Path) -> Iterator[Finding]:
    """Look at a database file, which may be anything or nothing, and at SQLite."""
    yield from _file(Path(os.path.abspath(expanded(path))))
    yield _sqlite()


def _file(path: Path) -> Iterator[Finding]:
    try:
        status = path.stat()
    except FileNotFoundError:
        found = f"{path} is a link to {real(path)}, which does not exist"
        yield Finding(
            "database",
            PROBLEM,
            found if path.is_symlink() else f"there is no file at {path}",
            remedy=MAKE_LEDGER,
        )
        return
    except OSError as error:
        yield Finding(
            "database", PROBLEM, f"{path}: {error.strerror}", "check the modes of the folders above it"
        )
        return
    if not stat.S_ISREG(status.st_mode):
        yield Finding("database", PROBLEM, f"{path} is not a file", "give the path of a file")
        return
    yield Finding("database", OK, f"{path}, {_size(status.st_size)}")
    yield _access(path, status)
    yield from _modes(path, status)
    yield _file_system(path)
    yield from _contents(path)
    yield from _log(path)


def _access(path: Path, status: os.stat_result) -> Finding:
    advice = "check its owner and mode, and those of its folder"
    if not os.access(path, os.R_OK):
        return Finding("access", PROBLEM, "the file cannot be read", advice)
    if not os.access(path, os.W_OK):
        return Finding("access", PROBLEM, "the file cannot be written", advice)
    folder = real(path).parent
    if not os.access(folder, os.W_OK | os.X_OK):
        return Finding("access", PROBLEM, f"nothing can be written into {folder}", advice)
    if status.st_nlink > 1:
        detail = f"the file has {status.st_nlink} names (hard links), so that it is not written to"
        return Finding("access", PROBLEM, detail, "remove the others; find them with find -inum")
    return Finding("access", OK, "file and folder can be read and written")


def _modes(path: Path, status: os.stat_result) -> Iterator[Finding]:
    if os.name != "posix":
        # Windows has access lists, of which the mode says nothing.
        return
    mode, folder = stat.S_IMODE(status.st_mode), stat.S_IMODE(real(path).parent.stat().st_mode)
    if mode & 0o077:
        yield Finding(
            "file mode", WARNING, f"{mode:04o}: others can get at the messages", f"chmod 600 {path}"
        )
    else:
        yield Finding("file mode", OK, f"{mode:04o}")
    # In a folder with the sticky bit, such as /tmp, nobody can replace another's file.
    if folder & 0o022 and not folder & stat.S_ISVTX:
        yield Finding(
            "folder mode",
            WARNING,
            f"{folder:04o}: others can replace the file",
            f"chmod go-w {real(path).parent}",
        )
    else:
        yield Finding("folder mode", OK, f"{folder:04o}")


def _file_system(path: Path) -> Finding:
    kind = _kind_of_file_system(path)
    if kind is None:
        return Finding("file system", OK, "not known on this system; it must be a local one")
    if kind in _NETWORK | _NETWORK_FUSE:
        return Finding(
            "file system",
            PROBLEM,
            f"{kind} is a network file system: it has no shared memory",
            "move the database to a local disk",
        )
    return Finding("file system", OK, f"{kind}, a local one")


def _kind_of_file_system(path: Path) -> Optional[str]:
    """Return the type of the file system that a path is on, as Linux reports it; None on other systems."""
    try:
        lines = (
            Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="surrogateescape").splitlines()
        )
    except OSError:
        return None
    resolved, best, kind = path.resolve(), -1, None
    for line in lines:
        # man 5 proc: … root mount-point options … - type source options; a space is written \040.
        fields, _, rest = line.partition(" - ")
        mounted = Path(fields.split()[4].replace("\\040", " "))
        depth = len(mounted.parts)
        # A later mount on the same point hides the earlier.
        if depth >= best and (mounted == resolved or mounted in resolved.parents):
            best, kind = depth, rest.split()[0]
    return kind


def _contents(path: Path) -> Iterator[Finding]:
    try:
        found = inspect(path)
    except sqlite3.Error as error:
        yield _unreadable(path, str(error))
        return
    except LedgerError as error:
        yield Finding("contents", PROBLEM, error.message, error.hint, error.remedy)
        return
    yield _schema(found.judgement)
    if found.quick_check:
        yield Finding(
            "contents",
            PROBLEM,
            f"quick_check: {'; '.join(found.quick_check)}",
            "stop what writes to it and restore a backup",
        )
    else:
        yield Finding("contents", OK, "quick_check has found nothing")
    if found.seal is not None:
        yield found.seal.finding
    yield _gateway(path, found.gateway)
    if found.backlog is not None:
        yield from _backlog(found.backlog)


def _unreadable(path: Path, reason: str) -> Finding:
    if "not a database" in reason:
        return Finding("contents", PROBLEM, "it is not a SQLite database", remedy=CHECK_LOCATION)
    if "locked" in reason:
        return Finding("contents", WARNING, "another process has it locked", "run doctor again in a moment")
    if "unable to open" in reason:
        return Finding(
            "contents", PROBLEM, "SQLite cannot open it", "check the modes of the file and its folder"
        )
    return Finding(
        "contents", PROBLEM, f"it is damaged: {reason}", "stop what writes to it and restore a backup"
    )


def _schema(found: Judgement) -> Finding:
    if found.kind == NEWER:
        return Finding(
            "schema",
            PROBLEM,
            f"{found.claimed}, of a newer ws-manager; this one knows {VERSION}",
            "upgrade ws-manager",
        )
    if found.kind == DAMAGED:
        return Finding(
            "schema",
            PROBLEM,
            f"{found.claimed}, but without the table(s) {', '.join(found.missing)}, or without columns of theirs",
            "restore a backup",
        )
    if found.conflicts:
        return Finding(
            "schema",
            PROBLEM,
            f"the table(s) {', '.join(found.conflicts)} in this file are not ours",
            remedy=CHOOSE_LOCATION,
        )
    if found.kind == FOREIGN:
        return Finding(
            "schema", PROBLEM, "none of ours: it is a database of another program", remedy=CHOOSE_LOCATION
        )
    if found.version < VERSION:
        return Finding(
            "schema",
            WARNING,
            f"{found.version}, older than {VERSION}",
            "the next command brings it up to date; make a copy first if you may go back",
        )
    return Finding("schema", OK, f"{VERSION}, the current version")


def _gateway(path: Path, gateway: Optional[Gateway]) -> Finding:
    if gateway is None:
        return Finding("gateway", WARNING, "none has ever run on this file", remedy=START_GATEWAY)
    try:
        runs = gateway_lock(path).holder()
    except LedgerError as error:
        return Finding("gateway", PROBLEM, error.message, error.hint, error.remedy)
    if runs:
        workers = len(living(path) or ())
        several = f", {workers} workers" if workers > 1 else ""
        return Finding("gateway", OK, f"{gateway.url} runs, process {gateway.pid}{several}")
    if runs is None:
        detail = f"only the file's owner can see whether it runs; the last was seen at {gateway.seen_at}"
        return Finding("gateway", OK, detail)
    return Finding(
        "gateway", WARNING, f"none runs; the last was seen at {gateway.seen_at}", remedy=START_GATEWAY
    )


def _backlog(backlog: Backlog) -> Iterator[Finding]:
    """Say what has not arrived. What waits for long waits for somebody who does not come."""
    pending, set_aside, unrouted, oldest = backlog
    late = oldest is not None and oldest < seconds_before(utc_now(), LONG_PENDING)
    yield Finding(
        "pending",
        WARNING if late else OK,
        f"{pending} message(s)" + (f", the oldest since {oldest}" if oldest else ""),
        remedy=LIST_PENDING if late else None,
    )
    yield Finding(
        "set aside",
        WARNING if set_aside else OK,
        f"{set_aside} message(s)",
        remedy=RETRY if set_aside else None,
    )
    yield Finding(
        "webhooks",
        WARNING if unrouted else OK,
        f"{unrouted} event(s) unrouted",
        remedy=REPLAY if unrouted else None,
    )


def _log(path: Path) -> Iterator[Finding]:
    try:
        size = beside(path, "-wal").stat().st_size
    except OSError:
        size = 0
    if size > LARGE_LOG:
        yield Finding(
            "write-ahead log",
            WARNING,
            f"{_size(size)}: {_who_reads(path)}",
            "end long reads; then a running gateway makes it small at its next commits, and whoever is the last to"
            " close the file removes it",
        )
    else:
        yield Finding("write-ahead log", OK, _size(size))
    if size:
        yield Finding(
            "copies",
            WARNING,
            f"a bare cp lacks the {_size(size)} in the -wal file",
            remedy=COPY,
        )
    else:
        yield Finding("copies", OK, "make them with the command backup")


def _who_reads(path: Path) -> str:
    """Say what keeps a log from being emptied, as far as the system shows it."""
    found = readers(path)
    if found is None:
        return "somebody reads for long, or was killed"
    if not found:
        return "nobody reads it now, as far as can be seen"
    oldest, others = found[0], len(found) - 1
    return f"process {oldest.pid} ({oldest.program}) has a read open, for {_span(oldest.seconds)} at most" + (
        f", and {others} other process(es)" if others else ""
    )


def _sqlite() -> Finding:
    version = sqlite3.sqlite_version
    if sqlite3.sqlite_version_info < OLDEST_SQLITE:
        return Finding("SQLite", PROBLEM, f"{version} is too old", "use a Python with SQLite 3.34 or newer")
    if not resets_wal_safely():
        return Finding(
            "SQLite",
            WARNING,
            f"{version} has the WAL-reset bug; ws-manager works around it",
            "let no other program write to the file, or use SQLite 3.51.3",
        )
    return Finding("SQLite", OK, version)


def _span(seconds: float) -> str:
    for unit, size in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * size:
            return f"{seconds // size:.0f} {unit}"
    return f"{seconds:.0f} seconds"


def _size(size: int) -> str:
    for unit in ("bytes", "KiB", "MiB"):
        if size < 1024:
            return f"{size} {unit}"
        size //= 1024
    return f"{size} GiB"
