"""One kowalski-node process."""
