"""Every route of the API, in the order of the document."""

from __future__ import annotations

from ws_manager.gateway.http.api import (
    asking,
    connections,
    messages,
    operations,
    receiving,
    stripe_events,
    tokens,
)

ROUTES = (
    *connections.ROUTES,
    *receiving.ROUTES,
    *messages.ROUTES,
    *asking.ROUTES,
    *operations.ROUTES,
    *stripe_events.ROUTES,
    *tokens.ROUTES,
)
"""The table that makes the routes, and `/v1/openapi.json`."""
