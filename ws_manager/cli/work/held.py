"""`receive --exec`: each message of a connection that is held is the input of a command."""

from __future__ import annotations

import random
import time
from concurrent.futures import ThreadPoolExecutor, wait
from typing import NamedTuple, Optional

from ws_manager.cli.output.text import note
from ws_manager.cli.process.stream import Stop
from ws_manager.cli.work.command import DONE, FAILED, REJECTED, Command, Limits, not_started
from ws_manager.cli.work.job import environment, given
from ws_manager.cli.work.options import Work
from ws_manager.client.worker import failure_line, pause_after
from ws_manager.core.delivery import Delivery
from ws_manager.errors import Conflict
from ws_manager.forms import wire_form
from ws_manager.models import Connection, PendingMessage

_STEP_SECONDS = 0.05


class _Result(NamedTuple):
    """What became of one attempt: a verdict of `command`, and the reason for one that is not `DONE`."""

    verdict: str
    reason: str


class HeldWorker:
    """Works on the messages of a connection that is held, one after the other.

    Args:
        delivery: the verbs; it holds the connection for a worker with `max_attempts`.
        connection: the connection.
        work: the command.
        stop: ends the work: set, the running command may finish; urgent, it is ended.
        grace: seconds for which the running command may go on.
        most: how many messages; None for all.

    Attributes:
        received: the number of messages that are done with: confirmed, or set aside.
        busy_at: monotonic seconds when it last had something to do.
    """

    def __init__(
        self,
        delivery: Delivery,
        connection: Connection,
        work: Work,
        stop: Stop,
        grace: float,
        most: Optional[int],
    ) -> None:
        self.received = 0
        self.busy_at = time.monotonic()
        self._delivery = delivery
        self._connection = connection
        self._work = work
        self._stop = stop
        self._grace = grace
        self._most = most
        self._thread = ThreadPoolExecutor(1, "command")
        # What the ledger does not know yet, because the gateway was away.
        self._untold: Optional[tuple[int, int, _Result]] = None
        # The message that is to be tried again, and when.
        self._again_seq, self._again_at = 0, 0.0

    @property
    def has_enough(self) -> bool:
        """Whether as many messages as were asked for are done with."""
        return self.received == self._most

    def receive(self) -> bool:
        """Work on the oldest pending message: one attempt.

        Returns:
            Whether there may be more to do now.

        Raises:
            Conflict: the ws_id was registered again since.
            GatewayUnavailable: the gateway does not answer; called again, it goes on from there.
        """
        if self._untold is not None:
            self._tell(*self._untold)
        if self._stop.is_set() or self.has_enough:
            return False
        waiting = self._delivery.pending_held(self._connection, self._connection.confirmed_seq, 1)
        if not waiting:
            return False
        (message,) = waiting
        self.busy_at = time.monotonic()
        if message.seq == self._again_seq:
            self._stop.wait(self._again_at - time.monotonic())
            if self._stop.is_set():
                return False
        ws_id, epoch = self._connection.ws_id, self._connection.epoch
        try:
            attempt = self._delivery.begin(ws_id, epoch, message.seq).number
        except Conflict:
            # It is settled, or the connection is another's now: the next look tells.
            return True
        result = self._run(message, attempt)
        self.busy_at = time.monotonic()
        if result is None:
            return False
        if result.verdict == FAILED:
            note(failure_line(message.msg_id, attempt, self._work.max_attempts, result.reason))
            self._again_seq = message.seq
            self._again_at = self.busy_at + pause_after(attempt, random.random)
        self._untold = (message.seq, attempt, result)
        self._tell(*self._untold)
        return True

    def wait(self, seconds: float) -> None:
        """Wait until the end is asked for, at most this many seconds."""
        self._stop.wait(seconds)

    def _run(self, message: PendingMessage, attempt: int) -> Optional[_Result]:
        """Run the command to its end. None if it was ended because we are to end: the next worker counts that."""
        fields = wire_form(message)
        command = Command(
            self._work.command,
            environment(fields, self._connection.agent, attempt),
            given(fields, self._work.form),
            Limits(self._work.timeout, self._work.kill_after),
        )
        running = self._thread.submit(command.run)
        deadline: Optional[float] = None
        ended = False
        while not wait({running}, _STEP_SECONDS).done:
            if self._stop.is_set() and not ended:
                now = time.monotonic()
                deadline = now + self._grace if deadline is None else deadline
                ended = self._stop.urgent or now >= deadline
                if ended:
                    command.end()
        try:
            outcome = running.result()
        except OSError as error:
            return _Result(FAILED, not_started(error))
        return None if ended and outcome.late else _Result(outcome.verdict, outcome.reason)

    def _tell(self, seq: int, attempt: int, result: _Result) -> None:
        """Write the result of an attempt to the ledger. Errors are those of `receive`."""
        connection, over = self._connection, True
        if result.verdict == DONE:
            self._delivery.confirm_held(connection, [seq])
        elif result.verdict == REJECTED:
            self._delivery.reject_held(connection, seq, result.reason)
        else:
            try:
                over = self._delivery.fail(connection.ws_id, connection.epoch, seq, result.reason).set_aside
            except Conflict:
                # It was counted, and the answer was lost: the next look tells whether it is still pending.
                over = attempt >= self._work.max_attempts
        self.received += over
        self._untold = None
