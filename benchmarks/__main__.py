"""Run every benchmark, one after the other: `python -m benchmarks`."""

from __future__ import annotations

import runpy
import sys

BENCHMARKS = ("nodes", "tasks", "cells", "http", "dashboard", "models", "folding", "finding", "rlm", "trust")

for name in BENCHMARKS:
    print(f"\n=== {name}\n", flush=True)
    sys.argv = [f"benchmarks.{name}"]
    runpy.run_module(f"benchmarks.{name}", run_name="__main__")
