"""The agent's side of the wire."""
