"""A worker behind NATS for `benchmarks.cell_peers`: `PYTHON -m benchmarks.cell_nats URL`."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import nats  # type: ignore[import-not-found]

from benchmarks.cell_peers import executed


async def main(url: str) -> None:
    client = await nats.connect(url)

    async def answer(asked: Any) -> None:  # noqa: ANN401 a message of theirs
        await asked.respond(executed(asked.data.decode()).encode())

    await client.subscribe("programs", queue="workers", cb=answer)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
