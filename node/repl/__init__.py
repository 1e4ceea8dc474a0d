"""Sandboxed REPL sessions, one kernel process per task and language."""
