"""Imports structlog without rich, for processes that stay.

structlog takes rich in for its coloured tracebacks wherever rich is installed: 3 MB and a tenth of
a second in a node, whose log is neither coloured nor formatted by it (`logs`).
"""

from __future__ import annotations

import sys
from importlib import import_module


def import_structlog() -> None:
    """Afterwards rich can be imported as ever. Where structlog is loaded already, it stays so."""
    if "structlog" in sys.modules or "rich" in sys.modules:
        return
    sys.modules["rich"] = None  # type: ignore[assignment] # which is how Python says: not installed
    try:
        import_module("structlog")
    finally:
        del sys.modules["rich"]
