"""What keeps a ledger: what an engine must do (`store`, `tables`), and the engines."""
