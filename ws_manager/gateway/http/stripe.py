"""`POST /stripe/webhook`: receives Stripe's events, which are authenticated by a signature instead of a token."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, field

from aiohttp import web

from ws_manager.core.webhooks import WebhookOutcome
from ws_manager.errors import InvalidInput, LedgerBusy, MissingExtra, WsManagerError
from ws_manager.gateway.delivery.ledger_threads import LedgerThreads
from ws_manager.gateway.http.access import Access
from ws_manager.gateway.http.bodies import Bodies
from ws_manager.gateway.http.errors import error_response, problem
from ws_manager.gateway.refusal_log import RefusalLog
from ws_manager.models import UNROUTED
from ws_manager.stripe.events import (
    MAX_BODY,
    QUOTED,
    EventRoute,
    StripeEvent,
    addressed,
    is_quoted,
    load_stripe,
    verified,
)

_log = logging.getLogger("ws_manager.gateway")

PATH = "/stripe/webhook"


@dataclass(frozen=True)
class StripeOptions:
    """How Stripe's events are received.

    Attributes:
        secrets: the signing secrets; several during a rotation.
        routes: the recipients by event; the first route that matches is used.
        accept_unrouted: the answer to an event for which no agent is connected. True: 200, and the event is kept
            here. False: 503, so that Stripe sends it again.
    """

    # Not in the repr, because a repr may be logged.
    secrets: tuple[str, ...] = field(repr=False)
    routes: tuple[EventRoute, ...] = ()
    accept_unrouted: bool = False


class StripeRoute:
    """Receives events, and answers once they are in the ledger.

    Args:
        options: how events are received.
        access: checks Host and Origin.
        bodies: reads the bodies.
        threads: the ledger's threads.
        refusal_log: notes what is refused.
        seconds: time limit for writing an event.
    """

    def __init__(
        self,
        options: StripeOptions,
        access: Access,
        bodies: Bodies,
        threads: LedgerThreads,
        refusal_log: RefusalLog,
        seconds: float,
    ) -> None:
        self._options = options
        self._access = access
        self._bodies = bodies
        self._threads = threads
        self._refusal_log = refusal_log
        self._seconds = seconds
        if any(map(is_quoted, options.secrets)):
            _log.warning("%s takes no events: %s", PATH, QUOTED)
        try:
            load_stripe()
        except MissingExtra as error:
            # Every event is answered 503, and Stripe sends it again after the package was installed.
            _log.warning("%s takes no events: %s; %s", PATH, error.message, error.hint)

    async def take(self, request: web.Request) -> web.StreamResponse:
        """Handle one event."""
        try:
            self._access.check_address(request)
            event = await self._verified(request)
            outcome = await self._written(event)
        except web.HTTPRequestEntityTooLarge:
            return problem(413, InvalidInput.code, f"an event has at most {MAX_BODY} bytes")
        except WsManagerError as error:
            self._refusal_log.note("stripe", f"an event of Stripe, from {request.remote}: {error.message}")
            return error_response(error)
        result = "known already" if outcome.duplicate else f"to {outcome.recipients} connection(s)"
        _log.info("%s %s %s (%s)", event.id, event.type, outcome.status, outcome.reason or result)
        # An event that no message can hold has a reason. Sent again, it would fail again, so it is answered 200.
        waits = outcome.status == UNROUTED and outcome.reason is None and not self._options.accept_unrouted
        return web.json_response(
            vars(outcome),
            status=503 if waits else 200,
            headers={"Retry-After": "60"} if waits else None,
        )

    async def _verified(self, request: web.Request) -> StripeEvent:
        signature = request.headers.get("Stripe-Signature")
        if not signature:
            raise InvalidInput("there is no Stripe-Signature")
        async with self._bodies.of(request) as body:
            # In a thread: it may import a large package and parse a large event.
            return await asyncio.get_running_loop().run_in_executor(
                None, verified, body, signature, self._options.secrets
            )

    async def _written(self, event: StripeEvent) -> WebhookOutcome:
        incoming = addressed(event, self._options.routes)
        writing = self._threads.write(lambda ledger: ledger.webhooks.take(incoming))
        try:
            # The write goes on after a timeout. When Stripe sends the event again, it is known as a duplicate.
            return await asyncio.wait_for(asyncio.shield(writing), self._seconds)
        except asyncio.TimeoutError:
            writing.add_done_callback(_note_failure)
            raise LedgerBusy("the ledger is busy", cause="the ledger is busy") from None


def _note_failure(writing: asyncio.Future[WebhookOutcome]) -> None:
    if not writing.cancelled() and writing.exception() is not None:
        _log.error(
            "an event of Stripe could not be written; Stripe will send it again: %s", writing.exception()
        )
