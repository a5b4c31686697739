"""The command line. `app` is the way in; each command's module is imported when that command runs."""
