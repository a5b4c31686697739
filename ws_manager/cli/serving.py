"""Runs a gateway until a signal ends it: alone, or as several workers and their parent."""

from __future__ import annotations

import asyncio
import dataclasses
import gc
import logging
import signal
import subprocess
import sys
from collections.abc import Coroutine, Sequence
from typing import Any, Callable

from ws_manager.cli.process.logs import READY
from ws_manager.cli.process.sd_notify import notify_supervisor
from ws_manager.cli.process.signals import ENDING, not_ignored, stop_on_signals
from ws_manager.core.locations import engine_caveat
from ws_manager.gateway.http.access import is_loopback
from ws_manager.gateway.options import GatewayOptions
from ws_manager.gateway.server import GatewayServer
from ws_manager.protocol.close_codes import CloseCode

_COLLECTED_AFTER = 10_000
"""Objects after which Python's garbage collector looks at the youngest; by default 700 or 2,000."""

_START_EXTENDED_SECONDS = 60

# Windows has no SIGHUP.
_RESTARTS: tuple[signal.Signals, ...] = () if sys.platform == "win32" else (signal.SIGHUP,)

_log = logging.getLogger("ws_manager")


def run_alone(options: GatewayOptions) -> None:
    """Run one gateway in this process."""
    _say_what_to_know(options)
    _run(_alone(options), options)


def run_workers(options: GatewayOptions, count: int) -> int:
    """Run several gateways in processes of their own; they share the ledger and the port.

    Returns:
        The exit code.
    """
    _say_what_to_know(options)
    return asyncio.run(_parent(options, count))


def run_worker(options: GatewayOptions, number: int, descriptor: int) -> None:
    """Run one of several gateways in this process.

    Args:
        options: how it runs.
        number: the worker's.
        descriptor: of its end of the channel to the parent.
    """
    _run(_worker(options, number, descriptor), options)


def _say_what_to_know(options: GatewayOptions) -> None:
    reachable = [host for host in options.hosts if not is_loopback(host)]
    if options.tls is None and reachable:
        _log.warning(
            "without TLS, tokens and messages cross the network unencrypted: give --tls-cert and --tls-key, "
            "or let only a proxy with TLS reach %s",
            " and ".join(reachable),
        )
    caveat = engine_caveat(options.database)
    if caveat is not None:
        _log.info(caveat)


def _run(work: Coroutine[Any, Any, None], options: GatewayOptions) -> None:
    # uvloop may drop bytes that arrive before TLS has started.
    loop = _new_event_loop() if options.tls is None else asyncio.new_event_loop()
    try:
        loop.run_until_complete(work)
    finally:
        loop.close()


def _new_event_loop() -> asyncio.AbstractEventLoop:
    """Return uvloop's event loop, which is faster; where it cannot be installed, asyncio's own."""
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
    return loop


async def _alone(options: GatewayOptions) -> None:
    stop: asyncio.Future[CloseCode] = asyncio.get_running_loop().create_future()
    _on_signals(stop, _code)
    server = GatewayServer(options)
    told = _Progress(options)

    def ready(_url: str) -> None:
        told.ready(server.urls)
        _spare_the_collector()

    await server.run(stop, ready, told.waits)


async def _parent(options: GatewayOptions, count: int) -> int:
    from ws_manager.gateway.workers.supervisor import Supervisor

    stop: asyncio.Future[signal.Signals] = asyncio.get_running_loop().create_future()
    _on_signals(stop, lambda number: number)
    told = _Progress(options)
    return await Supervisor(options, count, _command).run(stop, told.ready, told.waits)


