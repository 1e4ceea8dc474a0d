"""mcp: the mesh as tools for an agent that starts this command and speaks over its streams."""

from __future__ import annotations

import json
import sys
from concurrent.futures import ThreadPoolExecutor
from tempfile import TemporaryDirectory
from threading import Lock
from typing import TYPE_CHECKING

import click

from kowalski.node.cli_session import Session, with_session

if TYPE_CHECKING:
    from collections.abc import Callable

    from kowalski.node.mcp import Call

    Event = dict[str, object]
    Converse = Callable[[str, Event, Callable[[Event], None]], Event]

CALLS_AT_A_TIME = 8
SILENCE_S = 3600.0
"""A model may think for long before it says anything."""

LINE_CHARS_MAX = 16 * 1024 * 1024


@click.command()
@with_session
def mcp(session: Session) -> None:
    """Offer submit, run, ask and fold to an agent by MCP.

    It speaks on stdin and stdout. The same is at http://127.0.0.1:4171/mcp while the node runs.
    """
    from kowalski.node.control_client import converse

    path = session.control_path()

    def ask(verb: str, request: Event, on_event: Callable[[Event], None]) -> Event:
        return converse(path, verb, request, on_event=on_event, silence_s=SILENCE_S)

    McpStreams(ask).serve()


class McpStreams:
    """Reads one message a line, and writes one a line; calls run beside each other."""

    def __init__(self, converse: Converse) -> None:
        self._converse = converse
        self._turn = Lock()
        self._cancelled: set[str] = set()

    def serve(self) -> None:
        """Until stdin ends; calls under way are finished."""
        from kowalski.node import mcp as words

        with ThreadPoolExecutor(CALLS_AT_A_TIME) as pool:
            while line := sys.stdin.readline(LINE_CHARS_MAX):
                message = words.read(line) if line.strip() else None
                if isinstance(message, words.Call):
                    pool.submit(self._call, message)
                elif isinstance(message, words.Cancelled):
                    self._cancelled.add(repr(message.id))
                elif message is not None:
                    self._say(message)

    def _call(self, call: Call) -> None:
        from kowalski.node import mcp as words
        from kowalski.protocol.errors import KowalskiError

        outputs: dict[str, str] = {}
        count = 0

        def hear(event: Event) -> None:
            nonlocal count
            if event.get("kind") == "output":
                stream = str(event.get("stream"))
                outputs[stream] = outputs.get(stream, "") + str(event.get("text", ""))
            if call.progress is not None and (told := words.progress_words(event)):
                count += 1
                self._say(words.progress(call, count, told))
            if repr(call.id) in self._cancelled:
                raise InterruptedError  # closes the connection, which cancels the request

        try:
            with TemporaryDirectory(prefix="kowalski-mcp-") as folder:
                told = self._converse(call.verb, _with_files(call.request, folder), hear)
            self._say(words.result(call, told, outputs))
        except InterruptedError:
            return  # a cancelled request has no answer
        except KowalskiError as error:
            self._say(words.call_failed(call, str(error)))

    def _say(self, message: Event) -> None:
        with self._turn:
            sys.stdout.write(json.dumps(message, separators=(",", ":")) + "\n")
            sys.stdout.flush()


def _with_files(request: Event, folder: str) -> Event:
    """Texts of the context as files, which is how the node takes them."""
    from pathlib import Path

    context = request.get("context")
    if not isinstance(context, list):
        return request
    kept = []
    for number, one in enumerate(context):
        path = Path(folder) / str(number)
        path.write_text(str(one.get("text", "")), encoding="utf-8", errors="replace")
        kept.append({"name": str(one.get("name", number)), "path": str(path)})
    return {**request, "context": kept}
