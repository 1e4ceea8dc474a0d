"""The same decisions under virtual time and seeded faults."""
