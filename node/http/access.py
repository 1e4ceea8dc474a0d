"""Who may speak to the HTTP server: pure rules over the head of a request.

On loopback anybody on this machine may; a browser there may be led by a stranger's page, so the
names in `Host` and `Origin` are checked (DNS rebinding, cross-site requests). From anywhere else
the token is needed as well. A page that the owner lets in is answered by the Fetch standard
(https://fetch.spec.whatwg.org/#http-cors-protocol), errors included.
"""

from __future__ import annotations

import hmac
import ipaddress
import re
from dataclasses import dataclass
from functools import lru_cache
from urllib.parse import urlsplit

from kowalski.node.http.exchange import Headers, HttpError, Request

COOKIE = "kowalski_token"
LOCAL_NAMES = frozenset({"localhost"})
PREFLIGHT_S = 600
READABLE = (
    "retry-after, x-request-id, x-kowalski-peer, x-kowalski-name, x-kowalski-attempts, "
    "x-kowalski-reason, mcp-session-id"
)
"""Headers of answers that pages may see; browsers keep all others from them."""

_FIELD_NAMES = re.compile(r"[-A-Za-z0-9_]+(?:\s*,\s*[-A-Za-z0-9_]+)*")


@dataclass(frozen=True, slots=True)
class Access:
    """`hosts` are names that this node goes by besides those of loopback; `token` None: none does.

    `origins` are those of pages elsewhere that the owner lets in, as browsers write them
    (`https://chat.example.org`).
    """

    token: str | None = None
    hosts: frozenset[str] = frozenset()
    origins: frozenset[str] = frozenset()

    def check(self, request: Request) -> None:
        """Whether `request` may be answered.

        Raises:
            HttpError: 401 or 403, with what to do.
        """
        self._check_host(request)
        self._check_origin(request)
        if not is_preflight(request) and not is_local(request.client):
            self._check_token(request)

    def cors(self, request: Request) -> Headers:
        """The headers to answer with, whatever is answered, for pages that may read it."""
        origin = request.headers.get("origin")
        if origin is None or origin not in self.origins:
            return ()
        told = (("access-control-allow-origin", origin), ("vary", "origin"))
        if not is_preflight(request):
            return (*told, ("access-control-expose-headers", READABLE))
        asked = request.headers.get("access-control-request-headers", "")
        taken = asked if _FIELD_NAMES.fullmatch(asked) else "authorization, content-type, x-api-key"
        private = "access-control-request-private-network" in request.headers
        return (
            *told,
            # Whatever the page's client sends, each SDK has headers of its own.
            ("access-control-allow-headers", taken),
            ("access-control-allow-methods", "GET, HEAD, POST, DELETE"),
            ("access-control-max-age", str(PREFLIGHT_S)),
            *((("access-control-allow-private-network", "true"),) if private else ()),
        )

    def _check_host(self, request: Request) -> None:
        host = request.headers.get("host")
        if host is None:
            return  # HTTP/1.0, which no browser speaks
        name = host_name(host)
        if name in LOCAL_NAMES or name in self.hosts or name.endswith(".localhost"):
            return
        if is_local(name) or _is_same_address(name, request.server):
            return
        raise HttpError(
            403,
            "host_not_allowed",
            f"this node is not called {name[:80]!r}; name it in http_hosts if it is",
        )

    def _check_origin(self, request: Request) -> None:
        origin = request.headers.get("origin")
        if origin is None or origin in self.origins:
            return
        if _authority(origin) == request.headers.get("host"):
            return
        raise HttpError(
            403,
            "origin_not_allowed",
            f"pages of {origin[:80]!r} may not speak to this node; name it in http_origins "
            "if they should",
        )

    def _check_token(self, request: Request) -> None:
        shown = token_of(request)
        if self.token is not None and shown is not None:
            # In constant time: the answer's delay tells nothing of the token.
            if hmac.compare_digest(shown.encode(), self.token.encode()):
                return
            raise HttpError(401, "bad_token", "the token is not this node's")
        raise HttpError(
            401,
            "no_token",
            "a token is needed from other machines: authorization: Bearer TOKEN; its owner reads "
            "it with: kowalski-node token",
            headers=(("www-authenticate", "Bearer"),),
        )


@lru_cache(maxsize=1024)
def is_local(client: str) -> bool:
    """Whether an address is one of this machine's own loopback."""
    address = _address(client)
    return address is not None and address.is_loopback


def is_preflight(request: Request) -> bool:
    """Whether a browser asks if a page may ask; it shows no token then."""
    return request.method == "OPTIONS"


def _is_same_address(name: str, server: str) -> bool:
    """Whether `name` is the address at which `request` came in: no name, that could be bent."""
    address = _address(name)
    return address is not None and address == _address(server)


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """Without its zone; an IPv4 address as such, in whatever it was wrapped."""
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def token_of(request: Request) -> str | None:
    """As OpenAI's or Anthropic's clients send it, or as the dashboard does."""
    scheme, _, value = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and value.strip():
        return value.strip()
    kept = request.headers.get("x-api-key") or request.cookies.get(COOKIE)
    return request.query.get("token") or kept


def host_name(host: str) -> str:
    """Of a `Host` header, without port and brackets, in lower case."""
    host = host.strip().lower()
    if host.startswith("["):
        return host[1:].partition("]")[0]
    name, _, port = host.rpartition(":")
    return name if name and port.isdigit() and ":" not in name else host


def _authority(origin: str) -> str:
    try:
        return urlsplit(origin).netloc
    except ValueError:
        return ""
