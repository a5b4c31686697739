"""What one route of the API is, and what its handler gets and returns."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Callable, NamedTuple, Optional

from ws_manager.core.ledger import Ledger
from ws_manager.gateway.http.access import Access
from ws_manager.gateway.http.api.schemas import Schema
from ws_manager.tokens import Claims


class Parameter(NamedTuple):
    """A parameter of the path or of the query.

    Attributes:
        name: as it is written.
        schema: of one value.
        text: one line for the document.
        repeated: whether it may be given several times: its value is a list.
        required: whether it must be given.
    """

    name: str
    schema: Schema
    text: str
    repeated: bool = False
    required: bool = False


class Call(NamedTuple):
    """One request, checked.

    Attributes:
        claims: what its token allows.
        given: the parameters of the path and of the query, by name; one that was left out is missing, or has its
            default.
        body: the members of the body, by name; `Json` where the schema allows any value.
        key: its idempotency key.
        admit: charges what is sent, before it is written: see `ws_manager.core.sending.Admit`.
        access: signs tokens.
        traceparent: of the header; None if that is missing or invalid.
    """

    claims: Claims
    given: Mapping[str, Any]
    body: Mapping[str, Any]
    key: Optional[str]
    admit: Callable[[int, int], None]
    access: Access
    traceparent: Optional[str] = None

    @property
    def subject(self) -> str:
        """Whose idempotency keys these are."""
        return self.claims.agent


@dataclass(frozen=True)
class Reply:
    """The answer to a request.

    Attributes:
        body: a JSON object; `Json` in it stays as it is.
        status: HTTP status.
        headers: further headers.
        replayed: whether its idempotency key was used before, so that nothing was done now.
        reached: whether what a `wait` waits for was reached; None while it can be. With True the status is 201 after
            the wait, otherwise 202.
        anew: makes the body again, after the wait.
        resume: if there is nothing yet, the parameters that change when a `wait` asks the handler again.
    """

    body: Mapping[str, Any]
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    replayed: bool = False
    reached: Optional[Callable[[Ledger], Optional[bool]]] = None
    anew: Optional[Callable[[Ledger], Mapping[str, Any]]] = None
    resume: Optional[Mapping[str, Any]] = None


Handler = Callable[[Ledger, Call], Reply]


@dataclass(frozen=True)
class Route:
    """One operation of the API.

    Attributes:
        method: HTTP method.
        path: with its parameters in braces.
        scope: that the token needs.
        summary: one line for the document.
        handler: does it; it runs on a thread of the ledger.
        reply: the schema of its answer.
        status: of its answer, and others with the same schema.
        writes: whether it writes to the ledger.
        long: whether it runs beside the receipts although it writes: in many small transactions, or seldom.
        parameters: of the query.
        path_parameters: of the path, in their order.
        body: the schema of the body; None for none.
        errors: the statuses of its problems, beside those that every route has.
        keyed: whether it takes an `Idempotency-Key`.
        other: statuses of further answers, each with its schema.
    """

    method: str
    path: str
    scope: str
    summary: str
    handler: Handler
    reply: Schema
    status: tuple[int, ...] = (200,)
    writes: bool = False
    long: bool = False
    parameters: tuple[Parameter, ...] = ()
    path_parameters: tuple[Parameter, ...] = ()
    body: Optional[Schema] = None
    errors: tuple[int, ...] = ()
    keyed: bool = False
    other: Mapping[int, Schema] = field(default_factory=dict)

    @property
    def operation(self) -> str:
        """The name of the operation, unique among all."""
        words: Iterable[str] = (part.strip("{}") for part in self.path.split("/")[2:])
        return "_".join([self.method.lower(), *(word.replace("-", "_") for word in words)])
