"""`--batch`: messages from a file or from stdin; each line is answered after its commit."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Callable, Optional

from ws_manager.cli.errors import not_active
from ws_manager.cli.exit_codes import PartlyDone
from ws_manager.cli.hints import hint_of
from ws_manager.cli.options import GlobalOptions
from ws_manager.cli.output.text import json_for, json_text, note_to_terminal
from ws_manager.cli.process.line_reader import LONGEST, Line, Lines
from ws_manager.cli.process.stream import Stream, stopped_by_signals
from ws_manager.core.batch import OutgoingMessage
from ws_manager.core.validation import check_name
from ws_manager.errors import GatewayUnavailable, InvalidInput, NotFound, WsManagerError
from ws_manager.strict_json import checked, compact, decode_json, members
from ws_manager.text import decode

if TYPE_CHECKING:
    from ws_manager.core.ledger import Ledger

MOST_LINES = 5000
MOST_BYTES = 4 * 1024 * 1024
IDLE_SECONDS = 0.02
"""Seconds without input after which the lines so far are committed: a producer may be waiting for its answers."""

_KEYS = {"to", "content", "type", "traceparent"}

Accepted = list[tuple[int, OutgoingMessage]]
"""The valid lines of a group: their numbers and messages."""


def check_batch_options(options: GlobalOptions, given: dict[str, object]) -> None:
    """Refuse parameters that exclude `--batch`.

    Args:
        options: the global options.
        given: the values of those parameters by their names on the command line; None, False or [] if not given.

    Raises:
        InvalidInput: one of them was given, or the output format is not JSON.
    """
    for name, value in given.items():
        if value not in (None, False, []):
            raise InvalidInput(f"--batch and {name} exclude each other", hint="the lines say what is sent")
    if options.output not in (None, "json", "ndjson"):
        raise InvalidInput(
            f"--batch answers in NDJSON, not {options.output}", hint="leave out -o, and select fields with jq"
        )


class BatchRun:
    """A command with `--batch`: it reads lines, sends them in groups, and answers each line.

    Args:
        ledger: open for writing.
        msg_type: the type of messages whose line does not name one.
        traceparent: the trace context of messages whose line does not name one; None for none.
    """

    def __init__(self, ledger: Ledger, msg_type: str, traceparent: Optional[str] = None) -> None:
        self._ledger = ledger
        self._batch = ledger.batch
        self._msg_type = msg_type
        self._traceparent = traceparent
        self._lines = 0
        self._failed = 0
        self._unavailable: Optional[GatewayUnavailable] = None

    def send(self, lines: Lines, ws_id: Optional[str]) -> None:
        """Send each line to one connection, or, with None, to the one that it names.

        Raises:
            PartlyDone: a line could not be sent; the others are.
            LedgerError: the file cannot be written; only the lines that were answered as sent are committed.
        """

        def commit(accepted: Accepted) -> list[tuple[int, str]]:
            answers = []
            for (number, each), sent in zip(accepted, self._batch.send([each for _, each in accepted])):
                if isinstance(sent, str):
                    answers.append((number, f'{{"line":{number},"ok":true,"msg_id":"{sent}"}}'))
                else:
                    error = self._missing(each) if sent is None else sent
                    answers.append((number, self._refused(number, error)))
            return answers

        self._run(lines, self._to_one(ws_id) if ws_id is not None else self._addressed, commit)

    def broadcast(self, lines: Lines, agent: Optional[str] = None) -> None:
        """Broadcast each line.

        Args:
            lines: the lines.
            agent: the agent whose connections are recipients; None for all.
            filter_fn: returns whether a connection is a recipient; None for all.

        Raises:
            PartlyDone: some lines were not sent; the others were.
            LedgerError: the ledger cannot be written; only what was answered as sent is committed.
        """

        def commit(accepted: Accepted) -> list[tuple[int, str]]:
            answers = []
            sent = self._batch.broadcast([each for _, each in accepted], agent)
            for (number, _), made in zip(accepted, sent):
                if isinstance(made, WsManagerError):
                    answers.append((number, self._refused(number, made)))
                    continue
                facts = f'"broadcast_id":"{made.broadcast_id}","recipients":{made.recipients}'
                answers.append((number, f'{{"line":{number},"ok":true,{facts}}}'))
            return answers

        self._run(lines, self._to_one(None), commit)

    def _run(
        self,
        lines: Lines,
        parse: Callable[[str], OutgoingMessage],
        commit: Callable[[Accepted], list[tuple[int, str]]],
    ) -> None:
        with stopped_by_signals() as stop:
            stream = Stream(stop)
            # A signal ends the command between two transactions, when all committed lines are answered.
            for group in lines.groups(MOST_LINES, MOST_BYTES, IDLE_SECONDS, lambda: stream.pause(0)):
                self._send_group(group, parse, commit, stream)
        if self._failed:
            raise PartlyDone(
                f"{self._failed} of {self._lines} line(s) were not sent",
                hint="their answers say why; the other lines are committed",
            )
        note_to_terminal(f"{self._lines} line(s) sent")

    def _send_group(
        self,
        group: Sequence[Line],
        parse: Callable[[str], OutgoingMessage],
        commit: Callable[[Accepted], list[tuple[int, str]]],
        stream: Stream,
    ) -> None:
        self._lines += len(group)
        accepted: Accepted = []
        answers: list[tuple[int, str]] = []
        for line in group:
            try:
                accepted.append((line.number, parse(_decoded(line))))
            except InvalidInput as error:
                answers.append((line.number, self._refused(line.number, error)))
        while accepted:
            done = commit(accepted)
            accepted = accepted[len(done) :]
            if accepted:
                # The rest needs another transaction. This one is committed, so its lines are answered now.
                self._write([*(a for a in answers if a[0] < accepted[0][0]), *done], stream)
                answers = [a for a in answers if a[0] > accepted[0][0]]
                stream.pause(0)
            else:
                answers += done
        self._write(answers, stream)
        if self._unavailable is not None:
            # The lines behind these would wait for it as long, one group after another.
            raise self._unavailable

    def _write(self, answers: Sequence[tuple[int, str]], stream: Stream) -> None:
        text = "".join(f"{answer}\n" for _, answer in sorted(answers))
        stream.put(json_for(sys.stdout, text))

    def _to_one(self, ws_id: Optional[str]) -> Callable[[str], OutgoingMessage]:
        return lambda line: self._batch.message(
            checked(line, "line"), self._msg_type, ws_id, self._traceparent
        )

    def _addressed(self, line: str) -> OutgoingMessage:
        value = decode_json(line, "line", envelope=1)
        if not isinstance(value, dict) or not {"to", "content"} <= value.keys() <= _KEYS:
            raise InvalidInput(
                'the line is not an object with "to", "content" and optionally "type" and "traceparent"',
                hint='for example {"to":"ws-001","content":{"ping":true}}',
            )
        to = check_name(value["to"], "ws_id", known=True)
        content = compact(members(line)["content"], "line")
        trace = value.get("traceparent")
        return self._batch.message(
            content, value.get("type", self._msg_type), to, self._traceparent if trace is None else trace
        )

    def _missing(self, each: OutgoingMessage) -> NotFound:
        assert each.ws_id is not None
        return not_active(self._ledger, each.ws_id)

    def _refused(self, number: int, error: WsManagerError) -> str:
        self._failed += 1
        if isinstance(error, GatewayUnavailable):
            self._unavailable = error
        explained = {"code": error.code, "message": error.message, "hint": hint_of(error)}
        return json_text({"line": number, "ok": False, "error": explained})


def _decoded(line: Line) -> str:
    if line.data is None:
        raise InvalidInput(
            f"the line has more than {LONGEST} bytes", hint="a message has at most 262144 bytes as JSON"
        )
    return decode(line.data, "the line")
