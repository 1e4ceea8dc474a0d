"""A reader without weights answers questions about much data: `python -m tests.soak.reading`.

A real node in a process of its own, a real sandbox, the reader behind HTTP. Tells of each question
whether it was answered exactly, what was asked of the model and counted, and what memory it took.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil
import trio

from kowalski import ExecutionResult, Kowalski
from kowalski.node import places
from kowalski.node_link import NodeLink
from tests.rule_based_reader import Hay, make_hay, questions, read
from tests.scripted_model_server import Script, ScriptedModelServer, open_scripted_server


@dataclass(frozen=True, slots=True)
class Reading:
    """One question about the data, and how it went."""

    question: str
    wanted: str
    result: ExecutionResult
    served: int
    """Calls that the reader itself counted."""
    seconds: float
    rss_bytes: int
    """Of the node, afterwards; what it had before any data came is in it."""

    @property
    def is_exact(self) -> bool:
        return self.result.text == self.wanted


@dataclass(frozen=True, slots=True)
class ReadingRoom:
    server: ScriptedModelServer
    kowalski: Kowalski
    node: psutil.Process

    async def ask_all(self, hay: Hay) -> AsyncIterator[Reading]:
        for question, wanted in questions(hay):
            before, began = self.server.stats.calls, time.perf_counter()
            result = await self.kowalski.execute(
                question, mode="rlm", context=hay.text, cell_timeout_s=300.0
            )
            yield Reading(
                question,
                wanted,
                result,
                self.server.stats.calls - before,
                time.perf_counter() - began,
                self.node.memory_info().rss,
            )


@asynccontextmanager
async def open_reading_room(folder: Path) -> AsyncIterator[ReadingRoom]:
    async with open_scripted_server(Script(function=read)) as server:
        data_dir = folder / "node"
        builder = Kowalski.builder().with_own_node("--backend", server.url).with_node(data_dir)
        async with builder.build() as kowalski:
            status = await NodeLink(places.control_path(data_dir)).ask("status")
            yield ReadingRoom(server, kowalski, psutil.Process(int(str(status["pid"]))))


async def _read_all(megabytes: list[int]) -> bool:
    is_all_right = True
    for size in megabytes:
        hay = make_hay(size * 1_000_000)
        with TemporaryDirectory() as made:
            async with open_reading_room(Path(made)) as room:
                before = room.node.memory_info().rss
                async for one in room.ask_all(hay):
                    told = one.result.metrics
                    grown = (one.rss_bytes - before) / len(hay.text)
                    right = one.is_exact and told.attempts == one.served
                    is_all_right &= right
                    sys.stdout.write(
                        f"{size:4} MB  {'exact' if one.is_exact else 'WRONG':5}"
                        f"  {told.attempts} requests told, {one.served} served"
                        f"  {one.seconds:6.1f} s  node's memory +{grown:.1f} x the data"
                        f"  {one.question}\n"
                    )
                    sys.stdout.flush()
    return is_all_right


def main() -> None:
    arguments = argparse.ArgumentParser(prog="python -m tests.soak.reading", description=__doc__)
    arguments.add_argument("--megabytes", type=int, nargs="*", default=[1, 10, 100])
    options = arguments.parse_args()
    if not trio.run(_read_all, options.megabytes):
        raise SystemExit("not all were answered exactly")


if __name__ == "__main__":
    main()
