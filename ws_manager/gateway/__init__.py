"""The process that holds the sockets. `server` first."""
