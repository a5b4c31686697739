"""Addresses, TCP connections and TLS."""
