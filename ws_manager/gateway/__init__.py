"""The process that holds the sockets. Start reading at `server.py`."""
