"""`ws-manager stripe trigger`: post a signed test event to the gateway."""

# No `from __future__ import annotations`: Typer evaluates the annotations of a command.
import sys

import typer

from ws_manager.cli.exit_codes import PartlyDone
from ws_manager.cli.gateways import gateway_url
from ws_manager.cli.options import global_options
from ws_manager.cli.output.webhook_outcome import HEADER, outcome_line
from ws_manager.models import ROUTED


def trigger(
    ctx: typer.Context,
    event: str = typer.Argument(..., metavar="<event>", help="The type, such as payment_intent.succeeded."),
) -> None:
    """Post a signed test event to the gateway.

    It is signed with the secret in STRIPE_WEBHOOK_SECRET, so that webhooks can be tested without a Stripe
    account.
    """
    from ws_manager.stripe.trigger import post_event, sample_event

    options, sample = global_options(ctx), sample_event(event)
    url = options.url or gateway_url(options.database)
    # The database's own gateway runs on this machine, so no proxy is used.
    direct = options.url is None
    outcome = post_event(url, sample, options.ca, direct=direct)
    written = (HEADER if options.output == "csv" else "") + outcome_line(options, outcome)
    sys.stdout.write(written if options.output != "id" or outcome.status == ROUTED else "")
    sys.stdout.flush()
    if outcome.status != ROUTED and outcome.reason is None:
        raise PartlyDone(
            "no recipient of the event is connected; it is stored",
            hint="connect an agent, then: ws-manager stripe replay " + outcome.event_id,
        )
