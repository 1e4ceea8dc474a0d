from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from kowalski.node.repl.languages import probe_languages
from tests.node.repl.rooms import Talk, kernel_source, sandbox_for, talk_to

pytestmark = [pytest.mark.real, pytest.mark.trio]


@asynccontextmanager
async def typescript() -> AsyncIterator[Talk]:
    async with kernel_source(sandbox_for("typescript")) as source:
        probe = await probe_languages(source, ("typescript",))
    if why := probe.failures.get("typescript"):
        pytest.skip(f"no typescript here: {why}")
    async with talk_to("typescript") as cell:
        yield cell


async def test_types_are_taken_off_and_state_stays() -> None:
    async with typescript() as cell:
        await cell(
            "interface Point { x: number }\n"
            "enum Colour { Red = 3, Green }\n"
            "const p: Point = { x: 1 };\n"
            "function twice<T extends number>(n: T): number { return n * 2 }\n"
            "class Box {\n"
            "  constructor(private readonly inside: string) {}\n"
            "  get() { return this.inside }\n"
            "}"
        )
        found = await cell("[twice(p.x as number), Colour.Green, new Box('b').get()]")
        assert found.value == "[ 2, 4, 'b' ]", found.error
        assert (await cell("const p: number = 5; p")).value == "5"


async def test_imports_and_queries_work_and_wrong_syntax_is_told() -> None:
    async with typescript() as cell:
        outcome = await cell("import * as path from 'path'; path.join('a', llm_query('b'))")
        assert outcome.value == "'a/B'", outcome.error
        assert "SyntaxError" in ((await cell("const x: = 1")).error or "")
