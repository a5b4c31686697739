"""The texts of `ws-manager help` that belong to no command."""

from __future__ import annotations

EXIT_CODES = """\
  0  done
  1  failed: the database, the disk, or something unexpected
  2  usage: an option, a name or a message that cannot be accepted
  3  there is no such connection, agent or message
  4  not authorised: a token, a barred agent, or a file of another user
  5  partly done: a line of a batch failed, or a confirmation is missing
  6  conflict: somebody else holds the connection, the ledger or the address
  7  the gateway does not answer, or none runs
130  interrupted (Ctrl-C)
141  the reader of stdout has closed the pipe
143  terminated"""

ENVIRONMENT = """\
BLACKROAD_WS_DB            the database; --db overrides it
                           (default: ~/.blackroad/websocket-manager.db)
BLACKROAD_WS_URL           a gateway's address: commands go through it;
                           --url and --db override it
BLACKROAD_HB_TIMEOUT       seconds after which a heartbeat is too old (30)
BLACKROAD_WS_TOKEN         the token for a gateway
BLACKROAD_WS_SECRET        the key that signs tokens, at least 32 bytes
BLACKROAD_WS_MAX_CONTENT   how large a message may be (256KiB)
BLACKROAD_WS_MAX_METADATA  how large metadata may be (16KiB)
HTTPS_PROXY, HTTP_PROXY, NO_PROXY
                           the proxy for a gateway on another machine
NO_COLOR, TERM=dumb        no colours

Most options of serve have a variable too: ws-manager serve --help."""

WHERE = """\
A condition is a field, an operator and a value, such as

  metadata.region=us-west
  message_count>100
  last_heartbeat<5m
  agent~^worker-[0-9]+$
  metadata."app.kubernetes.io/name"=web

Fields: ws_id, agent, connected_at, last_heartbeat, message_count, and
metadata.<key>.<key>… of objects, or metadata.<key>.0 of lists.

  =  !=   equal, not equal; a field that is missing is not equal
  ~       a regular expression is found in it
  <  >    numbers as numbers, times as times, all else as text

A time is RFC 3339, or how long ago: last_heartbeat<5m was heard more than
five minutes ago. Several --where must all hold. Quote a condition for the
shell where it has < > or spaces."""

TOPICS = {"exit-codes": EXIT_CODES, "environment": ENVIRONMENT, "where": WHERE}
"""The texts by their names."""
