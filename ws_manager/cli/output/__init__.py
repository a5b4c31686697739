"""Output to stdout and stderr, in every format."""
