"""JSON Schemas (2020-12) of what goes in and comes out. Lengths, patterns and limits are those of `core`."""

from __future__ import annotations

from typing import Any

from ws_manager.core.once import KEY_FORM, LONGEST_KEY
from ws_manager.core.traceparent import TRACEPARENT_FORM
from ws_manager.repository.working import STATES
from ws_manager.settings import MAX_NAME, MAX_TIMEOUT
from ws_manager.text import UNSEEN_CLASS

Schema = dict[str, Any]

MOST_ROWS = 1000
"""Rows of one page at most."""

# JSON in UTF-8 has no surrogates: RFC 8259 section 8.2.
_UNSEEN = UNSEEN_CLASS.replace("\ud800-\udfff", "")
_ANY = f"[^{_UNSEEN}]"
NAME: Schema = {
    "type": "string",
    "minLength": 1,
    "maxLength": MAX_NAME,
    # Without control and invisible characters, and not only spaces.
    "pattern": rf"^{_ANY}*[^\s{_UNSEEN}]{_ANY}*$",
}
WITHOUT_NUL = r"^[^\u0000]*$"
"""What a ledger may have to find: PostgreSQL cannot hold a NUL, nor look for one."""
KNOWN_NAME: Schema = {"type": "string", "minLength": 1, "maxLength": MAX_NAME, "pattern": WITHOUT_NUL}
"""A name that only has to be found: there may be some from before such characters were refused."""

TEXT: Schema = {"type": "string"}
TIME: Schema = {"type": "string", "format": "date-time"}
MOMENT: Schema = {"type": "string", "anyOf": [{"pattern": "^[0-9]{1,4}(s|m|h|d)$"}, {"format": "date-time"}]}
WAIT: Schema = {"type": "string", "pattern": r"^([0-9]{1,4}ms|[1-5]?[0-9]s|60s)$"}
BOOLEAN: Schema = {"type": "boolean"}
SEQ: Schema = {"type": "integer", "minimum": 0, "maximum": 2**63 - 1}
COUNT: Schema = {"type": "integer", "minimum": 0}
LIMIT: Schema = {"type": "integer", "minimum": 1, "maximum": MOST_ROWS, "default": 100}
SECONDS: Schema = {"type": "number", "minimum": 0, "maximum": MAX_TIMEOUT}
NUMBER: Schema = {"type": "number", "minimum": 0}
METADATA: Schema = {"type": "object"}
CONTENT: Schema = {"description": "any JSON value"}
KEY: Schema = {"type": "string", "minLength": 1, "maxLength": LONGEST_KEY, "pattern": f"^{KEY_FORM}$"}
TRACEPARENT: Schema = {
    "type": ["string", "null"],
    "pattern": f"^{TRACEPARENT_FORM}$",
    "description": "the sender's W3C trace context, which the receiver gets",
}


def optional(schema: Schema) -> Schema:
    """Return a schema that allows null too."""
    if "type" not in schema:
        return schema
    return {**schema, "type": [schema["type"], "null"]}


def listed(schema: Schema, **limits: int) -> Schema:
    """Return the schema of a list."""
    return {"type": "array", "items": schema, **limits}


def thing(required: dict[str, Schema], **more: Schema) -> Schema:
    """Return the schema of an object with these members; `more` may be left out."""
    return {
        "type": "object",
        "properties": {**required, **more},
        "required": list(required),
        "additionalProperties": False,
    }


def page(schema: Schema) -> Schema:
    """Return the schema of a page of a list; `next` is the value of `after` for the next one."""
    return thing({"items": listed(schema), "next": optional(TEXT)})


def _ref(name: str) -> Schema:
    return {"$ref": f"#/components/schemas/{name}"}


_GATEWAY = thing({"id": TEXT, "pid": {"type": "integer"}, "url": TEXT, "started_at": TEXT, "seen_at": TEXT})
CONNECTION = _ref("Connection")
MESSAGE = _ref("Message")
WIRE_MESSAGE = _ref("WireMessage")
ASK = _ref("Ask")
BROADCAST = _ref("Broadcast")
EXPLANATION = _ref("Explanation")
STATS = _ref("Stats")
SNAPSHOT = _ref("Snapshot")
PROBLEM = _ref("Problem")
UNCONFIRMED = _ref("Unconfirmed")

