"""A test double: a deterministic model server that speaks OpenAI's HTTP API, or Ollama's.

It runs no model: a script says what each call is answered, and which fault it suffers. It listens
on loopback only. `python -m tests.scripted_model_server --port N` runs it as its own process and
prints one line `{"url": ...}` when it listens; `GET /stats` counts calls and tokens exactly.

A prompt may carry directives, one a line, which win over the script: `ECHO: text` answers the
text, `TOKENS: n` answers n words, `DELAY: s` waits before each token, `FAULT: name [after]`
suffers a fault (see `Fault`) after so many tokens.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import re
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any, Literal, get_args

import h11
import trio

from tests import scripted_models
from tests.scripted_words import OllamaWords, OpenAiWords, Words, embeddings

Flavour = Literal["openai", "ollama"]
Fault = Literal[
    "stall",  # sends nothing any more, until the client leaves
    "keepalive",  # sends comments (Ollama: nothing) for ever
    "error",  # an error object inside the stream, then its regular end
    "eof",  # the body ends without a finish reason
    "hang_up",  # the connection is cut in the middle of the body
    "garbage",  # a line that is no JSON
    "bad_utf8",  # a line that is no UTF-8
    "empty",  # 200 with an empty body
    "busy",  # 429 with Retry-After: 7
    "loading",  # 503 with Retry-After: 7
    "broken",  # 500
    "missing",  # 404
    "bad_request",  # 400
    "no_done",  # a finish reason but neither usage nor [DONE]
    "no_end",  # the same, and the body does not end either
    "silent",  # no answer at all, until the client leaves
]
STATUSES: Mapping[str, tuple[int, str]] = {
    "busy": (429, "too many requests"),
    "loading": (503, "Loading model"),
    "broken": (500, "out of memory"),
    "missing": (404, "no such model"),
    "bad_request": (400, "this request makes no sense"),
}


@dataclasses.dataclass(frozen=True)
class Call:
    """One completion as it was asked for; numbers count from 0."""

    number: int
    root_number: int | None
    model: str
    messages: tuple[dict[str, str], ...]
    body: dict[str, Any]

    @property
    def prompt(self) -> str:
        return "\n".join(text_of(message) for message in self.messages)

    @property
    def last(self) -> str:
        return text_of(self.messages[-1]) if self.messages else ""


def text_of(message: Mapping[str, Any]) -> str:
    """Without its pictures."""
    content = message["content"] or ""
    if isinstance(content, str):
        return content
    return "\n".join(part["text"] for part in content if part["type"] == "text")


@dataclasses.dataclass(frozen=True)
class Act:
    """What one call gets: a text, and what goes wrong after `after` tokens of it."""

    text: str = ""
    fault: Fault | None = None
    after: int = 0
    delay_per_token_s: float = 0.0
    sends_usage: bool = True
    tool_call: tuple[str, str] | None = None
    """A tool's name and its arguments, where the request offers tools."""


@dataclasses.dataclass(frozen=True)
class Script:
    """Who answers, first match wins: `function`, `by_substring` (in the last message), `root`.

    The n-th root call gets `root[n]`, the last one repeats. A root call is one with a system
    message. With `counts_turns` n is the number of assistant messages in the conversation, which
    stays right where several servers share the calls of one task.
    """

    root: tuple[Act | str, ...] = ()
    by_substring: Mapping[str, Act | str] = dataclasses.field(default_factory=dict)
    function: Callable[[Call], Act | str | None] | None = None
    otherwise: Act | str = "ok"
    counts_turns: bool = False

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> Script:
        def act(entry: str | dict[str, Any]) -> Act | str:
            return entry if isinstance(entry, str) else Act(**entry)

        return cls(
            root=tuple(act(entry) for entry in value.get("root", ())),
            by_substring={key: act(entry) for key, entry in value.get("by_substring", {}).items()},
            otherwise=act(value.get("otherwise", "ok")),
            counts_turns=bool(value.get("counts_turns", False)),
        )

    def act_for(self, call: Call) -> Act:
        chosen: Act | str | None = self.function(call) if self.function else None
        if chosen is None:
            matches = (act for part, act in self.by_substring.items() if part in call.last)
            chosen = next(matches, None)
        if chosen is None and self.root and call.root_number is not None:
            turns = sum(message["role"] == "assistant" for message in call.messages)
            number = turns if self.counts_turns else call.root_number
            chosen = self.root[min(number, len(self.root) - 1)]
        if chosen is None:
            chosen = self.otherwise
        act = Act(chosen) if isinstance(chosen, str) else chosen
        return directed(act, call.last)


