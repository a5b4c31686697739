"""Agent protocol v1, without IO: frames, close codes, and the two sides as state machines."""
