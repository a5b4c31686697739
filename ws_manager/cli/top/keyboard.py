"""The keyboard of the live view: what each key does, and how keys and signals are read."""

from __future__ import annotations

import codecs
import contextlib
import os
import re
import select
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from types import FrameType
from typing import Callable, Optional

from ws_manager.cli.process.signals import not_ignored

# Arrow keys and the like (ECMA-48 section 5.4). They do nothing, and must not be read as Escape and letters.
_SEQUENCES = re.compile("\x1b(?:\\[[0-?]*[ -/]*[@-~]|O[ -~])")
_ESCAPE, _ENTER, _BACKSPACE, _ERASE_LINE = "\x1b", "\r\n", "\x7f\x08", "\x15"
_LONGEST = 128


@dataclass
class Controls:
    """The settings of the view, which the keys change.

    Attributes:
        orders: the orders that `s` cycles through.
        order: the current order.
        agent: show only this agent's connections; None for all.
        text: show only connections with this text; None for all.
        paused: whether the view is paused.
        prompt: `agent` or `text` while that is being typed, otherwise empty.
        typed: the text that was typed at the prompt.
        ended: whether the view is to end.
        changed: whether a setting has changed; the view sets it to False when it has drawn it.
    """

    orders: tuple[str, ...]
    order: str
    agent: Optional[str] = None
    text: Optional[str] = None
    paused: bool = False
    prompt: str = ""
    typed: str = ""
    ended: bool = False
    changed: bool = field(default=False)

    def press(self, keys: str) -> None:
        """Apply keys in order."""
        for key in _SEQUENCES.sub("", keys):
            if self.prompt:
                self._type(key)
            else:
                self._command(key)

    def _command(self, key: str) -> None:
        if key in "qQ":
            self.ended = True
        elif key in "pP ":
            self.paused = not self.paused
            self.changed = self.changed or not self.paused
        elif key in "sS":
            step = 1 if key == "s" else -1
            self.order = self.orders[(self.orders.index(self.order) + step) % len(self.orders)]
            self.changed = True
        elif key == "/":
            self.prompt, self.typed = "text", self.text or ""
        elif key in "aA":
            self.prompt, self.typed = "agent", self.agent or ""
        elif key == _ESCAPE:
            self.agent = self.text = None
            self.changed = True

    def _type(self, key: str) -> None:
        if key in _ENTER:
            setattr(self, self.prompt, self.typed.strip() or None)
            self.prompt, self.changed = "", True
        elif key == _ESCAPE:
            self.prompt = ""
        elif key in _BACKSPACE:
            self.typed = self.typed[:-1]
        elif key == _ERASE_LINE:
            self.typed = ""
        elif key.isprintable() and len(self.typed) < _LONGEST:
            self.typed += key


class Keyboard:
    """Waits for keys and signals. The function `keyboard` makes one.

    Attributes:
        signal: the signal that ends or suspends the view; None if none has come.
        has_keys: whether keys can be read.
    """

    def __init__(self, stdin: Optional[int], woken: Optional[int]) -> None:
        self.signal: Optional[int] = None
        self.has_keys = stdin is not None
        self._stdin = stdin
        self._woken = woken
        # The bytes of one character may come in two reads.
        self._decoder = codecs.getincrementaldecoder("utf-8")("ignore")

    def wait(self, seconds: Optional[float]) -> str:
        """Wait for keys, or for a signal; a change of the terminal's size is a signal too.

        Args:
            seconds: the longest wait; None for no limit.

        Returns:
            The keys; empty if none was pressed.
        """
        if self._woken is None:
            time.sleep(60 if seconds is None else seconds)
            return ""
        sources = [self._woken] if self._stdin is None else [self._woken, self._stdin]
        ready, _, _ = select.select(sources, [], [], seconds)
        if self._woken in ready:
            os.read(self._woken, 4096)
        if self._stdin is None or self._stdin not in ready:
            return ""
        read = os.read(self._stdin, 4096)
        # The terminal is gone, so the view ends.
        return self._decoder.decode(read) if read else "q"

    def note(self, number: int, _frame: Optional[FrameType]) -> None:
        """Handle a signal: the view ends at its next step. A second signal ends the process at once."""
        if self.signal is not None and number != self.signal_of_suspension:
            raise SystemExit(128 + number)
        self.signal = number

    @property
    def signal_of_suspension(self) -> Optional[int]:
        """SIGTSTP, which Ctrl-Z sends; None on Windows."""
        return getattr(signal, "SIGTSTP", None)


@contextlib.contextmanager
def keyboard() -> Iterator[Keyboard]:
    """Read single keys and handle signals until the block ends, then restore the terminal and the handlers.

    Without `termios` (on Windows), or if stdin is not a terminal, there are no keys; Ctrl-C ends the view.
    """
    try:
        import termios
        import tty
    except ImportError:
        yield Keyboard(None, None)
        return
    with contextlib.ExitStack() as undo:
        stdin = None
        if sys.stdin is not None and sys.stdin.isatty():
            stdin = sys.stdin.fileno()
            undo.callback(termios.tcsetattr, stdin, termios.TCSADRAIN, termios.tcgetattr(stdin))
        woken, wake = os.pipe()
        for end in (woken, wake):
            undo.callback(os.close, end)
            os.set_blocking(end, False)
        board = Keyboard(stdin, woken)
        undo.callback(signal.set_wakeup_fd, signal.set_wakeup_fd(wake, warn_on_full_buffer=False))
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGTSTP):
            _handle(undo, number, board.note)
        _handle(undo, signal.SIGWINCH, lambda _number, _frame: None)
        if stdin is not None:
            tty.setcbreak(stdin, termios.TCSADRAIN)
        yield board


def _handle(
    undo: contextlib.ExitStack, number: int, handler: Callable[[int, Optional[FrameType]], None]
) -> None:
    for known in not_ignored([number]):
        undo.callback(signal.signal, known, signal.signal(known, handler))
