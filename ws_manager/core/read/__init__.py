"""Questions to the ledger. Nothing here writes."""
