"""Brings committed messages from the ledger to the sockets, and receipts back to the ledger."""
