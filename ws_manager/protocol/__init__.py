"""Agent protocol v1 without IO: frames, close codes, and a state machine for each side."""
