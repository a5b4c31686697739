"""The receiving side's verbs: take what is pending, confirm it, and the life of a socket.

A gateway uses them for its sockets, `receive` and `ConnectionPool.attach` for connections without one.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Callable, Literal, NamedTuple, Optional

from ws_manager.core import asks, attempts, holds
from ws_manager.core.attempts import Attempt, arrive
from ws_manager.core.bars import BARRED
from ws_manager.core.heartbeat import sweep
from ws_manager.core.holds import holding_lock
from ws_manager.core.registry import connect
from ws_manager.core.validation import kept_reason
from ws_manager.errors import Conflict
from ws_manager.models import (
    ACTIVE,
    Closure,
    Connection,
    Event,
    Gateway,
    MessageWorker,
    PendingMessage,
    Receipt,
    Registration,
    Rejection,
    Settled,
    SignOfLife,
    SocketReport,
    Written,
    utc_now,
)
from ws_manager.repository.records import LEASE_SECONDS, MOST_CHARACTERS, Position, Reading
from ws_manager.settings import Sizes
from ws_manager.strict_json import Json

if TYPE_CHECKING:
    from ws_manager.repository.store import GatewayHold, Store

MOST_COUNTED = 1000
"""Pending messages are counted up to here at a handshake: counting very many would keep others waiting."""

_CONFIRMED_AT_ONCE = 1000

WhyVoid = Literal["barred", "disconnected", "moved", "replaced", "registered"]
"""Why a registration no longer holds: see `Delivery.why_void`. The gateway's hub has a close code for each."""

MOST_REFUSALS = 3
"""Sockets that may close on one message before it is set aside."""


class OpenedSocket(NamedTuple):
    """The registration of a socket.

    Attributes:
        connection: as it is now.
        pending: how many messages wait for it, counted up to `MOST_COUNTED`.
        last_code: the code with which its last socket was closed; None if it has had none, or none is known.
        begun: how many messages its last worker had begun when its process ended; see `ws_manager.core.attempts`.
    """

    connection: Connection
    pending: int
    last_code: Optional[int]
    begun: int


