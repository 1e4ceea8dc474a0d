"""The same scripts run by PyPI's `rlms`, in an interpreter that has it; see `benchmarks.rlm`."""

from __future__ import annotations

import sys
import time

CELL = "I look.\n```repl\nx = 1\nprint(x)\n```"
TURNS = (10, 50, 100, 200)


def main(url: str) -> None:
    from rlm import RLM  # type: ignore[import-not-found]  # noqa: PLC0415

    settings = {
        "model_name": "scripted",
        "base_url": f"{url}/v1",
        "api_key": "none",
        "max_retries": 0,
    }
    for count in TURNS[:3]:
        loop = RLM(
            backend="openai", backend_kwargs=settings, environment="local", max_iterations=count
        )
        cpu, wall = time.process_time(), time.perf_counter()
        loop.completion("go on")
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
        print(f"{count:5}  {1000 * cpu / count:23.2f} {1000 * wall / count:27.1f}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
