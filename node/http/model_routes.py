"""The routes of model calls: OpenAI's, Anthropic's and Ollama's, each with its own errors."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from functools import partial

import trio

from kowalski import __version__
from kowalski.mesh.mesh import Mesh
from kowalski.node.control import Verb
from kowalski.node.core.lately_served import LatelyServed
from kowalski.node.http.completions import Completions, Wording, new_name, remaining_s
from kowalski.node.http.events import EVENT_STREAM
from kowalski.node.http.exchange import Exchange, HttpError
from kowalski.node.http.faces import (
    anthropic,
    ollama,
    openai_replies,
    openai_requests,
    responses_replies,
    responses_requests,
)
from kowalski.node.http.faces.words import (
    ANY_MODEL_NAMES,
    Asked,
    Lenient,
    http_error,
    schema_of,
)
from kowalski.node.http.mesh_models import (
    MeshModel,
    anthropic_row,
    find,
    just_gone,
    mesh_models,
    ollama_row,
    ollama_show,
    openai_row,
)
from kowalski.node.http.routing import Route, RoutedHandler
from kowalski.node.services.placed_work import Embeddings, PlacedWork
from kowalski.protocol.errors import KowalskiError, RequestRefusedError
from kowalski.protocol.messages.inference import EmbeddingsAsked
from kowalski.rlm.tokens import estimate_tokens

RETRY_AFTER_S = "5"
"""Where a model has gone with its peer, which is back soon or not at all."""

LINES = "application/x-ndjson"

STREAMED: Mapping[str, str] = {
    "/v1/chat/completions": EVENT_STREAM,
    "/v1/completions": EVENT_STREAM,
    "/v1/messages": EVENT_STREAM,
    "/api/chat": LINES,
    "/api/generate": LINES,
}
"""By path: the type of an answer in pieces."""


@dataclass(frozen=True, slots=True)
class ModelRoutes:
    """Answers what clients of model servers ask, with the models of the mesh."""

    mesh: Mesh
    work: PlacedWork
    completions: Completions
    unix_clock: Callable[[], float]
    verbs: Mapping[str, Verb]
    _lately: LatelyServed = field(default_factory=LatelyServed)

    def routes(self) -> tuple[Route, ...]:
        return (*self._openai(), *self._anthropic(), *self._ollama())

    # --- OpenAI -----------------------------------------------------------------------------------

    def _openai(self) -> tuple[Route, ...]:
        def route(method: str, path: str, handler: RoutedHandler, summary: str) -> Route:
            told = _telling(handler, openai_replies.error_answer)
            body = _body(path, openai_requests.BODIES, "OpenAI")
            streamed = STREAMED.get(path, "")
            return Route(
                method, path, told, summary, "OpenAI", body, (), streamed, openai_requests.REFERENCE
            )

        return (
            route("GET", "/v1/models", self._list, "The models that can be used now"),
            route("GET", "/v1/models/{model+}", self._one, "One of them"),
            route("POST", "/v1/chat/completions", self._chat, "A chat completion"),
            route("POST", "/v1/completions", self._plain, "A text gone on with"),
            route("POST", "/v1/embeddings", self._embed, "Vectors of texts"),
            Route(
                "POST",
                "/v1/responses",
                _telling(self._response, openai_replies.error_answer),
                "A response, of which nothing is kept",
                "OpenAI",
                _body("/v1/responses", responses_requests.BODIES, "OpenAIResponses"),
                (),
                EVENT_STREAM,
                responses_requests.REFERENCE,
            ),
        )

    async def _list(self, exchange: Exchange, _parts: Mapping[str, str]) -> None:
        if "anthropic-version" in exchange.request.headers:
            rows = [anthropic_row(one, self.unix_clock()) for one in self._models()]
            await exchange.answer_json({"data": rows, "has_more": False})
            return
        rows = [openai_row(one, int(self.unix_clock())) for one in self._models()]
        await exchange.answer_json({"object": "list", "data": rows})

    async def _one(self, exchange: Exchange, parts: Mapping[str, str]) -> None:
        model = self._find(parts["model"])
        await exchange.answer_json(openai_row(model, int(self.unix_clock())))

    async def _chat(self, exchange: Exchange, _parts: Mapping[str, str]) -> None:
        body = await exchange.json()
        asked = openai_requests.chat_asked(body, remaining_s=remaining_s(exchange))
        name, created = new_name(), int(self.unix_clock())

        def stream(model: str) -> openai_replies.ChatStream:
            usage = asked.wants_usage
            return openai_replies.ChatStream(name, created, model, wants_usage=usage)

        wording = Wording(
            lambda whole: openai_replies.chat_answer(name, created, whole), stream, EVENT_STREAM
        )
        await self._answer(exchange, asked, wording)

    async def _plain(self, exchange: Exchange, _parts: Mapping[str, str]) -> None:
        body = await exchange.json()
        asked = openai_requests.plain_asked(body, remaining_s=remaining_s(exchange))
        name, created = new_name(), int(self.unix_clock())

        def stream(model: str) -> openai_replies.PlainStream:
            usage = asked.wants_usage
            return openai_replies.PlainStream(name, created, model, wants_usage=usage)

        wording = Wording(
            lambda whole: openai_replies.plain_answer(name, created, whole), stream, EVENT_STREAM
        )
        await self._answer(exchange, asked, wording)

    async def _response(self, exchange: Exchange, _parts: Mapping[str, str]) -> None:
        body = await exchange.json()
        asked, echo = responses_requests.response_asked(body, remaining_s=remaining_s(exchange))
        name, created = new_name(), int(self.unix_clock())
        wording = Wording(
            lambda whole: responses_replies.response_answer(name, created, echo, whole),
            lambda model: responses_replies.ResponseStream(name, created, echo, model),
            EVENT_STREAM,
        )
        await self._answer(exchange, asked, wording)

    async def _embed(self, exchange: Exchange, _parts: Mapping[str, str]) -> None:
        body = await exchange.json()
        asked, in_base64 = openai_requests.embeddings_asked(body, remaining_s=remaining_s(exchange))
        found = await self._embeddings(asked)
        await exchange.answer_json(
            openai_replies.embeddings_answer(
                found.vectors, found.done.model, found.done.usage, in_base64=in_base64
            )
        )

    # --- Anthropic --------------------------------------------------------------------------------

    def _anthropic(self) -> tuple[Route, ...]:
        def route(path: str, handler: RoutedHandler, summary: str) -> Route:
            told = _telling(handler, anthropic.error_answer)
            body = _body(path, anthropic.BODIES, "Anthropic")
            streamed = STREAMED.get(path, "")
            return Route(
                "POST", path, told, summary, "Anthropic", body, (), streamed, anthropic.REFERENCE
            )

        return (
            route("/v1/messages", self._messages, "A message"),
            route("/v1/messages/count_tokens", self._count, "About how many tokens it would be"),
        )

    async def _messages(self, exchange: Exchange, _parts: Mapping[str, str]) -> None:
        body = await exchange.json()
        asked = anthropic.messages_asked(body, remaining_s=remaining_s(exchange))
        name = new_name()
        wording = Wording(
            lambda whole: anthropic.messages_answer(name, whole),
            lambda model: anthropic.MessageStream(name, model),
            EVENT_STREAM,
        )
        await self._answer(exchange, asked, wording)

    async def _count(self, exchange: Exchange, _parts: Mapping[str, str]) -> None:
        text = anthropic.counted_text(await exchange.json())
        await exchange.answer_json({"input_tokens": estimate_tokens(text)})

    # --- Ollama -----------------------------------------------------------------------------------

    def _ollama(self) -> tuple[Route, ...]:
        def route(method: str, path: str, handler: RoutedHandler, summary: str) -> Route:
            told = _telling(handler, ollama.error_answer)
            body = _body(path, ollama.BODIES, "Ollama")
            streamed = STREAMED.get(path, "")
            return Route(
                method, path, told, summary, "Ollama", body, (), streamed, ollama.REFERENCE
            )

        return (
            route("GET", "/api/version", self._version, "Which version this is"),
            route("GET", "/api/tags", self._tags, "The models that can be used now"),
            route("GET", "/api/ps", self._loaded, "Those of them that are loaded somewhere"),
            route("POST", "/api/show", self._show, "What is known of one"),
            route("POST", "/api/chat", self._ollama_chat, "A chat"),
            route("POST", "/api/generate", self._generate, "A text gone on with"),
            route("POST", "/api/embed", self._ollama_embed, "Vectors of texts"),
            route("POST", "/api/embeddings", self._ollama_embeddings, "The vector of one text"),
        )

    async def _version(self, exchange: Exchange, _parts: Mapping[str, str]) -> None:
        await exchange.answer_json({"version": __version__})

    async def _tags(self, exchange: Exchange, _parts: Mapping[str, str]) -> None:
        rows = [ollama_row(one, self.unix_clock()) for one in self._models()]
        await exchange.answer_json({"models": rows})

    async def _loaded(self, exchange: Exchange, _parts: Mapping[str, str]) -> None:
        rows = [ollama_row(one, self.unix_clock()) for one in self._models() if one.warm]
        await exchange.answer_json({"models": rows})

    async def _show(self, exchange: Exchange, _parts: Mapping[str, str]) -> None:
        body = await exchange.json()
        name = body.get("model") or body.get("name")
        if not isinstance(name, str):
            raise HttpError(400, "invalid_request", "model: missing")
        await exchange.answer_json(ollama_show(self._find(name)))

    async def _ollama_chat(self, exchange: Exchange, _parts: Mapping[str, str]) -> None:
        body = await exchange.json()
        asked = ollama.chat_asked(body, remaining_s=remaining_s(exchange))
        await self._lines(exchange, body, asked, is_chat=True)

    async def _generate(self, exchange: Exchange, _parts: Mapping[str, str]) -> None:
        body = await exchange.json()
        asked = ollama.generate_asked(body, remaining_s=remaining_s(exchange))
        await self._lines(exchange, body, asked, is_chat=False)

    async def _lines(
        self, exchange: Exchange, body: Mapping[str, object], asked: Asked | None, *, is_chat: bool
    ) -> None:
        now = self.unix_clock()
        if asked is None:
            model = self._find(str(body.get("model", "")))
            if is_unloaded := ollama.is_unloading(body):
                await self._unload(model)
            told = ollama.loaded_answer(model.name, now, is_chat=is_chat, is_unloaded=is_unloaded)
            await exchange.answer_json(told)
            return
        whole = ollama.chat_answer if is_chat else ollama.generate_answer
        wording = Wording(
            lambda answered: whole(now, answered),
            lambda model: ollama.LineStream(model, now, is_chat=is_chat),
            LINES,
        )
        await self._answer(exchange, asked, wording)

    async def _unload(self, model: MeshModel) -> None:
        """From the memory of all that hold it and unload models. Raises HttpError: none does."""
        unload = self.verbs.get("unload")
        if unload is None:
            raise HttpError(501, "unsupported", "this node unloads no models")
        refusals: list[KowalskiError] = []
        for peer in model.warm:
            try:
                await unload({"model": model.name, "on": peer}, _unheard)
            except KowalskiError as no:
                refusals.append(no)
        if refusals and len(refusals) == len(model.warm):
            raise http_error(refusals[0]) from refusals[0]

    async def _ollama_embed(self, exchange: Exchange, _parts: Mapping[str, str]) -> None:
        asked = ollama.embed_asked(await exchange.json(), remaining_s=remaining_s(exchange))
        found = await self._embeddings(asked)
        await exchange.answer_json(ollama.embed_answer(found.vectors, found.done))

    async def _ollama_embeddings(self, exchange: Exchange, _parts: Mapping[str, str]) -> None:
        asked = ollama.embed_asked(await exchange.json(), remaining_s=remaining_s(exchange))
        found = await self._embeddings(asked)
        await exchange.answer_json({"embedding": openai_replies.floats(found.vectors[0])})

    # --- all of them ------------------------------------------------------------------------------

    def _models(self) -> tuple[MeshModel, ...]:
        return mesh_models(self.mesh.facts())

    def _find(self, name: str) -> MeshModel:
        """Raises HttpError: 404; 503 where it was to be had a moment ago."""
        facts = self.mesh.facts()
        models = mesh_models(facts)
        found = find(name, models)
        if found is not None:
            return found
        known = ", ".join(one.name for one in models[:8]) or "none"
        gone = just_gone(name, facts)
        if gone or self._lately.was(name, trio.current_time()):
            who = ", ".join(one.name for one in gone[:4]) or "who answered with it a moment ago"
            raise HttpError(
                503,
                "model_gone",
                f"the model {name[:80]!r} cannot be had now: {who} cannot be asked for it; "
                f"there is: {known}",
                headers=(("retry-after", RETRY_AFTER_S),),
            )
        raise HttpError(
            404, "model_not_found", f"no peer has the model {name[:80]!r}; there is: {known}"
        )

    async def _answer(self, exchange: Exchange, asked: Asked, wording: Wording) -> None:
        try:
            await self.completions.answer(exchange, asked, wording)
            self._lately.note(asked.completion.model, trio.current_time())
        except (HttpError, RequestRefusedError) as no:
            self._look_for(asked.completion.model, no)
            raise

    async def _embeddings(self, asked: EmbeddingsAsked) -> Embeddings:
        try:
            found = await self.work.embed(asked)
        except RequestRefusedError as no:
            self._look_for(asked.model, no)
            raise
        self._lately.note(asked.model, trio.current_time())
        return found

    def _look_for(self, model: str, no: HttpError | RequestRefusedError) -> None:
        """Tell a model that nobody has (404) from one whose peers are not to be had now (503)."""
        reason = no.code if isinstance(no, HttpError) else no.reason
        if reason == "no_peer" and model not in ANY_MODEL_NAMES:
            self._find(model)


def _body(
    path: str, bodies: Mapping[str, type[Lenient]], face: str
) -> Callable[[], Mapping[str, object]]:
    """What makes the schema of a request, see `Route.body`."""
    return partial(schema_of, bodies[path], face) if path in bodies else dict


def _telling(
    handler: RoutedHandler, error_answer: Callable[[HttpError], Mapping[str, object]]
) -> RoutedHandler:
    """`handler`, whose errors are told in its clients' language."""

    async def telling(exchange: Exchange, parts: dict[str, str]) -> None:
        try:
            await _raising_http(handler(exchange, parts))
        except HttpError as error:
            if exchange.has_begun:
                raise
            answer = error_answer(error)
            await exchange.answer_json(answer, error.status, headers=error.headers)

    return telling


async def _unheard(_said: dict[str, object]) -> None:
    await trio.lowlevel.checkpoint()


async def _raising_http(work: Awaitable[None]) -> None:
    try:
        await work
    except KowalskiError as error:
        raise http_error(error) from error
