"""Programs that measure; none is a test, and none is in the wheel."""
