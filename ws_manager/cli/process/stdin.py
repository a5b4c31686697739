"""The lines of stdin, for a command that does other things meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import AsyncIterator
from typing import Callable, Optional, Union

from ws_manager.errors import InvalidInput

_STDIN = 0
_CHUNK = 65_536
_MOST_WAITING = 1000


async def stdin_lines(longest: int) -> AsyncIterator[bytes]:
    """Give the lines of stdin to its end, without their ends.

    Args:
        longest: bytes that a line may have.

    Raises:
        InvalidInput: a line is longer, or stdin cannot be read.
    """
    loop = asyncio.get_running_loop()
    lines: asyncio.Queue[Union[bytes, InvalidInput, None]] = asyncio.Queue(_MOST_WAITING)

    def put(item: Union[bytes, InvalidInput, None]) -> None:
        asyncio.run_coroutine_threadsafe(lines.put(item), loop).result()

    def read() -> None:
        # The loop is closed: the command has ended.
        with contextlib.suppress(RuntimeError, asyncio.CancelledError):
            put(_read_lines(put, longest))

    # A read cannot be cancelled, so nothing waits for this thread. It does not use `sys.stdin`: Python waits for the
    # lock of that at its end.
    threading.Thread(target=read, daemon=True).start()
    while (item := await lines.get()) is not None:
        if isinstance(item, InvalidInput):
            raise item
        yield item


def _read_lines(put: Callable[[bytes], None], longest: int) -> Optional[InvalidInput]:
    """Read to the end, and return the error that ended it, if any."""
    rest = b""
    while True:
        try:
            read = os.read(_STDIN, _CHUNK)
        except OSError as error:
            return InvalidInput(f"cannot read stdin: {os.strerror(error.errno or 0)}")
        *whole, rest = (rest + read).split(b"\n")
        for line in [*whole, rest]:
            if len(line) > longest:
                return InvalidInput(f"a line of stdin has more than {longest} bytes")
        for line in whole if read else [rest]:
            put(line)
        if not read:
            return None
