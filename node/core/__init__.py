"""What a node decides: pure functions of (state, event, now)."""
