from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kowalski.node.repl.proxy_requests import Asked, HeadError, read_head

TO_THE_PROXY = (
    b"Proxy-Connection: keep-alive\r\nProxy-Authorization: Basic eA==\r\nConnection: x\r\n"
)


@pytest.mark.parametrize(
    ("head", "asked"),
    [
        (b"CONNECT pypi.org:443 HTTP/1.1\r\nHost: pypi.org:443", Asked("pypi.org", 443)),
        (b"CONNECT [2001:db8::1]:8443 HTTP/1.1", Asked("2001:db8::1", 8443)),
        (
            b"GET http://a.example/x?y=1 HTTP/1.1\r\nHost: a.example\r\n" + TO_THE_PROXY + b"A: b",
            Asked(
                "a.example",
                80,
                b"GET /x?y=1 HTTP/1.1\r\nHost: a.example\r\nA: b\r\nConnection: close\r\n\r\n",
            ),
        ),
        (
            b"POST http://a.example:8080 HTTP/1.0\r\nContent-Length: 2",
            Asked(
                "a.example",
                8080,
                b"POST / HTTP/1.0\r\nContent-Length: 2\r\nConnection: close\r\n\r\n",
            ),
        ),
    ],
)
def test_a_request_says_where_to_and_what_to_pass_on(head: bytes, asked: Asked) -> None:
    assert read_head(head) == asked


@pytest.mark.parametrize(
    "head",
    [
        b"",
        b"GET / HTTP/1.1\r\nHost: a.example",
        b"GET https://a.example/ HTTP/1.1",
        b"GET file:///etc/passwd HTTP/1.1",
        b"GET http:///x HTTP/1.1",
        b"GET http://a.example:99999/ HTTP/1.1",
        b"GET http://[::1/ HTTP/1.1",
        b"get http://a.example/ HTTP/1.1",
        b"GET http://a.example/ x HTTP/1.1",
        b"GET http://a.example/ HTTP/2",
        b"CONNECT a.example HTTP/1.1",
        b"CONNECT a.example:0 HTTP/1.1",
        b"CONNECT a.example:x HTTP/1.1",
        b"CONNECT a/b:443 HTTP/1.1",
        b"CONNECT a.example\x00:443 HTTP/1.1",
    ],
)
def test_what_is_no_request_to_a_proxy_is_refused(head: bytes) -> None:
    with pytest.raises(HeadError):
        read_head(head)


@given(st.binary(max_size=300))
def test_any_bytes_are_a_request_or_refused(data: bytes) -> None:
    for head in (data, b"GET http://" + data + b" HTTP/1.1", b"CONNECT " + data + b" HTTP/1.1"):
        try:
            asked = read_head(head)
        except HeadError:
            continue
        assert 0 < asked.port < 65536
        assert asked.head is None or asked.head.endswith(b"Connection: close\r\n\r\n")
