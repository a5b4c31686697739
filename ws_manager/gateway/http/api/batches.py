"""`POST /v1/batches`: many messages in one request. Each line is answered by one line, after its commit.

The answers begin while lines still come. Lines are committed in groups, so that a producer that waits for an answer
gets it soon, and one that does not wait pays for few commits.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
from collections.abc import AsyncIterator, Iterator
from typing import Any, NamedTuple, Optional

from aiohttp import web

from ws_manager.core.batch import OutgoingMessage
from ws_manager.core.ledger import Ledger
from ws_manager.core.once import Key, broadcasting_key, sending_key
from ws_manager.core.read.conditions import all_of
from ws_manager.core.sending import Admit
from ws_manager.errors import (
    GatewayUnavailable,
    InvalidInput,
    KeyReused,
    LedgerError,
    NotFound,
    WsManagerError,
)
from ws_manager.gateway.delivery.ledger_threads import LedgerThreads
from ws_manager.gateway.http.api.gate import Gate, check_bars
from ws_manager.gateway.http.api.parsing import parse_body
from ws_manager.gateway.http.api.schemas import CONTENT, KEY, KNOWN_NAME, NAME, TEXT, listed, optional, thing
from ws_manager.gateway.http.errors import hint_of
from ws_manager.gateway.quotas import TooFast
from ws_manager.tokens import Claims

CONTENT_TYPE = "application/x-ndjson"
MOST_BATCHES = 20
"""Batches at the same time."""

LINE = thing(
    {"content": CONTENT},
    to=KNOWN_NAME,
    agent=optional(KNOWN_NAME),
    where=listed(TEXT),
    msg_type=NAME,
    key=KEY,
)
"""One line: with `to` it is a message, without it a broadcast."""

_MOST_LINES = 500
_MOST_BYTES = 1024 * 1024
_IDLE_SECONDS = 0.02
_PATIENCE_SECONDS = 60.0


class Line(NamedTuple):
    """A line by its number, the first being 1; `data` is None if it is too long."""

    number: int
    data: Optional[bytes]


class Batches:
    """The batches of one gateway.

    Args:
        gate: lets requests in.
        threads: of the ledger.
        longest: bytes of a line at most.
    """

    def __init__(self, gate: Gate, threads: LedgerThreads, longest: int) -> None:
        self._gate = gate
        self._threads = threads
        self._longest = longest
        self._open = 0

    def add_to(self, application: web.Application) -> None:
        """Add the route to an application."""
        application.router.add_post("/v1/batches", self._gate.handler(self._handle))

    async def _handle(self, request: web.Request, headers: dict[str, str]) -> web.StreamResponse:
        claims = await self._gate.enter(request, headers)
        if not (claims.allows("send") or claims.allows("broadcast")):
            claims.require("send")
        if not request.body_exists or request.content_length == 0:
            raise InvalidInput("a batch has lines", hint="send one JSON object on each line")
        if self._open >= MOST_BATCHES:
            raise GatewayUnavailable("there are too many batches", hint="come back later")
        await self._threads.write(lambda ledger: check_bars(ledger, claims))
        self._open += 1
        try:
            return await self._answer(request, claims, headers)
        finally:
            self._open -= 1

    async def _answer(
        self, request: web.Request, claims: Claims, headers: dict[str, str]
    ) -> web.StreamResponse:
        response = web.StreamResponse(headers={**headers, "Cache-Control": "no-store"})
        response.content_type = CONTENT_TYPE
        await response.prepare(request)
        with contextlib.suppress(ConnectionError):
            try:
                async for group in self._groups(request):
                    await self._commit(group, claims, response)
            except (WsManagerError, asyncio.TimeoutError):
                # Without an end, so that its client knows that lines were not answered.
                if request.transport is not None:
                    request.transport.close()
        return response

    async def _commit(self, group: list[Line], claims: Claims, response: web.StreamResponse) -> None:
        """Commit lines, and answer them. A token that is too fast is slowed down."""
        while group:
            sending = functools.partial(_sent, group, claims, self._gate.account(claims))
            answers, seconds = await self._threads.write(sending)
            if answers:
                await response.write("".join(answer + "\n" for answer in answers).encode("utf-8"))
            group = group[len(answers) :]
            if group:
                await asyncio.sleep(seconds)

    async def _groups(self, request: web.Request) -> AsyncIterator[list[Line]]:
        """Give the lines of a body in groups, each when it is full or when nothing comes for a moment."""
        splitter, group, size = _Splitter(self._longest), list[Line](), 0
        while True:
            reading = asyncio.ensure_future(request.content.readany())
            if group and not (await asyncio.wait({reading}, timeout=_IDLE_SECONDS))[0]:
                yield group
                group, size = [], 0
            data = await asyncio.wait_for(reading, _PATIENCE_SECONDS)
            for line in splitter.feed(data) if data else splitter.end():
                group.append(line)
                size += len(line.data or b"")
                if len(group) >= _MOST_LINES or size >= _MOST_BYTES:
                    yield group
                    group, size = [], 0
            if not data:
                if group:
                    yield group
                return


class _Splitter:
    """Splits bytes into lines; of one that is too long it keeps nothing."""

    def __init__(self, longest: int) -> None:
        self._longest = longest
        self._rest = bytearray()
        self._skipping = False
        self._number = 0

    def feed(self, data: bytes) -> Iterator[Line]:
        """Take bytes, and give the lines that they end."""
        first, *others = data.split(b"\n")
        self._add(first)
        for part in others:
            yield from self._line()
            self._add(part)

    def end(self) -> Iterator[Line]:
        """Give the last line, if it has no end."""
        if self._rest or self._skipping:
            yield from self._line()

    def _add(self, part: bytes) -> None:
        if self._skipping or len(self._rest) + len(part) > self._longest:
            self._skipping = True
            self._rest.clear()
        else:
            self._rest += part

    def _line(self) -> Iterator[Line]:
        self._number += 1
        data, skipped = bytes(self._rest), self._skipping
        self._rest.clear()
        self._skipping = False
        # As in a file of lines, an empty one says nothing.
        if skipped or data.strip():
            yield Line(self._number, None if skipped else data)


def _sent(group: list[Line], claims: Claims, admit: Admit, ledger: Ledger) -> tuple[list[str], float]:
    return _Sender(ledger, claims, admit).send(group)


class _Message(NamedTuple):
    """A line that is a message to one connection."""

    line: int
    message: OutgoingMessage
    key: Optional[Key]


class _Sender:
    """Sends the lines of one group. It belongs to the writing thread.

    Lines that follow each other and are messages to one connection are written together: that costs a fraction of
    writing each.
    """

    def __init__(self, ledger: Ledger, claims: Claims, admit: Admit) -> None:
        self._ledger = check_bars(ledger, claims)
        self._batch = ledger.batch
        self._claims = claims
        self._admit = admit
        self._answers: list[str] = []
        # Either all have keys, of different names, or none has.
        self._run: list[_Message] = []
        self._names: set[str] = set()

    def send(self, group: list[Line]) -> tuple[list[str], float]:
        """Commit lines in one transaction, up to one that comes too soon.

        Returns:
            The answers to the lines that were done, and the seconds to wait before the next one.
        """
        seconds = 0.0
        with self._batch.together():
            for line in group:
                try:
                    self._take(line)
                except TooFast as error:
                    seconds = error.seconds
                    break
                except LedgerError:
                    raise
                except WsManagerError as error:
                    self._write_run()
                    self._fail(line.number, error)
            self._write_run()
        return self._answers, seconds

    def _take(self, line: Line) -> None:
        if line.data is None:
            raise InvalidInput("the line is too long", hint="send less in one message")
        body = parse_body(line.data, LINE)
        if "to" not in body:
            self._write_run()
            self._succeed(line.number, **self._broadcast(body))
            return
        if body.keys() & {"agent", "where"}:
            raise InvalidInput("a line with `to` has no agent and no where", hint="leave them out")
        self._claims.require("send")
        content, msg_type = body["content"], body.get("msg_type", "data")
        message = self._batch.message(content, msg_type, body["to"])
        key = sending_key(self._claims.agent, body.get("key"), body["to"], content, msg_type)
        self._admit(1, len(content.encode("utf-8")))
        if (self._run and (key is None) != (self._run[0].key is None)) or (key and key.name in self._names):
            self._write_run()
        self._run.append(_Message(line.number, message, key))
        if key is not None:
            self._names.add(key.name)

    def _write_run(self) -> None:
        """Write the messages that have gathered, and answer their lines."""
        run, self._run, self._names = self._run, [], set()
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
                admit=self._admit,
            ).broadcast_id

        key = broadcasting_key(self._claims.agent, body.get("key"), agent, where, content, msg_type)
        broadcast_id, replayed = self._ledger.once(key, sent)
        state = self._ledger.find_broadcast(broadcast_id)
        recipients = 0 if state is None else state.recipients
        return {"broadcast_id": broadcast_id, "recipients": recipients, **_replayed(replayed)}


def _replayed(replayed: bool) -> dict[str, Any]:
    return {"replayed": True} if replayed else {}
