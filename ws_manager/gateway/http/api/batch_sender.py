"""Sends the lines of a batch: see `batches.py`. It runs on the writing thread."""

from __future__ import annotations

import json
from typing import Any, NamedTuple, Optional, Union

from ws_manager.core.batch import OutgoingMessage
from ws_manager.core.ledger import Ledger
from ws_manager.core.once import Key, broadcasting_key, sending_key
from ws_manager.core.read.conditions import all_of
from ws_manager.core.sending import Admit
from ws_manager.errors import InvalidInput, KeyReused, LedgerError, NotFound, WsManagerError
from ws_manager.gateway.http.api.parsing import parse_body
from ws_manager.gateway.http.api.schemas import (
    CONTENT,
    KEY,
    KNOWN_NAME,
    NAME,
    TEXT,
    TRACEPARENT,
    listed,
    optional,
    thing,
)
from ws_manager.gateway.http.errors import hint_of
from ws_manager.gateway.quotas import TooFast
from ws_manager.tokens import Claims

LINE = thing(
    {"content": CONTENT},
    to=KNOWN_NAME,
    agent=optional(KNOWN_NAME),
    where=listed(TEXT),
    msg_type=NAME,
    key=KEY,
    traceparent=TRACEPARENT,
)
"""One line: with `to` it is a message, without it a broadcast."""


class Line(NamedTuple):
    """A line by its number, the first being 1; `data` is None if it is too long, and empty if it says nothing."""

    number: int
    data: Optional[bytes]


class Sent(NamedTuple):
    """What became of a group: how many lines are done, their answers, and the seconds until the next."""

    done: int
    answers: list[str]
    seconds: float


class _Message(NamedTuple):
    """A line that is a message to one connection."""

    line: int
    message: OutgoingMessage
    key: Optional[Key]


_Read = Union[dict[str, Any], WsManagerError, None]
"""What a line says: a message or a broadcast, an error, or nothing."""


class BatchSender:
    """Sends the lines of one group. It belongs to the writing thread.

    Lines that follow each other and are messages to one connection are written together: that costs a fraction of
    writing each.

    Args:
        ledger: open for writing.
        claims: what the token allows.
        admit: charges what is sent.
        traceparent: of the lines that have none of their own.
    """

    def __init__(self, ledger: Ledger, claims: Claims, admit: Admit, traceparent: Optional[str]) -> None:
        self._ledger = ledger
        self._batch = ledger.batch
        self._claims = claims
        self._admit = admit
        self._traceparent = traceparent
        self._answers: list[str] = []
        # Either all have keys, of different names, or none has.
        self._run: list[_Message] = []
        self._names: set[str] = set()
        self._has_sent = False

    def send(self, group: list[Line]) -> Sent:
        """Commit lines in one transaction, up to one that comes too soon, or that needs another transaction."""
        done, seconds = len(group), 0.0
        with self._batch.together():
            for number, line in enumerate(group):
                body = _read(line)
                if not self._batch.in_any_order and self._comes_later(body):
                    done = number
                    break
                try:
                    # Every line costs, also one that says nothing or cannot be sent.
                    self._admit(1, len(line.data or b""))
                    if isinstance(body, WsManagerError):
                        raise body
                    if body is not None:
                        self._take(line, body)
                except TooFast as error:
                    done, seconds = number, error.seconds
                    break
                except LedgerError:
                    raise
                except WsManagerError as error:
                    self._write_run()
                    self._fail(line.number, error)
            self._write_run()
        return Sent(done, self._answers, seconds)

    def _comes_later(self, body: _Read) -> bool:
        """Return whether a line cannot be sent with what was sent, or gathers, in this transaction."""
        if self._has_sent or not self._run or not isinstance(body, dict):
            return self._has_sent
        return "to" not in body or not self._goes_with_run(body.get("key"))

    def _goes_with_run(self, name: Optional[str]) -> bool:
        """Return whether a message with a key, or without one, can be written with those that have gathered."""
        return name not in self._names and (name is None) == (self._run[0].key is None)

    def _take(self, line: Line, body: dict[str, Any]) -> None:
        if "to" not in body:
            self._write_run()
            self._succeed(line.number, **self._broadcast(body))
            return
        if body.keys() & {"agent", "where"}:
            raise InvalidInput("a line with `to` has no agent and no where", hint="leave them out")
        self._claims.require("send")
        content, msg_type = body["content"], body.get("msg_type", "data")
        trace = body.get("traceparent", self._traceparent)
        message = self._batch.message(content, msg_type, body["to"], trace)
        key = sending_key(
            self._claims.agent, body.get("key"), body["to"], content, msg_type, self._claims.ws_id
        )
        if self._run and not self._goes_with_run(body.get("key")):
            self._write_run()
        self._run.append(_Message(line.number, message, key))
        if key is not None:
            self._names.add(key.name)

    def _write_run(self) -> None:
        """Write the messages that have gathered, and answer their lines."""
        run, self._run, self._names = self._run, [], set()
        self._has_sent = self._has_sent or bool(run)
        messages, keys = [each.message for each in run], [each.key for each in run if each.key is not None]
        sender = self._claims.ws_id
        if keys:
            outcomes = self._batch.send_once(messages, keys, sender)
        else:
            outcomes = [(str(sent), False) if sent else None for sent in self._batch.send(messages, sender)]
        for each, outcome in zip(run, outcomes):
            if outcome is None:
                self._fail(each.line, NotFound(f"{each.message.ws_id} is not active"))
            elif isinstance(outcome, KeyReused):
                self._fail(each.line, outcome)
            else:
                self._succeed(each.line, msg_id=outcome[0], **_replayed(outcome[1]))

    def _succeed(self, line: int, **facts: Any) -> None:  # noqa: ANN401 - JSON values
        self._answer({"line": line, "ok": True, **facts})

    def _fail(self, line: int, error: WsManagerError) -> None:
        explained = {"code": error.code, "message": error.public_message, "hint": hint_of(error)}
        self._answer({"line": line, "ok": False, "error": explained})

    def _answer(self, answer: dict[str, Any]) -> None:
        self._answers.append(json.dumps(answer, ensure_ascii=False, separators=(",", ":")))

    def _broadcast(self, body: dict[str, Any]) -> dict[str, Any]:
        self._claims.require("broadcast")
        self._has_sent = True
        content, msg_type = body["content"], body.get("msg_type", "broadcast")
        agent, where = body.get("agent"), body.get("where")
        chosen = all_of(where) if where else None

        def sent() -> str:
            return self._ledger.broadcast(
                content,
                agent=agent,
                filter_fn=chosen,
                msg_type=msg_type,
                sender_id=self._claims.ws_id,
                traceparent=body.get("traceparent", self._traceparent),
                admit=self._admit,
            ).broadcast_id

        key = broadcasting_key(
            self._claims.agent, body.get("key"), agent, where, content, msg_type, self._claims.ws_id
        )
        broadcast_id, replayed = self._ledger.once(key, sent)
        state = self._ledger.find_broadcast(broadcast_id)
        recipients = 0 if state is None else state.recipients
        return {"broadcast_id": broadcast_id, "recipients": recipients, **_replayed(replayed)}


def _read(line: Line) -> _Read:
    """Return what a line says."""
    if line.data == b"":
        return None
    if line.data is None:
        return InvalidInput("the line is too long", hint="send less in one message")
    try:
        return parse_body(line.data, LINE)
    except WsManagerError as error:
        return error


def _replayed(replayed: bool) -> dict[str, Any]:
    return {"replayed": True} if replayed else {}
