"""The verbs of the ledger. Start with `ledger`."""
