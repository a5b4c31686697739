"""What an agent asks its gateway to send: each request is written again to every new socket until it is answered."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable
from typing import Any, Callable, Optional, Protocol

from ws_manager.client.dialing import in_time
from ws_manager.client.refusals import failed
from ws_manager.errors import GatewayUnavailable, InvalidInput, LedgerBusy
from ws_manager.protocol.frames import Result

AT_ONCE = 16
"""Requests that wait for their results at the same time. The gateway performs a connection's one after the other, and
takes at most 100; a further one waits here."""

FIRST_PAUSE, LONGEST_PAUSE = 0.1, 5.0
"""Seconds before a request is written again that was answered `busy`: doubled each time, up to the longest."""

FIRST_GAP, LONGEST_GAP = 0.02, 1.0
"""Seconds between two requests once the gateway has closed because they came too fast: doubled if it does so again
within `CALM_SECONDS`, up to the longest."""

CALM_SECONDS = 60.0


class Frame(Protocol):
    """Writes a request."""

    def __call__(self, ref: int, *, key: str) -> str:
        """Return the frame."""


class Requests:
    """The requests of one agent.

    Args:
        write: writes a frame to the present socket; without one, it does nothing.
        jitter: a function that returns a number from 0 to 1.
        unready: with what requests end before `begin` is called.
    """

    def __init__(
        self,
        write: Callable[[str], Awaitable[None]],
        jitter: Callable[[], float],
        unready: Optional[Exception],
    ) -> None:
        self._write = write
        self._jitter = jitter
        # What each request waits for, by its `ref`: its result, or None if it has to look again.
        self._waiting: dict[int, asyncio.Future[Optional[Result]]] = {}
        self._last_ref = 0
        self._gap = 0.0
        self._next_at = 0.0
        self._slowed_at = 0.0
        self._ended = unready

    @property
    def ended(self) -> Optional[Exception]:
        """With what every request ends now; None while they are taken."""
        return self._ended

    def begin(self) -> None:
        """Take requests from now on."""
        # Before Python 3.10 a semaphore belongs to the loop in which it is made.
        self._slots = asyncio.Semaphore(AT_ONCE)
        self._ended = None

    async def ask(self, frame: Frame, key: Optional[str], timeout: Optional[float]) -> Result:
        """Write a request until it is answered, and return its result.

        Args:
            frame: writes the request.
            key: of the request, which may reach the gateway more than once; None for a random one of 128 bits.
            timeout: seconds to wait, also while there is no connection; None for any time.

        Raises:
            WsManagerError: the gateway refuses the request, no answer has come in time, or the client has ended.
        """
        if timeout is not None and not timeout > 0:
            raise InvalidInput(f"not a number of seconds to wait: {timeout}")
        if self._ended is not None:
            raise self._ended
        self._last_ref += 1
        ref = self._last_ref
        asking = self._ask(ref, frame(ref, key=secrets.token_hex(16) if key is None else key))
        try:
            result = await (asking if timeout is None else in_time(asking, timeout))
        except asyncio.TimeoutError:
            raise GatewayUnavailable(
                f"no answer within {timeout:g} s: the request may have been done or not",
                hint="a request that is repeated with its `key` is done once",
            ) from None
        if result.failure is not None:
            raise failed(result.failure)
        return result

    async def _ask(self, ref: int, text: str) -> Result:
        async with self._slots:
            pause = FIRST_PAUSE
            try:
                while True:
                    await self._take_turn()
                    answered = self._wait(ref)
                    await self._write(text)
                    result = await answered
                    if result is None:
                        # There is a new socket, or the client has ended.
                        continue
                    if result.failure is None or result.failure.code != LedgerBusy.code:
                        return result
                    await asyncio.wait({self._wait(ref)}, timeout=pause * (0.5 + self._jitter() / 2))
                    pause = min(pause * 2, LONGEST_PAUSE)
            finally:
                self._waiting.pop(ref, None)

    async def _take_turn(self) -> None:
        if self._gap:
            now = asyncio.get_running_loop().time()
            at = max(now, self._next_at)
            self._next_at = at + self._gap
            await asyncio.sleep(at - now)

    def _wait(self, ref: int) -> asyncio.Future[Optional[Result]]:
        if self._ended is not None:
            raise self._ended
        waiting: asyncio.Future[Optional[Result]] = asyncio.get_running_loop().create_future()
        self._waiting[ref] = waiting
        return waiting

    def answer(self, result: Result) -> None:
        """Take a result from the gateway."""
        self._wake(result.ref, result)

    def repeat(self) -> None:
        """Write every request again that is not answered, because there is a new socket."""
        for ref in self._waiting:
            self._wake(ref, None)

    def slow_down(self) -> None:
        """Leave time between requests from now on, because the gateway has closed with 4029."""
        now = asyncio.get_running_loop().time()
        again = self._gap and now - self._slowed_at < CALM_SECONDS
        self._gap = min(LONGEST_GAP, self._gap * 2) if again else FIRST_GAP
        self._slowed_at = now

    def end(self, error: Exception) -> None:
        """Let every request end with an error, also those to come. The first error counts."""
        self._ended = self._ended or error
        self.repeat()

    def _wake(self, ref: Any, result: Optional[Result]) -> None:  # noqa: ANN401 - any JSON value
        waiting = self._waiting.get(ref) if isinstance(ref, int) else None
        if waiting is not None and not waiting.done():
            waiting.set_result(result)
