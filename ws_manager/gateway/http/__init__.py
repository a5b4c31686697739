"""HTTP: access control, and the handler of each route."""
