"""What a program asks of an HTTP proxy (RFC 9112, section 3.2): where to, and what to pass on."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import urlsplit

from kowalski.protocol.errors import KowalskiError

HEAD_BYTES_MAX = 32 * 1024

_METHOD = re.compile(r"[A-Z]{1,20}")
_HOST = re.compile(r"[A-Za-z0-9._:-]{1,253}")
# Said to us, and not to be passed on.
_OURS = ("proxy-", "connection:", "keep-alive:")


class HeadError(KowalskiError):
    """Not a request to a proxy."""


@dataclass(frozen=True, slots=True)
class Asked:
    """`head` None: a tunnel. Else one request, its head as the origin is to see it."""

    host: str
    port: int
    head: bytes | None = None


def read_head(data: bytes) -> Asked:
    """`data` is all before the empty line.

    Raises:
        HeadError
    """
    line, *fields = data.decode("latin-1").split("\r\n")
    words = line.split(" ")
    if len(words) != 3 or not words[2].startswith("HTTP/1.") or not _METHOD.fullmatch(words[0]):
        raise HeadError("not a request of HTTP/1.1")
    method, target, version = words
    if method == "CONNECT":
        host, _, port = target.rpartition(":")
        return Asked(*_place(host, port))
    try:
        url = urlsplit(target)
        place = _place(url.hostname or "", str(url.port or 80))
    except ValueError as error:
        raise HeadError(f"not an address: {error}") from error
    if url.scheme != "http" or not url.hostname:
        raise HeadError("a proxy is asked for http://HOST/..., or to CONNECT")
    kept = [each for each in fields if not each.lower().startswith(_OURS)]
    path = (url.path or "/") + (f"?{url.query}" if url.query else "")
    lines = [f"{method} {path} {version}", *kept, "Connection: close", "", ""]
    return Asked(*place, "\r\n".join(lines).encode("latin-1"))


def _place(host: str, port: str) -> tuple[str, int]:
    host = host.removeprefix("[").removesuffix("]")
    if not _HOST.fullmatch(host) or not re.fullmatch(r"\d{1,5}", port):
        raise HeadError("no host and port")
    if not 0 < int(port) < 65536:
        raise HeadError(f"port {port}")
    return host, int(port)
