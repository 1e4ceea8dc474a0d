"""What the mesh decides: pure functions of (state, event, now)."""
