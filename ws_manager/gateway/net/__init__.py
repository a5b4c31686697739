"""Listening addresses, TCP connections and TLS."""
