"""Who may speak to the HTTP server."""

import pytest

from kowalski.node.http.access import Access, host_name, is_local
from kowalski.node.http.exchange import HttpError, Request

TOKEN = "a-token-of-some-length"
AFAR = "192.168.1.20"


def request(client: str = "127.0.0.1", method: str = "GET", **headers: str) -> Request:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Request(method, "/peers", {"host": "localhost:4171", **named}, client)


def refused(access: Access, asked: Request) -> tuple[int, str]:
    with pytest.raises(HttpError) as no:
        access.check(asked)
    return no.value.status, no.value.code


@pytest.mark.parametrize("client", ["127.0.0.1", "127.3.2.1", "::1", "::ffff:127.0.0.1"])
def test_this_machine_needs_no_token(client: str) -> None:
    assert is_local(client)
    Access().check(request(client))


@pytest.mark.parametrize("client", [AFAR, "fe80::1%eth0", "::ffff:192.168.1.20", "nonsense"])
def test_another_machine_needs_one_even_where_none_was_made(client: str) -> None:
    assert not is_local(client)
    assert refused(Access(), request(client)) == (401, "no_token")
    assert refused(Access(TOKEN), request(client)) == (401, "no_token")


@pytest.mark.parametrize(
    "headers",
    [
        {"authorization": f"Bearer {TOKEN}"},
        {"authorization": f"bearer  {TOKEN} "},
        {"x_api_key": TOKEN},
        {"cookie": f"other=1; kowalski_token={TOKEN}"},
    ],
)
def test_the_token_is_taken_from_wherever_clients_put_it(headers: dict[str, str]) -> None:
    Access(TOKEN).check(request(AFAR, **headers))
    wrong = {name: value.replace(TOKEN, "another-token-of-some") for name, value in headers.items()}
    assert refused(Access(TOKEN), request(AFAR, **wrong)) == (401, "bad_token")


def test_a_token_in_the_address_will_do_for_a_browser() -> None:
    asked = Request("GET", f"/?token={TOKEN}", {"host": "localhost"}, AFAR)
    Access(TOKEN).check(asked)


@pytest.mark.parametrize(
    "host",
    [
        "localhost",
        "LOCALHOST:4171",
        "127.0.0.1:4171",
        "127.0.0.2",
        "[::1]:4171",
        "[::1]",
        "[0:0:0:0:0:0:0:1]:4171",
        "[::ffff:127.0.0.1]",
        "a.localhost",
        "minipc",
        "fd00::7",
        "[fd00::7]:4171",
    ],
)
def test_names_of_this_machine_are_answered(host: str) -> None:
    Access(hosts=frozenset({"minipc", "fd00::7"})).check(request(host=host))


@pytest.mark.parametrize(
    ("server", "host"),
    [
        ("192.168.1.5", "192.168.1.5:4171"),
        ("::ffff:192.168.1.5", "192.168.1.5:4171"),
        ("fe80::5%eth0", "[fe80::5]:4171"),
        ("fd00::5", "[FD00:0::5]"),
    ],
)
def test_the_address_that_a_request_came_to_is_answered_as_a_name(server: str, host: str) -> None:
    asked = Request("GET", f"/?token={TOKEN}", {"host": host}, AFAR, server)
    Access(TOKEN).check(asked)
    elsewhere = Request("GET", f"/?token={TOKEN}", {"host": host}, AFAR, "192.168.1.6")
    assert refused(Access(TOKEN), elsewhere) == (403, "host_not_allowed")


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "evillocalhost", ""])
def test_a_name_that_was_bent_to_this_machine_is_not(host: str) -> None:
    assert refused(Access(), request(host=host)) == (403, "host_not_allowed")


def test_a_page_of_this_server_may_ask_and_a_page_of_another_may_not() -> None:
    asked = request(origin="http://localhost:4171")
    Access().check(asked)
    assert Access().cors(asked) == ()
    for origin in ("http://evil.example", "null", "http://localhost:8080", "://", "http://["):
        assert refused(Access(), request(origin=origin)) == (403, "origin_not_allowed")


def test_a_page_that_the_owner_names_may_read_the_answer() -> None:
    access = Access(origins=frozenset({"https://chat.example"}))
    asked = request(origin="https://chat.example", method="OPTIONS")
    access.check(asked)
    headers = dict(access.cors(asked))
    assert headers["access-control-allow-origin"] == "https://chat.example"
    assert "authorization" in headers["access-control-allow-headers"]
    headers = dict(access.cors(request(origin="https://chat.example")))
    assert "x-kowalski-peer" in headers["access-control-expose-headers"]
    other = request(origin="https://other.example")
    assert access.cors(other) == ()
    assert refused(access, other)[0] == 403


def test_a_page_may_send_what_its_client_sends() -> None:
    access = Access(origins=frozenset({"https://chat.example"}))

    def allowed(wanted: str) -> str:
        asked = request(
            origin="https://chat.example",
            method="OPTIONS",
            access_control_request_headers=wanted,
        )
        return dict(access.cors(asked))["access-control-allow-headers"]

    assert allowed("content-type,x-stainless-os") == "content-type,x-stainless-os"
    assert "authorization" in allowed("evil: yes")


def test_a_public_page_may_ask_a_private_address_where_it_is_named() -> None:
    access = Access(origins=frozenset({"https://chat.example"}))
    wants = {"access_control_request_private_network": "true"}
    asked = request(origin="https://chat.example", method="OPTIONS", **wants)
    assert dict(access.cors(asked))["access-control-allow-private-network"] == "true"
    asked = request(origin="https://other.example", method="OPTIONS", **wants)
    assert access.cors(asked) == ()


def test_a_page_from_afar_is_asked_for_the_token_behind_its_preflight() -> None:
    access = Access(TOKEN, origins=frozenset({"https://chat.example"}))
    access.check(request(AFAR, method="OPTIONS", origin="https://chat.example"))
    assert refused(access, request(AFAR, origin="https://chat.example")) == (401, "no_token")


@pytest.mark.parametrize(
    ("host", "name"),
    [
        ("a:1", "a"),
        ("a", "a"),
        ("[::1]", "::1"),
        ("[::1]:5", "::1"),
        ("fd00::1", "fd00::1"),
        ("A.b:x", "a.b:x"),
    ],
)
def test_a_host_is_told_from_its_port(host: str, name: str) -> None:
    assert host_name(host) == name
