"""The HTTP API `/v1`: `routes` is the table of what there is, and both the handlers and the documents follow it."""