def directed(act: Act, prompt: str) -> Act:
    """The act as the directives in a prompt change it."""
    for name, value in re.findall(
        r"^(ECHO|TOKENS|DELAY|FAULT|CALL):[ ]?(.*)$", prompt, re.MULTILINE
    ):
        match name:
            case "ECHO":
                act = dataclasses.replace(act, text=value)
            case "TOKENS":
                words = " ".join(f"w{n}" for n in range(int(value)))
                act = dataclasses.replace(act, text=words)
            case "CALL":
                tool, _, arguments = value.partition(" ")
                act = dataclasses.replace(act, text="", tool_call=(tool, arguments or "{}"))
            case "DELAY":
                act = dataclasses.replace(act, delay_per_token_s=float(value))
            case _:
                fault, _, after = value.partition(" ")
                assert fault in get_args(Fault), fault
                act = dataclasses.replace(act, fault=fault, after=int(after or 0))
    return act


def tokens_of(text: str) -> list[str]:
    """One token a word, with the white space before it; joined they are the text again."""
    return re.findall(r"\s*\S+|\s+$", text)


@dataclasses.dataclass
class Stats:
    calls: int = 0
    root_calls: int = 0
    completed: int = 0
    clients_left: int = 0
    in_flight: int = 0
    in_flight_max: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    connections: int = 0


class ClientLeftError(Exception):
    pass


