"""The SQLite engine: a file per table, and all that belongs to a database file."""
