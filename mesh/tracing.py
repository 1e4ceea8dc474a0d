"""Which trace the work under way belongs to, as it travels with the context of a task.

Conversations pass it on: who answers works in the trace of who asked. What is told of it, and to
whom, is not the mesh's business.
"""

from __future__ import annotations

from contextvars import ContextVar

trace_context: ContextVar[str] = ContextVar("trace_context", default="")
"""W3C's `traceparent`; empty outside of any trace."""
