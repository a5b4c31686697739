"""The process of one worker, as its parent sees it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
from collections.abc import Sequence
from typing import Optional

from ws_manager.errors import GatewayUnavailable
from ws_manager.gateway.workers.channel import Channel
from ws_manager.gateway.workers.shares import Share

_log = logging.getLogger("ws_manager.gateway")

LOOK_SECONDS = 5.0
"""Seconds between two questions whether a worker is alive; it has 10 s to answer each."""

MOST_MISSED = 3
"""Questions without an answer after which a worker is killed."""

_PARENTS_OWN = ("NOTIFY_SOCKET",)
"""Environment variables that a worker does not get: only the parent speaks to the service manager."""


class WorkerProcess:
    """One of the workers, whichever process it is now.

    Args:
        number: from 1.
        share: what it uses of the quotas.

    Attributes:
        number, share: see the arguments.
        ready: True while it accepts connections.
    """

    def __init__(self, number: int, share: Share) -> None:
        self.number = number
        self.share = share
        self.ready = False
        self._process: Optional[asyncio.subprocess.Process] = None
        self._signal: Optional[signal.Signals] = None

    async def run(
        self, command: Sequence[str], descriptors: Sequence[int], channel: Channel, port: int
    ) -> int:
        """Start the process and wait for its end.

        Args:
            command: what to run, without the descriptor of the worker's end of the channel, which follows.
            descriptors: further ones that it inherits.
            channel: this end.
            port: to listen on.

        Returns:
            Its exit code; below 0 it is the signal that ended it.

        Raises:
            OSError, RuntimeError: the process or a thread cannot be started here.
        """
        ours, theirs = socket.socketpair()
        try:
            await channel.open(ours)
            self._process = await asyncio.create_subprocess_exec(
                *command,
                str(theirs.fileno()),
                stdin=asyncio.subprocess.DEVNULL,
                pass_fds=(theirs.fileno(), *descriptors),
                # It gets no signals from the terminal: the parent passes them on.
                start_new_session=True,
                env={name: value for name, value in os.environ.items() if name not in _PARENTS_OWN},
            )
        except BaseException:
            channel.close()
            ours.close()
            raise
        finally:
            theirs.close()
        self.share.channel = channel
        talking = asyncio.ensure_future(channel.run())
        watching = asyncio.ensure_future(self._watch(channel))
        try:
            channel.tell("join", self.number, port, os.getpid())
            if self._signal is not None:
                # It came while the process was being started.
                self.end(self._signal)
            return await self._process.wait()
        finally:
            watching.cancel()
            self.ready = False
            self.share.channel = None
            # What it said before its end is taken.
            await asyncio.wait({talking}, timeout=1)
            talking.cancel()
            self.share.release()
            self._process = None

    def tell(self, name: str) -> None:
        """Call a handler of the worker, without an answer."""
        if self.share.channel is not None:
            self.share.channel.tell(name)

    def end(self, number: signal.Signals) -> None:
        """Pass on a signal that ends the worker."""
        self._signal = number
        # Before it is ready, the others could interrupt its start anywhere.
        self._send(number if self.ready else signal.SIGTERM)

    def kill(self) -> None:
        """Kill the worker, if it runs."""
        self._send(signal.SIGKILL)

    def _send(self, number: signal.Signals) -> None:
        # `Process.send_signal` would poll first, and take the exit code from the one that waits for it.
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._process.pid, number)

    async def _watch(self, channel: Channel) -> None:
        """Kill the worker if it does not answer: it holds sockets, and perhaps the role of the one that leads."""
        missed = 0
        while missed < MOST_MISSED:
            await asyncio.sleep(LOOK_SECONDS)
            try:
                await channel.call("answer")
            except GatewayUnavailable:
                missed += 1
            else:
                missed = 0
        _log.error("worker %d does not answer and is killed", self.number)
        self.kill()
