"""The parent of several workers: it holds the ledger, reserves the port, and starts again what has ended."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
import time
from collections.abc import Sequence
from typing import Any, Callable, Optional

from ws_manager.errors import GatewayUnavailable
from ws_manager.gateway.holding import hold_ledger
from ws_manager.gateway.net.binding import hosts_to_bind, reserve
from ws_manager.gateway.options import GatewayOptions
from ws_manager.gateway.own_quotas import OwnQuotas
from ws_manager.gateway.workers.channel import Channel
from ws_manager.gateway.workers.process import WorkerProcess
from ws_manager.gateway.workers.shares import Share
from ws_manager.repository.store import Hold

_log = logging.getLogger("ws_manager.gateway")

FIRST_WAIT, LONGEST_WAIT = 0.1, 10.0
"""Seconds until a worker that ended is started again. The wait doubles each time."""

LASTING_SECONDS = 60.0
"""After a worker that ran for this long, the wait is the first one again."""

_LAST_SECONDS = 60.0
"""How long a worker may take to end, apart from `--drain`: it may have to wait for the write lock."""

_ENDED_BY_SIGNAL = {128 + signal.SIGTERM: signal.SIGTERM, 128 + signal.SIGINT: signal.SIGINT}
"""Exit codes of a worker that a signal has ended while it started."""


class Supervisor:
    """Runs workers over one ledger.

    Args:
        options: how each of them runs.
        count: of workers.
        command: returns what starts a worker of a number, without its last argument: the descriptor of its channel.
        now: a monotonic clock, in seconds.
    """

    def __init__(
        self,
        options: GatewayOptions,
        count: int,
        command: Callable[[int], Sequence[str]],
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._options = options
        self._command = command
        self._now = now
        self._port = 0
        self._hold: Optional[Hold] = None
        self._waits: Callable[[str], None] = lambda _why: None
        quotas = OwnQuotas(options.limits, now)
        holders: dict[str, tuple[Share, int]] = {}
        self._workers = [WorkerProcess(number, Share(quotas, holders)) for number in range(1, count + 1)]
        self._leader: Optional[WorkerProcess] = None
        self._changed = asyncio.Event()
        self._urls: list[str] = []
        self._serving = False
        self._stopping = asyncio.Event()

    async def run(
        self,
        stop: asyncio.Future[signal.Signals],
        ready: Callable[[list[str]], None],
        waits: Callable[[str], None],
    ) -> int:
        """Run the workers until `stop` is done. Its result is the signal that they get.

        The first worker is started alone: what keeps it from starting would keep the others too.

        Args:
            stop: ends them.
            ready: called with the base addresses when all workers accept connections.
            waits: called with the reason, at least every 40 seconds while the start has to wait.

        Returns:
            0, or the exit code of a worker that could not start.

        Raises:
            Conflict: another gateway holds this ledger, or an address is in use.
            LedgerError: the ledger cannot be held here.
        """
        self._waits = waits
        self._hold = await hold_ledger(self._options.database, self._now)
        reserved: list[socket.socket] = []
        try:
            hosts = hosts_to_bind(self._options.hosts)
            reserved = await asyncio.get_running_loop().run_in_executor(
                None, reserve, hosts, self._options.port
            )
            self._port = reserved[0].getsockname()[1]
            return await self._run(stop, ready)
        finally:
            for each in reserved:
                each.close()
            self._hold.release()

    async def _run(self, stop: asyncio.Future[signal.Signals], ready: Callable[[list[str]], None]) -> int:
        waiting = iter(self._workers)
        tasks: list[asyncio.Task[int]] = []
        try:
            while not stop.done():
                if all(worker.ready for worker in self._workers[: len(tasks)]):
                    # One after the other.
                    following = next(waiting, None)
                    if following is not None:
                        tasks.append(asyncio.ensure_future(self._keep(following)))
                    elif not self._serving:
                        self._serving = True
                        ready(self._urls)
                changed = asyncio.ensure_future(self._changed.wait())
                waited_for: list[asyncio.Future[Any]] = [stop, changed, *tasks]
                await asyncio.wait(waited_for, return_when=asyncio.FIRST_COMPLETED)
                changed.cancel()
                self._changed.clear()
                ended = [task for task in tasks if task.done()]
                if ended:
                    code = ended[0].result()
                    await self._end(tasks, signal.SIGTERM)
                    return code
        except BaseException:
            await self._end(tasks, signal.SIGTERM)
            raise
        return await self._end(tasks, stop.result())

    async def _end(self, tasks: Sequence[asyncio.Task[int]], number: signal.Signals) -> int:
        """Pass the signal on, and wait until every worker has ended. Return the highest of their exit codes."""
        self._stopping.set()
        for worker in self._workers:
            worker.end(number)
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=self._options.drain_seconds + _LAST_SECONDS)
            if late:
                _log.error("%d worker(s) have not ended in time and are killed", len(late))
                for worker in self._workers:
                    worker.kill()
                await asyncio.wait(late)
        return max((task.result() for task in tasks if task.exception() is None), default=0)

    async def _keep(self, worker: WorkerProcess) -> int:
        """Run a worker, and again whenever it ends. Return the exit code of one that cannot start."""
        wait = FIRST_WAIT
        while True:
            began = self._now()
            try:
                code = await self._once(worker)
                how = _how_it_ended(code)
            except (OSError, RuntimeError) as error:
                # Such as too many processes or open files.
                if not self._serving:
                    raise
                code, how = 0, f"cannot be started: {error}"
            failed = code > 0 and code not in _ENDED_BY_SIGNAL
            if self._stopping.is_set():
                return code if failed else 0
            if failed and not self._serving:
                return code
            if self._now() - began >= LASTING_SECONDS:
                wait = FIRST_WAIT
            _log.error("worker %d %s; it starts again in %.1f s", worker.number, how, wait)
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), wait)
                return 0
            wait = min(2 * wait, LONGEST_WAIT)

    async def _once(self, worker: WorkerProcess) -> int:
        def ready(urls: list[str]) -> None:
            worker.ready, self._urls = True, urls
            if self._serving:
                _log.info("worker %d serves again", worker.number)
            self._appoint()
            self._changed.set()

        def waits(why: str) -> None:
            if not self._serving:
                self._waits(why)

        channel = Channel(
            {
                **worker.share.handlers(),
                "ready": ready,
                "waits": waits,
                "troubles": self._troubles,
                "families": self._families,
            }
        )
        assert self._hold is not None
        began = self._now()
        try:
            return await worker.run(self._command(worker.number), self._hold.descriptors, channel, self._port)
        finally:
            if self._leader is worker:
                self._leader = None
                self._appoint()
            if self._now() - began >= self._options.heartbeat_timeout and self._leader is not None:
                # Its agents may not have been able to come back for some time before it ended.
                self._leader.tell("give_time")

    async def _troubles(self) -> list[str]:
        """Return why workers cannot serve; nothing if all can."""
        answers = await asyncio.gather(*(self._ask(worker, "trouble") for worker in self._workers))
        return [
            f"worker {worker.number}: {trouble}"
            for worker, trouble in zip(self._workers, answers)
            if trouble is not None
        ]

    async def _families(self) -> list[Any]:
        """Return the counters of each worker that answers."""
        answers = await asyncio.gather(*(self._ask(worker, "counters") for worker in self._workers))
        return [answer for answer in answers if isinstance(answer, list)]

    async def _ask(self, worker: WorkerProcess, what: str) -> Any:  # noqa: ANN401 - a JSON value
        channel = worker.share.channel
        if channel is None or not worker.ready:
            return "it does not run"
        try:
            return await channel.call(what)
        except GatewayUnavailable as error:
            return error.message

    def _appoint(self) -> None:
        """Give a worker that accepts connections the role of the one that works for all, if nobody has it."""
        if self._leader is None and not self._stopping.is_set():
            self._leader = next((worker for worker in self._workers if worker.ready), None)
            if self._leader is not None:
                self._leader.tell("lead")


def _how_it_ended(code: int) -> str:
    number = -code if code < 0 else _ENDED_BY_SIGNAL.get(code)
    return f"ended with exit code {code}" if number is None else f"was ended by {signal.Signals(number).name}"
