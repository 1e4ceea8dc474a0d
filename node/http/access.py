"""Who may speak to the HTTP server: pure rules over the head of a request.

On loopback anybody on this machine may; a browser there may be led by a stranger's page, so the
names in `Host` and `Origin` are checked (DNS rebinding, cross-site requests). From anywhere else
the token is needed as well.
"""

from __future__ import annotations

import hmac
import ipaddress
from dataclasses import dataclass
from functools import lru_cache
from urllib.parse import urlsplit

from kowalski.node.http.exchange import Headers, HttpError, Request

COOKIE = "kowalski_token"
LOCAL_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})
PREFLIGHT_S = 600


@dataclass(frozen=True, slots=True)
class Access:
    """`hosts` are names that this node goes by besides those of loopback; `token` None: none does.

    `origins` are those of pages elsewhere that the owner lets in, as browsers write them
    (`https://chat.example.org`).
    """

    token: str | None = None
    hosts: frozenset[str] = frozenset()
    origins: frozenset[str] = frozenset()

    def check(self, request: Request) -> Headers:
        """The headers to answer with, for pages that may read the answer.

        Raises:
            HttpError: 400, 401 or 403, with what to do.
        """
        self._check_host(request)
        cors = self._check_origin(request)
        if request.method != "OPTIONS" and not is_local(request.client):
            self._check_token(request)
        return cors

    def _check_host(self, request: Request) -> None:
        host = request.headers.get("host")
        if host is None:
            return  # HTTP/1.0, which no browser speaks
        name = host_name(host)
        if name in LOCAL_NAMES or name in self.hosts or name.endswith(".localhost"):
            return
        raise HttpError(
            403,
            "host_not_allowed",
            f"this node is not called {name[:80]!r}; name it in http_hosts if it is",
        )

    def _check_origin(self, request: Request) -> Headers:
        origin = request.headers.get("origin")
        if origin is None:
            return ()
        if origin in self.origins:
            return (
                ("access-control-allow-origin", origin),
                ("vary", "origin"),
                ("access-control-allow-headers", "authorization, content-type, x-api-key"),
                ("access-control-allow-methods", "GET, POST, DELETE, OPTIONS"),
                ("access-control-max-age", str(PREFLIGHT_S)),
            )
        if _authority(origin) == request.headers.get("host"):
            return ()
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
    try:
        address = ipaddress.ip_address(client.partition("%")[0])
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return bool((mapped or address).is_loopback)


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
    return name if name and port.isdigit() else host


def _authority(origin: str) -> str:
    try:
        return urlsplit(origin).netloc
    except ValueError:
        return ""