async def _worker(options: GatewayOptions, number: int, descriptor: int) -> None:
    from ws_manager.gateway.workers.worker import Worker

    stop: asyncio.Future[CloseCode] = asyncio.get_running_loop().create_future()

    def orphaned() -> None:
        if stop.done():
            # A second signal has ended the parent at once.
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            signal.raise_signal(signal.SIGTERM)
        _log.error("worker %d ends, because its parent has ended", number)
        stop.set_result(CloseCode.RESTARTING)

    worker = Worker()
    await worker.join(descriptor, orphaned)
    if stop.done():
        # The parent may have ended before it said where to listen.
        return
    # Until now, a signal ends it at once. From now on the first one counts: a service manager may send it to all
    # processes, and the parent again. A second signal to the parent ends the worker by the parent's end.
    loop = asyncio.get_running_loop()
    for each in not_ignored((*ENDING, *_RESTARTS)):
        loop.add_signal_handler(each, _set_code, stop, each)
    server = GatewayServer(dataclasses.replace(options, port=worker.port), worker=worker)
    worker.settle, worker.give_time = server.settled, server.give_time
    worker.trouble, worker.counters = server.trouble, server.families

    def ready(_url: str) -> None:
        worker.ready(server.urls)
        _spare_the_collector()

    await server.run(stop, ready, worker.waits)


def _set_code(stop: asyncio.Future[CloseCode], number: signal.Signals) -> None:
    if not stop.done():
        stop.set_result(_code(number))


def _code(number: signal.Signals) -> CloseCode:
    """Return the close code for the sockets of a gateway that a signal ends."""
    return CloseCode.RESTARTING if number in _RESTARTS else CloseCode.GOING_AWAY


def _on_signals(stop: asyncio.Future[Any], result: Callable[[signal.Signals], object]) -> None:
    def stopped(number: signal.Signals) -> None:
        # The gateway may have ended by itself.
        if not stop.done():
            stop.set_result(result(number))
        notify_supervisor("STOPPING=1")

    stop_on_signals(stopped, (*ENDING, *_RESTARTS))


class _Progress:
    """Says to the log and to the service manager how the start goes.

    Args:
        options: of the gateway.
    """

    def __init__(self, options: GatewayOptions) -> None:
        self._database = options.database
        self._waited = False

    def waits(self, why: str) -> None:
        """Say why the start has to wait."""
        self._waited = True
        # Otherwise systemd ends a start that takes longer than TimeoutStartSec (man 3 sd_notify).
        notify_supervisor(
            f"STATUS=Waiting, and answering agents 503: {why}\n"
            f"EXTEND_TIMEOUT_USEC={_START_EXTENDED_SECONDS * 1_000_000}"
        )

    def ready(self, urls: Sequence[str]) -> None:
        """Say that connections are accepted."""
        also = "".join(f", also {other}" for other in urls[1:])
        READY.info(
            "Ready: %s (database %s)%s",
            urls[0],
            self._database,
            also,
            extra={"fields": {"url": urls[0], "urls": list(urls), "database": str(self._database)}},
        )
        notify_supervisor("READY=1")
        if self._waited:
            notify_supervisor(f"STATUS=Serving {urls[0]}")


def _command(number: int) -> list[str]:
    """Return what starts a worker: this very command in a fresh Python, started as we were."""
    main = sys.modules["__main__"]
    file, spec = getattr(main, "__file__", None), main.__spec__
    if spec is not None and spec.parent:
        started = ["-m", spec.parent]
    elif file is not None:
        started = [file]
    else:
        started = [
            "-c",
            f"import sys; sys.path[:] = {sys.path!r}; from ws_manager.__main__ import main; main()",
        ]
    arguments = [argument for argument in sys.argv[1:] if argument != "--"]
    # -I, -S, -X utf8 and the like.
    flags: list[str] = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]
    return [sys.executable, *flags, *started, *arguments, "--as-worker", str(number), "--channel"]


def _spare_the_collector() -> None:
    """Keep Python's garbage collector from what stays until the end, and let it run less often.

    A socket is freed without the collector, which would look again and again at all that 10,000 sockets have.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(_COLLECTED_AFTER, 20, 20)
