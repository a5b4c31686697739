"""Lines of a file or of stdin, as they come, converted to UTF-8."""

from __future__ import annotations

import contextlib
import os
import queue
import sys
import threading
from collections.abc import Iterator
from typing import BinaryIO, Callable, NamedTuple, Optional

from ws_manager.errors import InvalidInput
from ws_manager.text import ToUtf8, decode

LONGEST = 4 * 1024 * 1024
"""The longest line of `Lines`, in bytes. A longer one is given without its data, and not kept in memory."""

_PIECE = 256 * 1024
_AHEAD = 4
_LOOK_SECONDS = 0.05


class Line(NamedTuple):
    """One line.

    Attributes:
        number: its number; the first line is 1.
        data: its bytes in UTF-8, without the line break; None if it is too long.
    """

    number: int
    data: Optional[bytes]


class Splitter:
    """Splits a file's bytes into lines, as they come.

    Args:
        name: the file's name, for errors.
        longest: the longest line in bytes of UTF-8. A longer one is given without its data.
    """

    def __init__(self, name: str, longest: int) -> None:
        self._to_utf8 = ToUtf8(name)
        self._longest = longest
        self._number = 0
        self._parts: list[bytes] = []
        self._size = 0

    def feed(self, piece: bytes, *, final: bool = False) -> Iterator[Line]:
        """Yield the lines that these bytes complete; with `final`, also a last line without a line break.

        Raises:
            InvalidInput: the file is neither UTF-8 nor UTF-16 with a byte order mark.
        """
        *ends, last = self._to_utf8.feed(piece, final=final).split(b"\n")
        for end in ends:
            self._keep(end)
            yield self._line()
        self._keep(last)
        if final and self._size:
            yield self._line()

    def _keep(self, part: bytes) -> None:
        self._size += len(part)
        if self._size > self._longest:
            self._parts.clear()
        else:
            self._parts.append(part)

    def _line(self) -> Line:
        data = None if self._size > self._longest else b"".join(self._parts)
        self._number, self._size = self._number + 1, 0
        self._parts.clear()
        # Programs on Windows end lines with a carriage return and a line feed.
        return Line(self._number, data[:-1] if data is not None and data.endswith(b"\r") else data)


class Lines:
    """The lines of a file. A thread reads ahead, so that the caller notices when nothing comes.

    Use it as a context manager, which stops the thread.

    Args:
        name: the file's name; `-` is stdin.

    Raises:
        InvalidInput: the file cannot be opened.
    """

    def __init__(self, name: str) -> None:
        self.name = "stdin" if name == "-" else name
        self._descriptor = _open(name)
        self._owned = name != "-"
        self._ended = False
        self._pieces: queue.Queue[object] = queue.Queue(_AHEAD)
        # A daemon thread does not keep the process alive if stdin never ends.
        threading.Thread(target=self._read, daemon=True).start()

    def __enter__(self) -> Lines:
        return self

    def __exit__(self, *_: object) -> None:
        self._ended = True
        # The thread may be waiting for room in the queue. With room, it sees that it is to end.
        with contextlib.suppress(queue.Empty):
            while True:
                self._pieces.get_nowait()

    def groups(
        self, most_lines: int, most_bytes: int, idle: float, look: Callable[[], object]
    ) -> Iterator[list[Line]]:
        """Yield the lines in groups.

        A group ends at `most_lines`, at `most_bytes`, at the end of the file, or when nothing has come for
        `idle` seconds. Blank lines have a number and are left out.

        Args:
            most_lines: the number of lines that completes a group.
            most_bytes: the size in bytes that completes a group.
            idle: seconds without new data that complete a group.
            look: called before each group, and repeatedly while nothing comes. It may raise to end the reading.

        Raises:
            InvalidInput: the file cannot be read.
        """
        group: list[Line] = []
        size = 0
        for line in self._lines(idle, look):
            if line is not None and (line.data is None or line.data.strip()):
                group.append(line)
                size += len(line.data or b"")
            if group and (line is None or len(group) >= most_lines or size >= most_bytes):
                look()
                yield group
                group, size = [], 0
        if group:
            look()
            yield group

    def _lines(self, idle: float, look: Callable[[], object]) -> Iterator[Optional[Line]]:
        """Yield each line, and None when nothing has come for `idle` seconds."""
        splitter = Splitter(self.name, LONGEST)
        while True:
            piece = self._next(idle)
            if piece is None:
                yield None
                while piece is None:
                    look()
                    piece = self._next(_LOOK_SECONDS)
            yield from splitter.feed(piece, final=not piece)
            if not piece:
                return

    def _next(self, seconds: float) -> Optional[bytes]:
        """Return the next piece of the file, b"" at its end, or None if nothing comes within this many seconds."""
        try:
            piece = self._pieces.get(timeout=seconds)
        except queue.Empty:
            return None
        if isinstance(piece, OSError):
            raise InvalidInput(
                f"cannot read {self.name}: {piece.strerror}", hint="what was answered is committed"
            )
        assert isinstance(piece, bytes)
        return piece

    def _read(self) -> None:
        try:
            piece = b"-"
            while piece and not self._ended:
                piece = os.read(self._descriptor, _PIECE)
                self._pieces.put(piece)
        except OSError as error:
            self._pieces.put(error)
        finally:
            if self._owned:
                os.close(self._descriptor)


def read_lines(source: BinaryIO, name: str, longest: int) -> Iterator[str]:
    """Yield the lines of a file that is read to its end.

    Args:
        source: the open file.
        name: its name, for errors.
        longest: the longest line, in bytes of UTF-8.

    Raises:
        InvalidInput: a line is too long, or is not text.
        OSError: the file cannot be read.
    """
    splitter = Splitter(name, longest)
    piece = b"-"
    while piece:
        piece = source.read(_PIECE)
        for line in splitter.feed(piece, final=not piece):
            if line.data is None:
                raise InvalidInput(
                    f"line {line.number} has more than {longest} bytes", hint="is it an export?"
                )
            yield decode(line.data, f"line {line.number}")


def stdin() -> BinaryIO:
    """Return stdin as a binary file.

    Raises:
        InvalidInput: it is closed.
    """
    if sys.stdin is None:
        raise InvalidInput("stdin is closed", hint="give the name of a file, or redirect stdin")
    return sys.stdin.buffer


def _open(name: str) -> int:
    if name == "-":
        return stdin().fileno()
    try:
        return os.open(name, os.O_RDONLY | getattr(os, "O_BINARY", 0))
    except OSError as error:
        raise InvalidInput(
            f"cannot read {name}: {error.strerror}", hint="give the name of a file, or - for stdin"
        ) from None
