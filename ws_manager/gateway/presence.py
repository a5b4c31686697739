"""Shows that a gateway lives. Where that takes a lease, it says when the gateway must close its sockets."""

from __future__ import annotations

import asyncio
import logging
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Callable, Optional

from ws_manager.core.presence import NOTED_SECONDS
from ws_manager.errors import LedgerError, LedgerUnreachable
from ws_manager.gateway.delivery.ledger_threads import LedgerThreads
from ws_manager.gateway.trouble import Trouble
from ws_manager.models import Gateway
from ws_manager.repository.records import LEASE_SECONDS
from ws_manager.repository.store import GatewayHold, Lease

_log = logging.getLogger("ws_manager.gateway")
_LOOK_SECONDS = 1.0


@dataclass(frozen=True)
class LeaseTimes:
    """How a gateway keeps its lease, in seconds.

    Attributes:
        lasts: how long a lease lasts after it was renewed, by the ledger's clock.
        renewed: between two renewals.
        again: until a renewal that failed is tried again.
        patience: how long a renewal may take.
        given_up: how long after the beginning of the last renewal that succeeded, by a monotonic clock, the gateway
            closes its sockets: they have the rest of the lease to close, before another gateway may take them.
    """

    lasts: float = LEASE_SECONDS
    renewed: float = NOTED_SECONDS
    again: float = 1.0
    patience: float = 8.0
    given_up: float = 45.0


class Presence:
    """The presence of one gateway process in its ledger.

    Args:
        threads: the ledger's threads. A lease is renewed on a thread of its own: nothing else may delay that.
        times: of a lease.
        now: a monotonic clock, in seconds.
        lost: called with the reason when the sockets have to be closed, because the lease may run out or has run out.
        kept: called when the lease lasts again.

    Attributes:
        trouble: why the gateway cannot show that it lives; None if it can.
    """

    def __init__(
        self,
        threads: LedgerThreads,
        times: LeaseTimes,
        now: Callable[[], float],
        lost: Callable[[str], None],
        kept: Callable[[], None],
    ) -> None:
        self._threads = threads
        self._times = times
        self._now = now
        self._tell_lost = lost
        self._tell_kept = kept
        self._gateway_id = ""
        self._hold: Optional[GatewayHold] = None
        self._renewed_at = now()
        self._lost = False
        self.trouble: Optional[str] = None

    async def begin(self, gateway: Gateway) -> None:
        """Write that the gateway has started, and show from now on that it lives.

        Raises:
            LedgerError: the ledger cannot be written.
        """
        self._gateway_id, self._renewed_at = gateway.id, self._now()
        self._hold = await self._threads.write(
            lambda ledger: ledger.delivery.record_gateway(gateway, self._times.lasts)
        )

    async def run(self) -> None:
        """Go on to show it, until cancelled."""
        lease = None if self._hold is None else self._hold.lease
        if lease is None:
            await self._note()
        else:
            await self._keep(lease)

    def check(self) -> None:
        """Say that the sockets have to be closed, if it is time for that and was not said.

        A process that was suspended finds that here, before it goes on.
        """
        if self._hold is None or self._hold.lease is None or self._lost:
            return
        if self._now() - self._renewed_at >= self._times.given_up:
            self._lose(self.trouble or "the gateway's lease was not renewed in time")

    def release(self) -> None:
        """End it."""
        if self._hold is not None:
            self._hold.release()

    async def _note(self) -> None:
        # The record shows about when a killed gateway ended. Whether it runs is decided by what it holds.
        trouble = Trouble("write the gateway's record")
        while True:
            await asyncio.sleep(NOTED_SECONDS)
            try:
                await self._threads.write(lambda ledger: ledger.delivery.gateway_seen(self._gateway_id))
            except LedgerError as error:
                trouble.began(error)
                self.trouble = "the ledger cannot be written"
            else:
                trouble.ended()
                self.trouble = None

    async def _keep(self, lease: Lease) -> None:
        watching = asyncio.ensure_future(self._watch())
        with ThreadPoolExecutor(1, "ws-manager-lease") as thread:
            try:
                trouble = Trouble("renew the gateway's lease")
                lasts = True
                while True:
                    await asyncio.sleep(self._times.renewed if lasts else self._times.again)
                    lasts = await self._renew(lease, thread, trouble)
            finally:
                watching.cancel()
                # Otherwise the end would wait for a database that does not answer.
                lease.break_off()

    async def _watch(self) -> None:
        while True:
            left = self._renewed_at + self._times.given_up - self._now()
            await asyncio.sleep(min(left, _LOOK_SECONDS) if left > 0 else _LOOK_SECONDS)
            self.check()

    async def _renew(self, lease: Lease, thread: ThreadPoolExecutor, trouble: Trouble) -> bool:
        began = self._now()
        renewal = asyncio.get_running_loop().run_in_executor(thread, lease.renew)
        # At the end of the gateway nobody asks for the result.
        renewal.add_done_callback(lambda done: done.cancelled() or done.exception())
        while not (await asyncio.wait({renewal}, timeout=self._times.patience))[0]:
            self.trouble = LedgerUnreachable.usual_cause
            lease.break_off()
        try:
            lasted = renewal.result()
        except LedgerError as error:
            trouble.began(error)
            self.trouble = error.public_message
            self.check()
            return False
        trouble.ended()
        self.trouble = None
        self._renewed_at = max(self._renewed_at, began)
        if not lasted:
            # Others may have taken its connections.
            self._lose("the gateway's lease had run out")
        if self._now() - self._renewed_at >= self._times.given_up:
            return False
        if self._lost:
            self._lost = False
            _log.info("the lease lasts again: the gateway accepts agents")
            self._tell_kept()
        return True

    def _lose(self, why: str) -> None:
        if not self._lost:
            self._lost = True
            _log.error("every socket is closed until the lease lasts again: %s", why)
            self._tell_lost(why)
