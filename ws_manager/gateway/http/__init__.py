"""HTTP: who is let in, and a handler for each route."""
