"""mcp: the mesh as tools for an agent that starts this command and speaks over its streams."""

from __future__ import annotations

import json
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from tempfile import TemporaryDirectory
from threading import Lock
from typing import TYPE_CHECKING

import click

from kowalski.node.cli_session import Session, with_session

if TYPE_CHECKING:
    from collections.abc import Callable

    from kowalski.node.control_client import HangingUp
    from kowalski.node.mcp import Call

    Event = dict[str, object]
    Hear = Callable[[Event], None]
    Converse = Callable[[str, Event, Hear, HangingUp], Event]

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

    def ask(verb: str, request: Event, on_event: Hear, hanging_up: HangingUp) -> Event:
        return converse(
            path, verb, request, on_event=on_event, silence_s=SILENCE_S, hanging_up=hanging_up
        )

    McpStreams(ask).serve()


class McpStreams:
    """Reads one message a line, and writes one a line; calls run beside each other."""

    def __init__(self, converse: Converse) -> None:
        self._converse = converse
        self._turn = Lock()
        self._under_way: dict[str, HangingUp] = {}

    def serve(self) -> None:
        """Until stdin ends; calls under way are finished."""
        from kowalski.node import mcp as words
        from kowalski.node.control_client import HangingUp

        with ThreadPoolExecutor(CALLS_AT_A_TIME) as pool:
            while line := sys.stdin.readline(LINE_CHARS_MAX):
                message = words.read(line) if line.strip() else None
                if isinstance(message, words.Call):
                    hanging_up = self._under_way[repr(message.id)] = HangingUp()
                    pool.submit(self._call, message, hanging_up)
                elif isinstance(message, words.Cancelled):
                    if (one := self._under_way.get(repr(message.id))) is not None:
                        one.ask()
                elif message is not None:
                    self._say(message)

    def _call(self, call: Call, hanging_up: HangingUp) -> None:
        from kowalski.node import mcp as words
        from kowalski.protocol.errors import KowalskiError

        outputs: dict[str, str] = {}
        tasks: list[str] = []
        count = 0

        def hear(event: Event) -> None:
            nonlocal count
            if event.get("kind") == "submitted":
                tasks.append(str(event["task"]))
            if event.get("kind") == "output":
                stream = str(event.get("stream"))
                outputs[stream] = outputs.get(stream, "") + str(event.get("text", ""))
            if call.progress is not None and (told := words.progress_words(event)):
                count += 1
                self._say(words.progress(call, count, told))

        try:
            with TemporaryDirectory(prefix="kowalski-mcp-") as folder:
                request = _with_files(call.request, folder)
                told = self._converse(call.verb, request, hear, hanging_up)
            reply = words.result(call, told, outputs)
        except KowalskiError as error:
            reply = words.call_failed(call, str(error))
        self._under_way.pop(repr(call.id), None)
        if not hanging_up.is_asked:
            self._say(reply)  # what is cancelled has no reply
            return
        for task in tasks:  # nobody waits for it any more, but it would go on
            with suppress(KowalskiError):
                self._converse("cancel", {"task": task}, lambda _event: None, type(hanging_up)())

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