class ScriptedModelServer:
    """Use `open_scripted_server`. `calls` holds every completion that was asked for."""

    def __init__(
        self,
        script: Script,
        *,
        flavour: Flavour,
        models: tuple[str, ...],
        api_key: str | None,
        slots: int,
        keepalive_s: float,
    ) -> None:
        self.script = script
        self.stats = Stats()
        self.calls: list[Call] = []
        self.url = ""
        self.flavour = flavour
        self.models = models
        self._api_key = api_key
        self._slots = trio.CapacityLimiter(slots)
        self._keepalive_s = keepalive_s
        self._changed = trio.Event()

    async def wait_until(self, holds: Callable[[Stats], bool]) -> None:
        """Wait for a fact about the stats."""
        while not holds(self.stats):
            await self._changed.wait()

    def _count(self, **changes: int) -> None:
        for name, change in changes.items():
            setattr(self.stats, name, getattr(self.stats, name) + change)
        self.stats.in_flight_max = max(self.stats.in_flight_max, self.stats.in_flight)
        self._changed.set()
        self._changed = trio.Event()

    async def serve_connection(self, stream: trio.SocketStream) -> None:
        self._count(connections=1)
        async with stream:
            wire = _Wire(stream)
            with contextlib.suppress(
                ClientLeftError,
                trio.BrokenResourceError,
                trio.ClosedResourceError,
                h11.RemoteProtocolError,  # it left in the middle of a request
            ):
                while (request := await wire.next_request()) is not None:
                    await self._answer(wire, *request)
                    if not wire.can_continue():
                        break

    async def _answer(self, wire: _Wire, request: h11.Request, body: bytes) -> None:
        path = request.target.decode().partition("?")[0]
        headers = dict(request.headers)
        if path == "/stats":
            await wire.reply(200, dataclasses.asdict(self.stats))
        elif self._api_key and headers.get(b"authorization") != f"Bearer {self._api_key}".encode():
            await wire.reply(401, {"error": {"message": "invalid api key"}})
        elif request.method == b"GET":
            await self._answer_get(wire, path)
        elif path == "/v1/chat/completions":
            await self._complete(wire, OpenAiWords(), json.loads(body))
        elif path == "/v1/embeddings":
            await wire.reply(200, embeddings(json.loads(body)))
        elif path == "/api/chat" and self.flavour == "ollama":
            await self._complete(wire, OllamaWords(), json.loads(body))
        elif path.startswith("/api/") and self.flavour == "ollama":
            reply = scripted_models.manage(self, path, json.loads(body))
            await wire.reply_bytes(reply.status, reply.body, b"application/x-ndjson")
        else:
            await wire.reply(404, {"error": {"message": f"no route {path}"}})

    async def _answer_get(self, wire: _Wire, path: str) -> None:
        is_ollama = self.flavour == "ollama"
        answers: dict[str, Any] = {
            "/health": {},  # as llama.cpp's, vLLM's and SGLang's servers have it
            "/v1/models": {
                "object": "list",
                "data": [{"id": m, "object": "model", "owned_by": "test"} for m in self.models],
            },
        }
        if is_ollama:
            answers |= {
                "/": "Ollama is running",
                "/api/version": {"version": "0.30.0"},
                "/api/tags": {"models": [{"name": m, "model": m} for m in self.models]},
                "/api/ps": {"models": [{"model": self.models[0], "context_length": 16384}]},
            }
        if path in answers:
            await wire.reply(200, answers[path])
        else:
            await wire.reply(404, {"error": {"message": f"no route {path}"}})

    async def _complete(self, wire: _Wire, words: Words, body: dict[str, Any]) -> None:
        messages = tuple(body["messages"])
        is_root = any(message["role"] == "system" for message in messages)
        root_number = self.stats.root_calls if is_root else None
        call = Call(self.stats.calls, root_number, body["model"], messages, body)
        self.calls.append(call)
        self._count(calls=1, root_calls=int(is_root), in_flight=1)
        act = self.script.act_for(call)
        try:
            async with self._slots:
                await wire.while_client_stays(lambda: self._perform(wire, words, call, act))
        except (ClientLeftError, trio.BrokenResourceError):
            self._count(clients_left=1)
            raise ClientLeftError from None
        finally:
            self._count(in_flight=-1)

    async def _perform(self, wire: _Wire, words: Words, call: Call, act: Act) -> None:
        if act.fault in STATUSES:
            status, message = STATUSES[act.fault]
            extra = [(b"retry-after", b"7")] if status in {429, 503} else []
            await wire.reply(status, words.error(message), extra)
            return
        if call.model not in self.models:
            await wire.reply(404, words.error(f"model {call.model!r} not found"))
            return
        if act.fault == "silent":
            await trio.sleep_forever()
        if act.fault == "empty":
            await wire.reply_bytes(200, b"", words.content_type)
            return
        await self._perform_answer(wire, words, call, act)

    async def _perform_answer(self, wire: _Wire, words: Words, call: Call, act: Act) -> None:
        prompt_tokens = sum(len(tokens_of(text_of(one))) for one in call.messages)
        if act.tool_call is not None and call.body.get("tools"):
            await wire.open_body(words.content_type)
            await wire.send(words.tool_call(call.model, *act.tool_call))
            await wire.send(words.end(call.model, "tool_calls", (prompt_tokens, 1)))
            await wire.close_body()
            self._count(completed=1, prompt_tokens=prompt_tokens, completion_tokens=1)
            return
        tokens = tokens_of(act.text)
        limit = words.max_tokens(call.body)
        reason = "stop" if limit is None or len(tokens) <= limit else "length"
        tokens = tokens[:limit]
        self._count(prompt_tokens=prompt_tokens)
        usage = (prompt_tokens, len(tokens)) if act.sends_usage else None
        if not words.is_streamed(call.body):
            for _ in tokens:
                await trio.sleep(act.delay_per_token_s)
            await wire.reply(200, words.whole(call.model, "".join(tokens), reason, usage))
        else:
            await wire.open_body(words.content_type)
            for number, token in enumerate(tokens):
                if act.fault and number == act.after:
                    break
                await trio.sleep(act.delay_per_token_s)
                await wire.send(words.token(call.model, token))
                self._count(completion_tokens=1)
            if act.fault:
                await self._suffer(wire, words, act.fault)
                return
            wants_usage = words.wants_usage(call.body)
            await wire.send(words.end(call.model, reason, usage if wants_usage else None))
            await wire.close_body()
            tokens = []
        self._count(completed=1, completion_tokens=len(tokens))

    async def _suffer(self, wire: _Wire, words: Words, fault: Fault) -> None:
        match fault:
            case "stall":
                await trio.sleep_forever()
            case "keepalive":
                while True:
                    await wire.send(words.comment())
                    await trio.sleep(self._keepalive_s)
            case "hang_up":
                await wire.stream.aclose()
                return
            case "error":
                await wire.send(words.error_line("the runner crashed"))
            case "garbage":
                await wire.send(words.line(b'{"half": '))
            case "bad_utf8":
                await wire.send(words.line(b'{"x": "\xff\xfe"}'))
            case "no_done":
                await wire.send(words.end_without_usage())
            case "no_end":
                await wire.send(words.end_without_usage())
                await trio.sleep_forever()
            case _:
                assert fault == "eof"
        await wire.close_body()


