"""What `--exec` and `--forward-to` do with a message."""
