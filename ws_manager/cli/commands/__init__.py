"""The documented commands."""
