"""From the ledger to the sockets, and back."""
