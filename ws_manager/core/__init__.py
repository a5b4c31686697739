"""The verbs over the ledger. `registry` first, then `delivery`."""
