"""The live view of `ws-manager top`."""
