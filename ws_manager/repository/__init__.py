"""SQL, and nothing else: a file per table over one `Database` connection."""
