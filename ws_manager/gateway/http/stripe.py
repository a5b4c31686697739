"""`POST /stripe/webhook`: Stripe's events, let in by their signature instead of a token."""

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
from ws_manager.gateway.http.errors import error_response
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
    """How events of Stripe are taken.

    Attributes:
        secrets: that they are signed with; several during a rotation.
        routes: where they go; the first that takes one decides.
        accept_unrouted: answer 200 although nobody is connected that an event is for: it waits here. Otherwise
            503, so that Stripe sends it again.
    """

    # Never part of its repr, which may end in a log.
    secrets: tuple[str, ...] = field(repr=False)
    routes: tuple[EventRoute, ...] = ()
    accept_unrouted: bool = False


class StripeRoute:
    """Takes events, and answers as soon as they are in the ledger.

    Args:
        options: how.
        access: knows under which names the gateway is addressed.
        bodies: reads requests.
        threads: of the ledger.
        refusal_log: notes what is refused.
        seconds: how long an event may take to be written.
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
            # Every event is answered 503 then, and comes again when it is there.
            _log.warning("%s takes no events: %s; %s", PATH, error.message, error.hint)

    async def take(self, request: web.Request) -> web.StreamResponse:
        """Answer one event."""
        try:
            self._access.check_address(request)
            event = await self._verified(request)
            outcome = await self._written(event)
        except web.HTTPRequestEntityTooLarge:
            return web.json_response(
                {"error": {"code": "invalid", "message": f"an event has at most {MAX_BODY} bytes"}},
                status=413,
            )
        except WsManagerError as error:
            self._refusal_log.note("stripe", f"an event of Stripe, from {request.remote}: {error.message}")
            return error_response(error)
        result = "known already" if outcome.duplicate else f"to {outcome.recipients} connection(s)"
        _log.info("%s %s %s (%s)", event.id, event.type, outcome.status, outcome.reason or result)
        # One that no message can have would come again for days, and never fare better.
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
            # Neither the import of a large package nor the parsing of a large event on the event loop.
            return await asyncio.get_running_loop().run_in_executor(
                None, verified, body, signature, self._options.secrets
            )

    async def _written(self, event: StripeEvent) -> WebhookOutcome:
        incoming = addressed(event, self._options.routes)
        writing = self._threads.write(lambda ledger: ledger.webhooks.take(incoming))
        try:
            # It is written in the end, whatever the answer is: then it is known when it comes again.
            return await asyncio.wait_for(asyncio.shield(writing), self._seconds)
        except asyncio.TimeoutError:
            writing.add_done_callback(_note_failure)
            raise LedgerBusy("the ledger is busy", cause="the ledger is busy") from None


def _note_failure(writing: asyncio.Future[WebhookOutcome]) -> None:
    if not writing.cancelled() and writing.exception() is not None:
        _log.error("an event of Stripe could not be written, and will come again: %s", writing.exception())
