"""The same turns and sub-calls by others, each in an interpreter that has it; see `benchmarks.rlm`.

`python rlm_peers.py NAME URL [TURNS...]` prints a line for each count of turns: the count, ms of
the processor and on the clock a turn; and, where it has sub-calls in batches, one that begins with
`batch`, with seconds. Processor time is of the process and of the children that have ended.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable

CELL = "I look.\n```repl\nx = 1\nprint(x)\n```"
TURNS = (10, 50, 100, 200)
SUB_CALLS = 1000

SAYS = {
    "rlms": CELL,
    "dspy": (
        "[[ ## reasoning ## ]]\nI look.\n\n[[ ## code ## ]]\n```python\nx = 1\nprint(x)\n```\n\n"
        "[[ ## answer ## ]]\n1\n\n[[ ## completed ## ]]"
    ),
    "smolagents": "Thought: I look.\n<code>\nx = 1\nprint(x)\n</code>",
}
"""What the model of a peer says to every turn: the same cell, in the form that the peer reads."""

BATCH = f"found = llm_query_batched([f'ECHO: {{n}}' for n in range({SUB_CALLS})])"
BATCHED = {
    "rlms": f"```repl\n{BATCH}\n```",
    "dspy": SAYS["dspy"].replace("x = 1\nprint(x)", BATCH),
}
"""The same for a batch of sub-calls; smolagents has none."""

Turns = Callable[[int], object]


def cpu_s() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def rlms(url: str) -> tuple[Turns, Turns]:
    from rlm import RLM  # type: ignore[import-not-found]  # noqa: PLC0415

    settings = {
        "model_name": "scripted",
        "base_url": f"{url}/v1",
        "api_key": "none",
        "max_retries": 0,
    }

    def run(turns: int) -> object:
        loop = RLM(
            backend="openai", backend_kwargs=settings, environment="local", max_iterations=turns
        )
        return loop.completion("go on")

    return run, run


def dspy(url: str) -> tuple[Turns, Turns]:
    import dspy as library  # type: ignore[import-not-found]  # noqa: PLC0415

    model = library.LM(
        "openai/scripted", api_base=f"{url}/v1", api_key="none", cache=False, num_retries=0
    )
    library.configure(lm=model, interpreter_factory=library.LocalInterpreter)

    def run(turns: int) -> object:
        loop = library.RLM("context, query -> answer", max_iters=turns, max_llm_calls=2 * SUB_CALLS)
        return loop(context="go on", query="go on")

    return run, run


def smolagents(url: str) -> tuple[Turns, None]:
    from smolagents import CodeAgent, OpenAIModel  # type: ignore[import-not-found]  # noqa: PLC0415

    model = OpenAIModel(
        model_id="scripted",
        api_base=f"{url}/v1",
        api_key="none",
        flatten_messages_as_text=True,
        client_kwargs={"max_retries": 0},
    )

    def run(turns: int) -> object:
        return CodeAgent(tools=[], model=model, max_steps=turns, verbosity_level=0).run("go on")

    return run, None


PEERS: dict[str, Callable[[str], tuple[Turns, Turns | None]]] = {
    "rlms": rlms,
    "dspy": dspy,
    "smolagents": smolagents,
}


def main(name: str, url: str, what: str, *counts: str) -> None:
    turns, batch = PEERS[name](url)
    if what == "batch" and batch is not None:
        cpu, wall = cpu_s(), time.perf_counter()
        batch(1)
        print(f"batch {cpu_s() - cpu:.3f} {time.perf_counter() - wall:.3f}", flush=True)
    if what == "turns":
        turns(2)  # what it imports and compiles at its first turns is no part of a turn
        for count in map(int, counts):
            cpu, wall = cpu_s(), time.perf_counter()
            turns(count)
            cpu, wall = cpu_s() - cpu, time.perf_counter() - wall
            print(f"{count:5}  {1000 * cpu / count:23.2f} {1000 * wall / count:27.1f}", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
