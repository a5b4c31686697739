"""Several gateway processes that share a port and a ledger: `serve --workers N`."""
