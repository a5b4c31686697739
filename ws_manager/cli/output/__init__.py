"""What is written to stdout and stderr, and how."""
