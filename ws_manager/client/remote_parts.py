"""The parts of a ledger over HTTP that have verbs of their own: receiving, batches, maintenance, overviews."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Generator, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable, NoReturn, Optional, Union, cast

from ws_manager.client.api import RETRIES, ApiClient, path_of
from ws_manager.client.errors import error_of
from ws_manager.core.batch import Batch, OutgoingMessage, SentBroadcast
from ws_manager.core.maintenance import Maintenance, Pruned
from ws_manager.core.read.overview import (
    ConnectionState,
    Ending,
    Overview,
    OverviewQuery,
    Rates,
    Sampler,
    check_query,
)
from ws_manager.core.validation import check_limit
from ws_manager.core.webhooks import WebhookOutcome, Webhooks
from ws_manager.errors import GatewayUnavailable, InvalidInput, WsManagerError
from ws_manager.models import UNROUTED, Gateway, new_ids
from ws_manager.remedies import CHECK_URL_AND_PROXY
from ws_manager.repository.findings import Backlog, RecentMessage, StoredEvent
from ws_manager.settings import Sizes

if TYPE_CHECKING:
    from ws_manager.repository.store import Store

_LOOK_SECONDS = 0.25
_FIRST_PAUSE, _LONGEST_PAUSE = 0.25, 4.0


class _NoStore:
    """Stands where a ledger on this machine has its store."""

    def __getattr__(self, name: str) -> NoReturn:
        raise InvalidInput(
            "a gateway cannot do that", hint="do it on the machine of the ledger, with its file"
        )


NO_STORE = cast("Store", _NoStore())


class RemoteBatch(Batch):
    """Sending in bulk. Each line has a random key, so that one whose answer was lost is not sent twice."""

    def __init__(self, api: ApiClient, sizes: Sizes) -> None:
        super().__init__(NO_STORE, sizes)
        self._api = api

    def send(
        self, messages: Sequence[OutgoingMessage], sender_id: Optional[str] = None
    ) -> Sequence[Union[str, WsManagerError, None]]:
        """Commit messages to one connection each; see `Batch.send`. The token says who sends them."""
        if sender_id is not None:
            raise InvalidInput("the lines of a batch name no sender", hint="the token says who sends them")
        answers = self._answers([{"to": message.ws_id, **_line(message)} for message in messages])
        return [answer["msg_id"] if isinstance(answer, dict) else answer for answer in answers]

    def broadcast(
        self, messages: Sequence[OutgoingMessage], agent: Optional[str] = None
    ) -> Sequence[Union[SentBroadcast, WsManagerError]]:
        """Commit a broadcast for each message; see `Batch.broadcast`. An error is that of one message."""
        to = {} if agent is None else {"agent": agent}
        return [
            SentBroadcast(answer["broadcast_id"], answer["recipients"])
            if isinstance(answer, dict)
            else answer
            for answer in self._answers([{**to, **_line(message)} for message in messages])
        ]

    def _answers(self, lines: Sequence[dict[str, Any]]) -> list[Union[dict[str, Any], WsManagerError]]:
        """Send lines until each is answered. Those that stay without one get the error of the gateway."""
        texts = [_json_line({**line, "key": key}) for line, key in zip(lines, new_ids(len(lines)))]
        answers: dict[int, Union[dict[str, Any], WsManagerError]] = {}
        failures, pause = 0, _FIRST_PAUSE
        while True:
            left = [number for number in range(len(texts)) if number not in answers]
            if not left:
                return [answers[number] for number in range(len(texts))]
            before = len(answers)
            try:
                for line in self._api.lines(
                    "POST", path_of("batches"), b"".join(texts[number] for number in left)
                ):
                    number, answer = _answer_to(line, left)
                    answers[number] = answer
                if len(answers) - before < len(left):
                    raise GatewayUnavailable(f"the gateway at {self._api.url} left lines unanswered")
            except GatewayUnavailable as error:
                failures = 1 if len(answers) > before else failures + 1
                if failures > RETRIES:
                    return [answers.get(number, error) for number in range(len(texts))]
                time.sleep(pause)
                pause = min(2 * pause, _LONGEST_PAUSE)


class RemoteWebhooks(Webhooks):
    """The events that another service brought; see `Webhooks`."""

    def __init__(self, api: ApiClient, sizes: Sizes) -> None:
        super().__init__(NO_STORE, sizes)
        self._api = api

    def events(
        self,
        *,
        status: Optional[str] = None,
        since: str = "",
        pattern: Optional[str] = None,
        limit: int = 50,
        after: Optional[str] = None,
    ) -> list[StoredEvent]:
        """Return stored events, the newest first."""
        query = {"status": status, "since": since or None, "event": pattern}
        found = self._api.pages("stripe-events", query, check_limit(limit), after)
        return [StoredEvent(**json.loads(text)) for text in found]

    def waiting(self, since: str = "") -> list[str]:
        """Return the ids of the events that wait to be routed, the oldest first."""
        query = {"status": UNROUTED, "since": since or None}
        return [json.loads(text)["event_id"] for text in self._api.pages("stripe-events", query)][::-1]

    def replay(
        self,
        event_id: str,
        content_of: Callable[[str], str],
        *,
        agent: Optional[str] = None,
        dry_run: bool = False,
    ) -> WebhookOutcome:
        """Route one event that waits; the gateway knows what its content is."""
        body: dict[str, Any] = {"event_ids": [event_id], "dry_run": dry_run}
        if agent is not None:
            body["to"] = agent
        answer = self._api.call("POST", path_of("stripe-replays"), body=body).body
        if answer["failed"]:
            raise error_of(answer["failed"][0])
        return WebhookOutcome(duplicate=False, **answer["items"][0])


class RemoteMaintenance(Maintenance):
    """Care for the ledger, as far as a gateway does it; see `Maintenance`."""

    def __init__(self, api: ApiClient) -> None:
        super().__init__(NO_STORE)
        self._api = api

    def prune(self, older_than: float, *, dry_run: bool = False, vacuum: bool = False) -> Pruned:
        """Delete finished rows that are older than this many seconds."""
        if vacuum:
            raise InvalidInput(
                "a gateway does not shrink its file", hint="prune with vacuum on the machine of the ledger"
            )
        body = {"older_than": older_than, "dry_run": dry_run}
        return Pruned(**self._api.call("POST", path_of("prunes"), body=body).body["deleted"])

    def export_lines(self) -> Generator[str, None, None]:
        """Give the whole ledger as lines of JSON, as it was at the first of them."""
        yield from self._api.lines("GET", path_of("export"))

    def import_lines(self, lines: Iterable[str]) -> NoReturn:
        """Refuse: an import fills an empty ledger, and a gateway's is not."""
        raise InvalidInput("a gateway does not import", hint="import on the machine of the ledger")

    def backup(self, target: Path) -> None:
        """Copy the ledger to a new file here, mode 0600."""
        try:
            descriptor = os.open(target, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
        except FileExistsError:
            raise InvalidInput(f"{target} exists already", hint="give the name of a new file") from None
        except OSError as error:
            raise InvalidInput(
                f"cannot write {target}: {error.strerror}", hint="choose another place"
            ) from None
        try:
            with os.fdopen(descriptor, "wb") as file:
                for piece in self._api.stream("GET", path_of("backup")):
                    file.write(piece)
                file.flush()
                os.fsync(file.fileno())
        except BaseException:
            # Half a copy would look like a whole one.
            target.unlink()
            raise


class RemoteSampler(Sampler):
    """Takes overviews, one after another; see `Sampler`."""

    def __init__(self, api: ApiClient) -> None:
        self._api = api
        self._rates = Rates()
        self._latest: Optional[Overview] = None

    def sample(self, query: OverviewQuery) -> Overview:
        """Return the ledger as it is now."""
        check_query(query)
        asked = self._rates.query(query)
        parameters = {
            "agent": asked.agent,
            "text": asked.text,
            "sort": asked.order,
            "limit": max(1, asked.connections),
            "after": asked.after,
        }
        try:
            form = self._api.call("GET", path_of("snapshot"), query=parameters, patient=not self._latest).body
        except GatewayUnavailable:
            if self._latest is None:
                raise
            # Who watches goes on, and sees that nobody answers.
            return replace(self._latest, gateway_runs=False, sent_per_second=None, confirmed_per_second=None)
        self._latest = self._rates.fill_in(_overview_of(form, query))
        return self._latest


class RemoteChanges:
    """Asks its owner to look again about four times a second: what others commit is not seen from here."""

    def __init__(self) -> None:
        self._looked = float("-inf")

    def happened(self) -> bool:
        """Return whether it is time to look. The first call says yes."""
        now = time.monotonic()
        if now - self._looked < _LOOK_SECONDS:
            return False
        self._looked = now
        return True

    def wait(self) -> None:
        """Wait until it is time to look."""
        time.sleep(_LOOK_SECONDS)

    def widen(self, everything: bool) -> None:
        """Do nothing: it cannot tell one commit from another."""

    def close(self) -> None:
        """Do nothing: it takes nothing of the system."""


def _answer_to(line: str, left: Sequence[int]) -> tuple[int, Union[dict[str, Any], WsManagerError]]:
    """Return the number of the line that an answer is to, among those that were sent, and what it says."""
    try:
        answer = json.loads(line)
        place, done = answer["line"], answer["ok"]
        if not isinstance(place, int) or not 1 <= place <= len(left):
            raise ValueError(place)
        return left[place - 1], answer if done else error_of(answer["error"])
    except (ValueError, KeyError, TypeError, RecursionError):
        raise GatewayUnavailable(
            "the answer to a batch is not a gateway's", remedy=CHECK_URL_AND_PROXY
        ) from None


def _line(message: OutgoingMessage) -> dict[str, Any]:
    line = {"content": message.content, "msg_type": message.msg_type}
    return line if message.traceparent is None else {**line, "traceparent": message.traceparent}


def _json_line(line: dict[str, Any]) -> bytes:
    # The content is JSON text already.
    content = line.pop("content")
    others = json.dumps(line, ensure_ascii=False, separators=(",", ":"))
    return f'{others[:-1]},"content":{content}}}\n'.encode()


def _overview_of(form: dict[str, Any], query: OverviewQuery) -> Overview:
    gateway = form["gateway"]
    connections = [ConnectionState(**{**each, "slow": tuple(each["slow"])}) for each in form["connections"]]
    return Overview(
        **{
            **form,
            "gateway": None if gateway is None else Gateway(**gateway),
            "backlog": Backlog(**form["backlog"]),
            "connections": connections[: query.connections],
            "messages": [
                RecentMessage(**{**each, "delivered": int(each["delivered"])}) for each in form["messages"]
            ][: query.messages],
            "endings": [Ending(**each) for each in form["endings"]][: query.endings],
        }
    )