class Delivery:
    """Delivery over one ledger: `Ledger.delivery`.

    Args:
        store: the open ledger. This belongs to its thread.
        sizes: how large a registration's metadata may be.

    Every method may raise `LedgerError` if the ledger cannot be used.
    """

    def __init__(self, store: Store, sizes: Sizes) -> None:
        self._store = store
        self._sizes = sizes

    # What is to be delivered

    def positions(self, gateway: str) -> tuple[Position, Position]:
        """Return the positions behind all messages to a gateway's connections, and behind all events, so far."""
        return self._store.messages.position(gateway), self._store.events.position()

    def after(self, position: Position, limit: int) -> Reading:
        """Return the pending messages to its gateway's connections behind a position: at most `limit`, and a few MiB.

        Where the engine cannot tell gateways apart, these are everybody's.
        """
        return self._store.messages.after(position, limit)

    def pending(
        self, ws_id: str, after: int, limit: int, characters: int = MOST_CHARACTERS
    ) -> list[PendingMessage]:
        """Return one connection's pending messages above a `seq`, in order.

        At most `limit`. The last one is the one with which the contents exceed `characters`.
        """
        return self._store.messages.pending(ws_id, after, limit, characters)

    def events_after(self, position: Position) -> tuple[list[Event], Position]:
        """Return the events behind a position, in order, and the position that was reached."""
        return self._store.events.after(position)

    # The outcome

    def settle(self, reports: Iterable[SocketReport]) -> set[str]:
        """Write what sockets report, in one transaction: receipts, then signs of life, then the rest in order.

        Receipts mark what they name as delivered; rejections set a message aside; of what a request has settled
        already, only the time of its writing is missing; closures and signs of life go to the connection.
        What names an older epoch than the row's is void and changes nothing.

        Returns:
            The ws_ids of which a receipt or a rejection was void: another registration has come since.
        """
        batch = list(reports)
        receipts = [report for report in batch if isinstance(report, Receipt)]
        void = set()
        with self._store.atomic():
            if len(receipts) < len(batch):
                # Receipts alone are locked where they are settled.
                self._store.connections.lock({report.ws_id for report in batch})
            now = utc_now()
            # First: a receipt never names what was rejected before it, and what it confirms is not set aside later.
            if receipts:
                void = {ws_id for ws_id, _epoch in self._store.receipts.settle(receipts, now)}
            self._note_life([report for report in batch if isinstance(report, SignOfLife)], now)
            self._note_settled([report for report in batch if isinstance(report, Settled)])
            for report in batch:
                if isinstance(report, Closure):
                    self._close(report, now)
                elif (isinstance(report, Rejection) and not self._reject(report, now)) or (
                    isinstance(report, Written) and not self._note_written(report)
                ):
                    void.add(report.ws_id)
        return void

    def _note_settled(self, reports: list[Settled]) -> None:
        # In the order of the messages, in which a prune deletes those that are settled.
        for report in sorted(reports, key=lambda report: report.seq):
            if report.written_at is not None:
                self._store.messages.settled(report.ws_id, report.seq, report.written_at)

    def _reject(self, rejection: Rejection, now: str) -> bool:
        ws_id, epoch, seq, reason = rejection
        reason = kept_reason(reason)
        if not self._store.connections.has_epoch(ws_id, epoch):
            return False
        for msg_id in self._store.messages.set_aside(ws_id, seq, seq, reason, now):
            self._store.events.insert("set_aside", now, ws_id, msg_id, reason)
        return True

    def _note_written(self, written: Written) -> bool:
        if not self._store.connections.has_epoch(written.ws_id, written.epoch):
            return False
        self._store.messages.written(written.ws_id, written.first, written.last, written.written_at)
        return True

    def _close(self, closure: Closure, now: str) -> None:
        ws_id, epoch, code, reason, ended, refused = closure
        reason = kept_reason(reason)
        current = self._store.connections.socket_closed(ws_id, epoch, code, reason)
        self._store.events.insert("closed", now, ws_id, detail=f"{code} {reason}".strip())
        if refused is not None and self._store.messages.refuse(refused) >= MOST_REFUSALS:
            why = f"the agent refused it: {code}"
            for msg_id in self._store.messages.set_aside(ws_id, refused, refused, why, now):
                self._store.events.insert("set_aside", now, ws_id, msg_id, why)
        if current and ended and self._store.connections.disconnect(ws_id, now, reason, code):
            self._store.events.insert("disconnected", now, ws_id, detail=reason)

    def _note_life(self, signs: list[SignOfLife], now: str) -> None:
        if not signs:
            return
        latest: dict[Registration, SignOfLife] = {}
        for sign in signs:
            registration = (sign.ws_id, sign.epoch)
            known = latest.get(registration)
            if known is None or sign.at >= known.at:
                latest[registration] = sign
        written = self._store.connections.heard(list(latest.values()), now)
        for sign in signs:
            if sign.logged and (sign.ws_id, sign.epoch) in written:
                self._store.heartbeat_log.insert(sign.ws_id, sign.at, sign.latency_ms)

    # The life of a socket

    def open_socket(
        self,
        agent: str,
        ws_id: Optional[str],
        metadata: Optional[Json],
        gateway: str,
        token: Optional[str] = None,
        worker: Optional[MessageWorker] = None,
        admit: Callable[[], None] = lambda: None,
    ) -> OpenedSocket:
        """Register a socket.

        Args:
            agent: its agent.
            ws_id: the connection; a UUID is made if None.
            metadata: replaces what is there; None keeps it.
            gateway: the id of the gateway that has the socket.
            token: the key of its token; None without tokens.
            worker: the process behind it, if it counts attempts: see `ws_manager.core.attempts`.
            admit: refuses it by raising, when all locks are there and nothing is written.

        Raises:
            InvalidInput: a name or the metadata cannot be accepted.
            Conflict: the ws_id belongs to another agent.
            NotAuthorised: the agent is barred, or the token was revoked.
        """
        with self._store.atomic():
            known = None if ws_id is None else self._store.connections.find(ws_id)
            admit()
            connection = connect(
                self._store, agent, ws_id, metadata, gateway=gateway, limit=self._sizes.metadata, token=token
            )
            begun = arrive(self._store, connection, worker)
            pending = self._store.messages.count_pending(
                connection.ws_id, connection.confirmed_seq, limit=MOST_COUNTED
            )
        return OpenedSocket(connection, pending, known.close_code if known else None, begun)

    def count_pending(self, ws_id: str) -> int:
        """Return how many messages wait for a connection's confirmation, counted up to `MOST_COUNTED`."""
        connection = self._store.connections.find(ws_id)
        after = 0 if connection is None else connection.confirmed_seq
        return self._store.messages.count_pending(ws_id, after, limit=MOST_COUNTED)

    def begin(self, ws_id: str, epoch: int, seq: int) -> Attempt:
        """Note that a worker begins a message; see `attempts.begin`."""
        return attempts.begin(self._store, ws_id, epoch, seq)

    def fail(self, ws_id: str, epoch: int, seq: int, reason: str) -> Attempt:
        """Note that an attempt at a message has failed; see `attempts.fail`."""
        return attempts.fail(self._store, ws_id, epoch, seq, reason)

    def reply(self, ws_id: str, epoch: int, seq: int, content: object) -> str:
        """Answer an ask and confirm it, in one transaction; see `asks.reply`."""
        return asks.reply(self._store, ws_id, epoch, seq, content, limit=self._sizes.content)

    def record_gateway(self, gateway: Gateway, seconds: float = LEASE_SECONDS) -> GatewayHold:
        """Write that a gateway has started, and show that it lives, until the hold is released.

        Where the hold has a lease, it has to be renewed within these seconds.
        """
        hold = self._store.hold_gateway(gateway.id, seconds)
        try:
            with self._store.atomic():
                self._store.gateways.insert(gateway)
        except BaseException:
            hold.release()
            raise
        return hold

    def gateway_seen(self, gateway_id: str) -> None:
        """Write that a gateway is still there."""
        with self._store.atomic():
            self._store.gateways.seen(gateway_id, utc_now())

    def sweep(self, gateway_id: str, held: set[str], timeout: float, *, others: bool) -> list[str]:
        """Disconnect what gateways held and that did not come back; see `heartbeat.sweep`."""
        return sweep(self._store, gateway_id, held, timeout, utc_now(), others=others)

    def why_void(self, ws_id: str, epoch: int, agent: str) -> Optional[WhyVoid]:
        """Return why a socket's registration no longer holds, or None if it does.

        Returns:
            `barred` (or its token was revoked), `disconnected`, `moved` (to another agent), `replaced` (by a newer
            socket) or `registered` (again, by a command, for the same agent).
        """
        connection = self._store.connections.find(ws_id)
        if connection is None:
            return "disconnected"
        if connection.status != ACTIVE:
            return "barred" if connection.close_code == BARRED else "disconnected"
        if connection.epoch == epoch:
            return None
        if connection.agent != agent:
            return "moved"
        return "replaced" if connection.gateway else "registered"

    # Without a gateway

    @contextlib.contextmanager
    def holding(self, ws_id: str, worker: Optional[MessageWorker] = None) -> Iterator[Connection]:
        """Hold a connection's messages, alone, until the block ends.

        Args:
            ws_id: the connection.
            worker: the process that works on the messages, if it counts attempts: see `ws_manager.core.attempts`.

        Raises:
            InvalidInput: the worker's name or number cannot be accepted.
            NotFound: there is no such connection.
            Conflict: a socket or another receiver holds it.
        """
        with holding_lock(self._store, ws_id) as connection:
            with self._store.atomic():
                self._store.connections.lock([ws_id])
                arrive(self._store, connection, worker)
            yield connection

    def take_hold(
        self, ws_id: str, hold: Optional[str] = None, worker: Optional[MessageWorker] = None
    ) -> tuple[str, Connection]:
        """Hold a connection's messages, alone, for 30 s. `renew_hold` makes that last.

        Args:
            ws_id: the connection.
            hold: the hold's name: whoever has that hold already renews it. A new name if None.
            worker: as `holding`.

        Returns:
            The hold's name, and the connection.

        Raises:
            InvalidInput, NotFound, Conflict: as `holding`.
        """
        return holds.take(self._store, ws_id, hold, worker)

    def renew_hold(self, ws_id: str, hold: str) -> Connection:
        """Keep a hold for another 30 s, and return its connection as it is now.

        Raises:
            Conflict: the hold has ended.
        """
        return holds.renew(self._store, ws_id, hold)

    def release_hold(self, ws_id: str, hold: str) -> bool:
        """End a hold. False if it has ended already."""
        return holds.release(self._store, ws_id, hold)

    def confirm_up_to(self, connection: Connection, seq: int) -> int:
        """Confirm a holder's pending messages up to a number, as an ack on a socket does; return how many.

        Raises:
            Conflict: as `confirm_held`.
        """
        confirmed, after = 0, connection.confirmed_seq
        while True:
            waiting = self._store.messages.pending(connection.ws_id, after, _CONFIRMED_AT_ONCE)
            seqs = [message.seq for message in waiting if message.seq <= seq]
            if not seqs:
                return confirmed
            self.confirm_held(connection, seqs)
            confirmed, after = confirmed + len(seqs), seqs[-1]

    def reject_held(self, connection: Connection, seq: int, reason: str) -> None:
        """Set one of a holder's pending messages aside.

        Raises:
            Conflict: as `confirm_held`.
        """
        if self.settle([Rejection(connection.ws_id, connection.epoch, seq, reason)]):
            raise _registered_again(connection.ws_id)

    def reply_held(self, connection: Connection, seq: int, content: object) -> str:
        """Answer one of a holder's messages, and return the msg_id of the answer; see `asks.reply`."""
        return self.reply(connection.ws_id, connection.epoch, seq, content)

    def heard_held(self, connection: Connection, *, logged: bool) -> None:
        """Write a holder's sign of life, unless its connection was registered again.

        `logged` is that of `SignOfLife`.
        """
        self.settle([SignOfLife(connection.ws_id, connection.epoch, utc_now(), None, logged)])

    def confirm_held(self, connection: Connection, seqs: Sequence[int]) -> None:
        """Confirm the messages that a holder has received, by their numbers in ascending order.

        Raises:
            Conflict: the ws_id was registered again since, so the receipt is void; it stays pending.
        """
        if self.settle([Receipt(connection.ws_id, connection.epoch, seqs)]):
            raise _registered_again(connection.ws_id)

    def pending_held(self, connection: Connection, after: int, limit: int) -> list[PendingMessage]:
        """Return a holder's pending messages above a `seq`, in order: at most `limit`, at most 1 MiB.

        Raises:
            Conflict: the ws_id was registered again since, so the messages are for another receiver.
        """
        # In one snapshot: a message that is committed after another registration must not be seen here.
        with self._store.snapshot():
            current = self._store.connections.find(connection.ws_id)
            if current is None or current.epoch != connection.epoch:
                raise _registered_again(connection.ws_id)
            return self._store.messages.pending(connection.ws_id, after, limit)


def _registered_again(ws_id: str) -> Conflict:
    return Conflict(
        f"{ws_id} was registered again meanwhile; the messages stay pending",
        hint="the present holder receives them again",
    )
