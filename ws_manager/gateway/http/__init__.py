"""What comes over HTTP: who may come in, and the handlers of each route."""
