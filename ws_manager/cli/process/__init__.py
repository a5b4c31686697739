"""The process: its streams, signals, limits and logs."""
