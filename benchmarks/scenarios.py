"""What `python -m benchmarks` can run. A new benchmark gets a line here, and nothing else.

A scenario is a module of this package that runs by itself. It tells its figures with
`benchmarks.figures`, and takes peers as `--peer NAME=PROGRAM`, again and again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

LIMIT_S = 1800.0


@dataclass(frozen=True, slots=True)
class Scenario:
    """`quick`: arguments of a run that takes a minute or two; `compared`: of one beside peers.

    `peers` are names in `benchmarks.environments`. `peer_flag` names one: with `{name}={program}`,
    unless the benchmark has only one peer and takes its program alone. None: programs are looked
    for on the path, where those of Debian's packages are.
    """

    name: str
    about: str
    quick: tuple[str, ...] = ()
    compared: tuple[str, ...] = ()
    peers: tuple[str, ...] = ()
    peer_flag: str | None = "--peer"
    takes_names: bool = True

    @property
    def module(self) -> str:
        return f"benchmarks.{self.name}"

    def arguments(self, programs: Mapping[str, Path], *, is_quick: bool) -> list[str]:
        """Of a run beside those of `programs` that it compares with; empty `programs` for none."""
        given = list(self.compared) if programs else []
        given += self.quick if is_quick else ()
        for name in self.peers:
            if name in programs and self.peer_flag is not None:
                told = f"{name}={programs[name]}" if self.takes_names else str(programs[name])
                given += [self.peer_flag, told]
        return given


SCENARIOS: tuple[Scenario, ...] = (
    Scenario(
        "gateways",
        "chat completions through gateways to model servers",
        quick=("--runs", "1", "--requests", "100", "--seconds", "2"),
        peers=("litellm", "ollama-herd", "sglang-router", "portkey"),
    ),
    Scenario(
        "cells",
        "programs and cells, by sandbox, beside what runs code elsewhere",
        quick=("--runs", "1", "--times", "10"),
        compared=("--tier", "bubblewrap", "--tier", "no sandbox"),
        peers=("ipykernel", "dask", "ray", "celery", "nats"),
    ),
    Scenario(
        "rlm",
        "the loop: turns, sub-calls, long contexts",
        quick=("--runs", "1", "--megabytes", "1", "--tasks", "40"),
        peers=("rlms", "dspy", "smolagents"),
    ),
    Scenario(
        "membership",
        "how soon a lost node is noticed (root and network namespaces)",
        quick=("--sizes", "3"),
        peers=("serf",),
        peer_flag=None,
    ),
    Scenario(
        "starting",
        "nodes that start together on a busy machine (root and network namespaces)",
        quick=("--nodes", "4", "--busy-loops", "4"),
    ),
    Scenario(
        "detectors",
        "the same in large meshes, simulated",
        quick=("--sizes", "16", "50", "--crashes", "4", "--node-hours", "4"),
    ),
    Scenario(
        "nodes",
        "start, discovery, programs, an idle node",
        quick=("--runs", "2", "--programs", "10"),
    ),
    Scenario(
        "tasks",
        "tasks without work, and what a lost device costs",
        quick=("--writes", "300", "--tasks", "50", "--kills", "3"),
    ),
    Scenario(
        "http",
        "what the HTTP face costs",
        quick=("--runs", "1", "--requests", "100", "--seconds", "2"),
    ),
    Scenario("batches", "a batch over devices of unlike speed", quick=("--runs", "1")),
    Scenario("calls", "what a model call costs in functions called"),
    Scenario("dashboard", "what the dashboard costs a browser", quick=("--runs", "1")),
    Scenario("models", "model servers found, and failed ones replaced", quick=("--runs", "1")),
    Scenario("folding", "planted facts that survive a fold"),
    Scenario("finding", "the fold that may answer a question", quick=("--seeds", "1")),
    Scenario("trust", "what trust costs", quick=("--runs", "1")),
)
