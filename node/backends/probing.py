"""Which model servers are here, and which kind each is.

Servers copy parts of each other's API (llama-server, LM Studio and koboldcpp answer Ollama's
`/api/tags`; exo answers `/v1/models`), so the order of the signs in `recognise` matters. The
environment is not read here: the configuration passes what it found there.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias
from urllib.parse import unquote, urlsplit

import trio

from kowalski.node.backends.exo import ExoBackend, list_exo
from kowalski.node.backends.http import Reply
from kowalski.node.backends.ollama import OllamaBackend
from kowalski.node.backends.openai_http import OpenAiBackend
from kowalski.node.backends.openai_models import (
    ListModels,
    OpenAiServer,
    list_generic,
    list_llama_server,
    list_lm_studio,
    list_vllm,
    with_slots,
)
from kowalski.node.backends.options import parse_options
from kowalski.node.backends.seam import Backend, BackendError
from kowalski.protocol.errors import ConfigError

if TYPE_CHECKING:
    from kowalski.node.backends.http import HttpClient
    from kowalski.node.backends.seam import EstimateTokens

Kind: TypeAlias = Literal["exo", "ollama", "llama-server", "lm-studio", "vllm", "sglang", "openai"]

OLLAMA_PORT = 11434
# What it does at once (OLLAMA_NUM_PARALLEL) it does not tell.
OLLAMA_SLOTS = 1
# What a node's own HTTP interface says it is; asking itself would go round in circles.
OWN_SERVER = "kowalski-node"
USUAL_URLS = (
    f"http://127.0.0.1:{OLLAMA_PORT}",
    "http://127.0.0.1:52415",  # exo
    "http://127.0.0.1:1234",  # LM Studio
    "http://127.0.0.1:8080",  # llama-server
    "http://127.0.0.1:8000",  # vLLM
    "http://127.0.0.1:30000",  # SGLang
)
LIST_BY: Mapping[Kind, ListModels] = {
    "exo": list_exo,
    "llama-server": list_llama_server,
    "lm-studio": list_lm_studio,
    "vllm": list_vllm,
    "sglang": list_vllm,
    "openai": list_generic,
}
PROBE_BODY_BYTES_MAX = 4 * 1024 * 1024
PROBE_PATHS = (
    "/node_id",
    "/",
    "/api/version",
    "/api/tags",
    "/props",
    "/api/v0/models",
    "/version",
    "/get_model_info",
    "models",
)


@dataclass(frozen=True, slots=True)
class Candidate:
    """An address where a model server may be.

    `url` is the root without a trailing slash, `api_url` the base of OpenAI's API. The owner named
    it where `is_explicit`: then its absence deserves a word. `slots`: how many requests the owner
    says that it works on at once.
    """

    url: str
    api_url: str
    api_key: str | None = None
    is_explicit: bool = False
    slots: int | None = None


@dataclass(frozen=True, slots=True)
class Finding:
    """What one candidate turned out to be; `why_not` speaks to a person where `backend` is None.

    `is_stranger`: somebody takes connections there, and is no model server known here.
    """

    url: str
    is_explicit: bool
    kind: Kind | None = None
    backend: Backend | None = None
    why_not: str = ""
    is_stranger: bool = False


def candidates(
    urls: Sequence[str] = (),
    *,
    ollama_host: str | None = None,
    openai_base_url: str | None = None,
    openai_api_key: str | None = None,
    usual_urls: Sequence[str] = USUAL_URLS,
) -> tuple[Candidate, ...]:
    """Every address to look at, once: named ones first, then the usual ports of this device.

    The key goes to `openai_base_url` and nowhere else. Another server's key is the password in its
    address: `http://:KEY@host/v1`.

    Raises:
        ConfigError: an address that is none.
    """
    found: dict[str, Candidate] = {}
    named = [candidate(url, is_explicit=True) for url in urls]
    if openai_base_url:
        # What stands behind it is for other programs.
        url = openai_base_url.partition("?")[0]
        named.append(candidate(url, api_key=openai_api_key, is_explicit=True))
    if ollama_host:
        named.append(candidate(normalise_ollama_host(ollama_host), is_explicit=True))
    for each in (*named, *(candidate(url) for url in usual_urls)):
        # Two names of one address would count its slots twice.
        found.setdefault(each.url.replace("//localhost", "//127.0.0.1"), each)
    return tuple(found.values())


def candidate(url: str, *, api_key: str | None = None, is_explicit: bool = False) -> Candidate:
    """Take an address apart; a missing scheme is http, a missing path `/v1`.

    Behind it may stand `?slots=N`.

    Raises:
        ConfigError: it is no address, or something else stands behind it.
    """
    text, _, query = url.strip().partition("?")
    try:
        parts = urlsplit(text if "://" in text else f"http://{text}")
        host, port = parts.hostname, parts.port
    except ValueError as error:
        raise ConfigError(f"bad backend address {_without_key(url)!r}: {error}") from error
    if parts.scheme not in ("http", "https") or not host:
        raise ConfigError(f"bad backend address {_without_key(url)!r}: not http://host:port")
    origin = f"{parts.scheme}://{_bracketed(host)}" + (f":{port}" if port is not None else "")
    path = parts.path.rstrip("/")
    root = origin + path.removesuffix("/v1")
    # A base such as `/api/v3` or `/openai` is somebody's choice; only a bare host lacks its path.
    api_url = origin + path if path else f"{origin}/v1"
    if parts.password is not None:
        api_key = unquote(parts.password)
    slots = parse_options(_without_key(text), query, ("slots",)).get("slots")
    return Candidate(root, api_url, api_key or None, is_explicit, slots)


def normalise_ollama_host(value: str) -> str:
    """`OLLAMA_HOST` as an address to connect to.

    It is what Ollama's server listens on: scheme and port may be missing, and "every interface"
    (0.0.0.0, ::) means loopback for a client.
    """
    text = value.strip().strip("\"'")
    scheme, _, rest = text.rpartition("://")
    # Ollama's own rule: a scheme without a port brings the scheme's port.
    default_port = {"http": 80, "https": 443}.get(scheme, OLLAMA_PORT)
    authority, slash, path = rest.partition("/")
    if authority.count(":") > 1 and not authority.startswith("["):
        authority = f"[{authority}]"  # A bare IPv6 address has no port.
    host, port = authority, ""
    if ":" in authority and not authority.endswith("]"):
        host, _, port = authority.rpartition(":")
    host = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "[::]": "[::1]"}.get(host, host)  # noqa: S104
    return f"{scheme or 'http'}://{host}:{port or default_port}{slash}{path}".rstrip("/")


async def probe(
    places: Sequence[Candidate],
    *,
    http: HttpClient,
    estimate_tokens: EstimateTokens,
    timeout_s: float = 2.0,
) -> tuple[Finding, ...]:
    """Look at all places at once; one finding each, in their order. Raises nothing."""
    findings: dict[str, Finding] = {}

    async def look(place: Candidate) -> None:
        try:
            # A port that refuses one connection refuses those for the other questions as well.
            await http.connect(place.url, timeout_s=timeout_s)
        except BackendError as error:
            findings[place.url] = Finding(place.url, place.is_explicit, why_not=str(error))
            return
        kind, why_not = await _kind_at(place, http, timeout_s)
        backend = None
        if kind is not None:
            backend = make_backend(place, kind, http=http, estimate_tokens=estimate_tokens)
        findings[place.url] = Finding(
            place.url, place.is_explicit, kind, backend, why_not, is_stranger=kind is None
        )

    async with trio.open_nursery() as nursery:
        for place in places:
            nursery.start_soon(look, place)
    return tuple(findings[place.url] for place in places)


def make_backend(
    place: Candidate, kind: Kind, *, http: HttpClient, estimate_tokens: EstimateTokens
) -> Backend:
    """The backend for a place whose kind is known."""
    if kind == "ollama":
        slots = place.slots or OLLAMA_SLOTS
        return OllamaBackend(place.url, http=http, estimate_tokens=estimate_tokens, slots=slots)
    server = OpenAiServer(kind, place.url, place.api_url, place.api_key)
    of_kind = ExoBackend if kind == "exo" else OpenAiBackend
    list_by = LIST_BY[kind] if place.slots is None else with_slots(LIST_BY[kind], place.slots)
    return of_kind(server, http=http, estimate_tokens=estimate_tokens, list_by=list_by)


def recognise(replies: Mapping[str, Reply]) -> Kind | None:
    """The kind of server that gave these answers, by path; `models` is `/v1/models`."""
    is_ollama = b"Ollama is running" in _body(replies, "/") or (
        "version" in _object(replies, "/api/version") and "models" in _object(replies, "/api/tags")
    )
    # In `Server: llama.cpp` the name may be followed by a build.
    is_llama = any(r.headers.get("server", "").startswith("llama.cpp") for r in replies.values())
    signs: tuple[tuple[Kind, Callable[[], bool]], ...] = (
        ("exo", lambda: isinstance(_json(replies, "/node_id"), str)),
        ("ollama", lambda: is_ollama and not is_llama),
        (
            "llama-server",
            lambda: is_llama or "default_generation_settings" in _object(replies, "/props"),
        ),
        ("lm-studio", lambda: "data" in _object(replies, "/api/v0/models")),
        (
            "vllm",
            lambda: "version" in _object(replies, "/version") and _is_owned_by_vllm(replies),
        ),
        ("sglang", lambda: "model_path" in _object(replies, "/get_model_info")),
        ("openai", lambda: "data" in _object(replies, "models")),
    )
    return next((kind for kind, holds in signs if holds()), None)


async def _kind_at(place: Candidate, http: HttpClient, timeout_s: float) -> tuple[Kind | None, str]:
    replies: dict[str, Reply] = {}
    errors: dict[str, BackendError] = {}
    headers = {"Authorization": f"Bearer {place.api_key}"} if place.api_key else {}

    async def get(path: str) -> None:
        url = f"{place.api_url}/models" if path == "models" else f"{place.url}{path}"
        try:
            replies[path] = await http.fetch(
                url, headers=headers, timeout_s=timeout_s, bytes_max=PROBE_BODY_BYTES_MAX
            )
        except BackendError as error:
            errors[path] = error

    async with trio.open_nursery() as nursery:
        for path in PROBE_PATHS:
            nursery.start_soon(get, path)
    if any(r.headers.get("server", "").startswith(OWN_SERVER) for r in replies.values()):
        return None, "it is a node of a mesh, perhaps this one: not a model server"
    kind = recognise(replies)
    if kind is not None:
        return kind, ""
    models = replies.get("models")
    if models is not None and models.status in (401, 403):
        if place.api_key:
            return None, "it refuses the API key"
        return None, "it wants an API key, none is set"
    if not replies:
        return None, str(next(iter(errors.values())))
    return None, "something answers there, but it is no model server known here"


def _json(replies: Mapping[str, Reply], path: str) -> object:
    reply = replies.get(path)
    if reply is None or reply.status != 200:
        return None
    try:
        return json.loads(reply.body)
    except (ValueError, RecursionError):
        return None


def _object(replies: Mapping[str, Reply], path: str) -> Mapping[str, object]:
    value = _json(replies, path)
    return value if isinstance(value, dict) else {}


def _body(replies: Mapping[str, Reply], path: str) -> bytes:
    reply = replies.get(path)
    return reply.body if reply is not None and reply.status == 200 else b""


def _is_owned_by_vllm(replies: Mapping[str, Reply]) -> bool:
    models = _object(replies, "models").get("data")
    return isinstance(models, list) and any(
        isinstance(entry, dict) and entry.get("owned_by") == "vllm" for entry in models
    )


def _bracketed(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _without_key(url: str) -> str:
    scheme, separator, rest = url.rpartition("://")
    return f"{scheme}{separator}{rest.rpartition('@')[2]}"