class _Wire:
    """h11 over one connection; what the client sends too early waits for the next request."""

    def __init__(self, stream: trio.SocketStream) -> None:
        self.stream = stream
        self._h11 = h11.Connection(h11.SERVER)
        self._early = bytearray()

    async def next_request(self) -> tuple[h11.Request, bytes] | None:
        request: h11.Request | None = None
        body = bytearray()
        while True:
            event = self._h11.next_event()
            if event is h11.NEED_DATA:
                data = bytes(self._early) or await self.stream.receive_some(65536)
                self._early.clear()
                self._h11.receive_data(data)
            elif isinstance(event, h11.Request):
                request = event
            elif isinstance(event, h11.Data):
                body += event.data
            elif isinstance(event, h11.EndOfMessage):
                assert request is not None
                return request, bytes(body)
            else:
                return None

    def can_continue(self) -> bool:
        if self._h11.our_state is h11.DONE and self._h11.their_state is h11.DONE:
            self._h11.start_next_cycle()
            return True
        return False

    async def while_client_stays(self, work: Callable[[], Any]) -> None:
        """Do the work; the client's hang-up ends it at once with `ClientLeftError`."""
        has_left = False
        async with trio.open_nursery() as nursery:

            async def watch() -> None:
                nonlocal has_left
                with contextlib.suppress(trio.BrokenResourceError, trio.ClosedResourceError):
                    while data := await self.stream.receive_some(65536):
                        self._early += data
                has_left = True
                nursery.cancel_scope.cancel()

            nursery.start_soon(watch)
            try:
                await work()
            except (trio.BrokenResourceError, trio.ClosedResourceError):
                has_left = True
            nursery.cancel_scope.cancel()
        if has_left:
            raise ClientLeftError

    async def reply(
        self, status: int, value: object, extra: list[tuple[bytes, bytes]] | None = None
    ) -> None:
        is_text = isinstance(value, str)
        body = value.encode() if isinstance(value, str) else json.dumps(value).encode()
        await self.reply_bytes(
            status, body, b"text/plain" if is_text else b"application/json", extra
        )

    async def reply_bytes(
        self,
        status: int,
        body: bytes,
        content_type: bytes,
        extra: list[tuple[bytes, bytes]] | None = None,
    ) -> None:
        length = (b"content-length", str(len(body)).encode())
        headers = [(b"content-type", content_type), length, *(extra or [])]
        sent = self._h11.send(h11.Response(status_code=status, headers=headers))
        sent += self._h11.send(h11.Data(data=body))
        sent += self._h11.send(h11.EndOfMessage())
        await self.stream.send_all(sent)

    async def open_body(self, content_type: bytes) -> None:
        headers = [(b"content-type", content_type), (b"transfer-encoding", b"chunked")]
        await self.stream.send_all(
            self._h11.send(h11.Response(status_code=200, headers=headers)) or b""
        )

    async def send(self, data: bytes) -> None:
        if data:
            await self.stream.send_all(self._h11.send(h11.Data(data=data)) or b"")

    async def close_body(self) -> None:
        await self.stream.send_all(self._h11.send(h11.EndOfMessage()) or b"")


@contextlib.asynccontextmanager
async def open_scripted_server(
    script: Script | str = "ok",
    *,
    flavour: Flavour = "openai",
    models: tuple[str, ...] = ("scripted",),
    api_key: str | None = None,
    slots: int = 64,
    keepalive_s: float = 0.05,
    port: int = 0,
) -> AsyncIterator[ScriptedModelServer]:
    """Serve on loopback until the block ends; a bare text answers every call."""
    server = ScriptedModelServer(
        Script(otherwise=script) if isinstance(script, str) else script,
        flavour=flavour,
        models=models,
        api_key=api_key,
        slots=slots,
        keepalive_s=keepalive_s,
    )
    listeners = await trio.open_tcp_listeners(port, host="127.0.0.1")
    server.url = f"http://127.0.0.1:{listeners[0].socket.getsockname()[1]}"
    async with trio.open_nursery() as nursery:
        nursery.start_soon(trio.serve_listeners, server.serve_connection, listeners)
        try:
            yield server
        finally:
            nursery.cancel_scope.cancel()


async def run(arguments: argparse.Namespace) -> None:
    script = Script()
    if arguments.script is not None:
        text = await trio.Path(arguments.script).read_text()
        script = Script.from_json(json.loads(text))
    async with open_scripted_server(
        script,
        flavour=arguments.flavour,
        models=tuple(arguments.model or ("scripted",)),
        api_key=arguments.api_key,
        slots=arguments.slots,
        port=arguments.port,
    ) as server:
        print(json.dumps({"url": server.url}), flush=True)  # noqa: T201
        await trio.sleep_forever()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--flavour", choices=get_args(Flavour), default="openai")
    parser.add_argument("--model", action="append", help="may be given several times")
    parser.add_argument("--script", type=Path, help="JSON: root, by_substring, otherwise")
    parser.add_argument("--api-key")
    parser.add_argument("--slots", type=int, default=64)
    with contextlib.suppress(KeyboardInterrupt):
        trio.run(run, parser.parse_args())


if __name__ == "__main__":
    main()