COMPONENTS: dict[str, Schema] = {
    "Connection": thing(
        {
            "ws_id": TEXT,
            "agent": TEXT,
            "metadata": METADATA,
            "connected_at": TEXT,
            "last_heartbeat": TEXT,
            "status": {"enum": ["active", "disconnected"]},
            "message_count": COUNT,
            "db_id": optional(SEQ),
            "disconnected_at": optional(TEXT),
            "epoch": COUNT,
            "confirmed_seq": SEQ,
            "close_code": optional({"type": "integer"}),
            "close_reason": optional(TEXT),
            "gateway": optional(TEXT),
            "pending": COUNT,
        },
        socket_open=BOOLEAN,
    ),
    "Message": thing(
        {
            "seq": SEQ,
            "msg_id": TEXT,
            "msg_type": TEXT,
            "sender_id": optional(TEXT),
            "recipient_id": optional(TEXT),
            "broadcast_id": optional(TEXT),
            "sent_at": TEXT,
            "wants_reply": BOOLEAN,
            "reply_to": optional(TEXT),
            "traceparent": optional(TEXT),
            "content": CONTENT,
            "delivered": BOOLEAN,
            "written_at": optional(TEXT),
            "confirmed_at": optional(TEXT),
            "rejected_at": optional(TEXT),
            "reject_reason": optional(TEXT),
            "refusals": COUNT,
            "retry_of": optional(TEXT),
        },
        content_bytes=COUNT,
        why=optional(TEXT),
    ),
    "WireMessage": thing(
        {
            "seq": SEQ,
            "msg_id": TEXT,
            "msg_type": TEXT,
            "sender_id": optional(TEXT),
            "recipient_id": TEXT,
            "broadcast_id": optional(TEXT),
            "sent_at": TEXT,
            "wants_reply": BOOLEAN,
            "reply_to": optional(TEXT),
            "traceparent": optional(TEXT),
            "content": CONTENT,
        }
    ),
    "Ask": thing(
        {
            "seq": SEQ,
            "msg_id": TEXT,
            "recipient_id": TEXT,
            "sender_id": optional(TEXT),
            "asked_at": TEXT,
            "state": {"enum": list(STATES)},
            "rejected_at": optional(TEXT),
            "reject_reason": optional(TEXT),
            "answer_id": optional(TEXT),
            "answered_at": optional(TEXT),
            "answer": {"description": "any JSON value; null while there is no answer_id"},
        }
    ),
    "Broadcast": thing(
        {
            "broadcast_id": TEXT,
            "sent_at": TEXT,
            "msg_type": TEXT,
            "sender_id": optional(TEXT),
            "recipients": COUNT,
            "confirmed": COUNT,
            "pending": COUNT,
            "set_aside": COUNT,
            "traceparent": optional(TEXT),
        },
        ws_ids=listed(TEXT),
        unconfirmed=listed(_ref("Unconfirmed")),
    ),
    "Unconfirmed": thing({"ws_id": TEXT, "msg_id": TEXT, "why": TEXT}),
    "Explanation": thing(
        {
            "kind": {"enum": ["connection", "message", "broadcast"]},
            "standing": {"enum": ["good", "waiting", "bad"]},
            "verdict": TEXT,
            "facts": {"type": "object"},
            "timeline": listed(thing({"at": TEXT, "what": TEXT, "detail": TEXT})),
        }
    ),
    "Stats": thing(
        {
            "active_connections": COUNT,
            "total_ever_connected": COUNT,
            "total_messages": COUNT,
            "agents": {"type": "object", "additionalProperties": COUNT},
            "pending": COUNT,
            "set_aside": COUNT,
            "unrouted": COUNT,
            "oldest_pending_at": optional(TEXT),
            "gateway": optional(_GATEWAY),
            "gateways": listed(_GATEWAY),
        }
    ),
    "Snapshot": thing(
        {
            "at": TEXT,
            "gateway": optional(_GATEWAY),
            "gateway_runs": BOOLEAN,
            "backlog": thing(
                {"pending": COUNT, "set_aside": COUNT, "unrouted": COUNT, "oldest_pending_at": optional(TEXT)}
            ),
            "active_connections": COUNT,
            "matching_connections": COUNT,
            "total_ever_connected": COUNT,
            "total_messages": COUNT,
            "sent_per_second": optional(NUMBER),
            "confirmed_per_second": optional(NUMBER),
            "connections": listed(
                thing(
                    {
                        "ws_id": TEXT,
                        "agent": TEXT,
                        "connected_at": TEXT,
                        "last_heartbeat": TEXT,
                        "age_seconds": NUMBER,
                        "idle_seconds": NUMBER,
                        "round_trip_ms": optional({"type": "integer"}),
                        "pending": COUNT,
                        "waiting_seconds": optional(NUMBER),
                        "sent": COUNT,
                        "slow": listed(TEXT),
                    }
                )
            ),
            "messages": listed(
                thing(
                    {
                        "seq": SEQ,
                        "msg_id": TEXT,
                        "msg_type": TEXT,
                        "sender_id": optional(TEXT),
                        "recipient_id": optional(TEXT),
                        "sent_at": TEXT,
                        "delivered": BOOLEAN,
                        "rejected_at": optional(TEXT),
                        "content_start": optional(TEXT),
                    }
                )
            ),
            "endings": listed(thing({"reason": TEXT, "count": COUNT, "last_at": TEXT, "last_ws_id": TEXT})),
            "cursor": TEXT,
            "confirmed": optional(COUNT),
        }
    ),
    "Problem": {
        "type": "object",
        "description": "RFC 9457",
        "properties": {
            "type": {"const": "about:blank"},
            "title": TEXT,
            "status": {"type": "integer"},
            "detail": TEXT,
            "code": TEXT,
            "hint": optional(TEXT),
            "param": optional(TEXT),
            "remedy": TEXT,
            "about": TEXT,
        },
        "required": ["type", "title", "status", "detail", "code", "hint"],
    },
}
"""What the document has under `components/schemas`."""
