"""Closed by default: who is of another mesh, or has no good invite, stays outside."""

from __future__ import annotations

import socket
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from socket import SOCK_DGRAM, SOCK_STREAM

import psutil
import pytest
import trio

from kowalski.mesh.conversation import open_asker
from kowalski.mesh.identity import new_identity
from kowalski.mesh.libp2p_transport import open_libp2p_transport
from kowalski.node.local_cluster import LocalNode
from kowalski.protocol import join_line
from kowalski.protocol.errors import PeerUnreachableError, RequestRefusedError
from kowalski.protocol.ids import Address, PeerId, TaskId, content_hash
from kowalski.protocol.messages.base import Message
from kowalski.protocol.messages.content import ContentAsked
from kowalski.protocol.messages.folding import FoldAsked
from kowalski.protocol.messages.inference import ChatMessage, CompletionAsked
from kowalski.protocol.messages.membership import RoundTrip
from kowalski.protocol.messages.repl import CellAsked
from kowalski.protocol.messages.task import Grant, TaskSpec
from kowalski.protocol.messages.trust import RenewalAsked
from kowalski.rlm.journal import GENESIS
from tests.integration.cluster import START_S, Cluster, open_cluster, wait_until

pytestmark = [pytest.mark.real, pytest.mark.timeout(240)]

LOOPBACK = Address("/ip4/127.0.0.1/tcp/0")
MDNS_PORT = 5353


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Two meshes of one on one network; the second dials the first, again and again."""
    with open_cluster(tmp_path_factory.mktemp("strangers")) as cluster:
        home = cluster.start("home")
        home.wait_until_up(START_S)
        address = f"{address_of(home)}/p2p/{home.peer}"
        cluster.start("stranger", "--no-repl", "--peer", address).wait_until_up(START_S)
        yield cluster


@pytest.fixture
def cluster(shared: Cluster) -> Iterator[Cluster]:
    yield shared
    sys.stdout.write(shared.logs())


def address_of(node: LocalNode) -> Address:
    addresses = node.ask("status")["addresses"]
    assert isinstance(addresses, list)
    return Address(addresses[0])


def row_of(node: LocalNode, peer: str) -> dict[str, object]:
    """What `node` says of `peer`; nothing if it does not know it."""
    rows = node.ask("peers")["peers"]
    assert isinstance(rows, list)
    return next((row for row in rows if row["peer"] == peer), {})


def has_refused(node: LocalNode) -> bool:
    refused = node.ask("status")["refused"]
    assert isinstance(refused, dict)
    return "wrong_mesh" in refused


def test_two_meshes_on_one_network_do_not_mix(cluster: Cluster) -> None:
    home, stranger = cluster.named("home"), cluster.named("stranger")
    # The lower id asks; the other one refuses.
    wait_until(lambda: has_refused(home) or has_refused(stranger), "one has refused the other")
    assert row_of(stranger, home.peer)["routable"] is False
    assert row_of(home, stranger.peer).get("state") != "member"
    assert home.members() == {home.peer}
    assert home.ask("status")["connections"] == 0
    # Home could run it; the stranger, which cannot, does not get to ask.
    done = cluster.cli(stranger, "run", "--json", "--language", "python", "--code", "print(1)")
    assert done.exit_code == 5
    assert done.error["code"] == "no_peer"


TASK = TaskId("a-strangers-task")
SPEC = TaskSpec(prompt="hello", max_iterations=1, timeout_s=10.0)
REQUESTS = {
    "/kowalski/repl/1": CellAsked(
        task=TASK,
        term=1,
        cell=0,
        language="python",
        code="print(1)",
        timeout_s=5.0,
        remaining_s=5.0,
    ),
    "/kowalski/task/1": Grant(
        task=TASK,
        term=1,
        spec=SPEC,
        prefix_entries=0,
        last_digest=GENESIS,
        lease_s=3.0,
        remaining_s=5.0,
    ),
    "/kowalski/inference/1": CompletionAsked(
        model="any", messages=(ChatMessage(role="user", content="hello"),), remaining_s=5.0
    ),
    "/kowalski/fold/1": FoldAsked(text="hello", budget_tokens=1, remaining_s=5.0),
    "/kowalski/content/1": ContentAsked(hash=content_hash(b"hello"), offset=0, bytes_max=5),
}


@pytest.mark.trio
@pytest.mark.parametrize("protocol", REQUESTS)
async def test_a_stranger_on_a_real_connection_may_ask_for_nothing(
    cluster: Cluster, protocol: str
) -> None:
    home = cluster.named("home")
    with trio.fail_after(20), pytest.raises(PeerUnreachableError, match="na"):
        await ask_as_stranger(home, protocol, REQUESTS[protocol])
    assert home.ask("status")["tasks"] == 0


@pytest.mark.trio
@pytest.mark.parametrize(
    ("protocol", "request_", "reason"),
    [
        ("/kowalski/membership/1", RoundTrip(), "not_member"),
        ("/kowalski/join/1", RenewalAsked(), "not_member"),
    ],
)
async def test_where_strangers_may_speak_they_are_told_what_is_missing(
    cluster: Cluster, protocol: str, request_: Message, reason: str
) -> None:
    with trio.fail_after(20), pytest.raises(RequestRefusedError, match=reason):
        await ask_as_stranger(cluster.named("home"), protocol, request_)


async def ask_as_stranger(node: LocalNode, protocol: str, request: Message) -> None:
    async with open_libp2p_transport(new_identity(), listen=(LOOPBACK,)) as transport:
        peer = PeerId(node.peer)
        await transport.connect(peer, address_of(node), timeout_s=5.0)
        async with (
            open_asker(transport) as asker,
            asker.converse(peer, protocol, request) as asked,
        ):
            await asked.receive()


def test_a_node_listens_on_its_peer_port_and_for_this_machine_on_http(cluster: Cluster) -> None:
    home = cluster.named("home")
    status = home.ask("status")
    ports = {int(address.split("/")[4]) for address in status["addresses"]}
    (port,) = ports
    http = ("127.0.0.1", status["http_port"])
    root = psutil.Process(home.process.pid)
    sockets = [
        socket
        for process in (root, *root.children(recursive=True))
        for socket in process.net_connections("inet")
        if socket.type == SOCK_DGRAM or socket.status == psutil.CONN_LISTEN
    ]
    assert [tuple(one.laddr) for one in sockets].count(http) == 1
    listening = [(one.type, one.laddr.port) for one in sockets if tuple(one.laddr) != http]
    assert (SOCK_STREAM, port) in listening
    assert set(listening) <= {(SOCK_STREAM, port), (SOCK_DGRAM, MDNS_PORT)}


# --- join lines ---------------------------------------------------------------------------------


def start_with(cluster: Cluster, name: str, line: str) -> str:
    """The one line that a start with this join line ends with."""
    where = ("--data-dir", str(cluster.folder / name), "--no-mdns", "--p2p-port", "0")
    arguments = ("start", *where, "--listen-host", "127.0.0.1", "--join", line)
    done = cluster.cli(None, *arguments)
    assert (done.exit_code, done.stdout) == (2, "")
    (complaint,) = done.stderr.splitlines()
    assert complaint.startswith("kowalski-node: ")
    return complaint


@pytest.mark.parametrize(
    ("damage", "complaint"),
    [
        (lambda line: line[:60], "cut short or mistyped"),
        (lambda line: line[:50] + ("a" if line[50] != "a" else "b") + line[51:], "mistyped"),
        (lambda line: line.removeprefix("kw1:"), "begins with kw1:"),
        (lambda line: "", "the join line is empty"),
    ],
    ids=["cut", "mistyped", "headless", "empty"],
)  # fmt: skip
def test_a_damaged_join_line_is_told_at_once_in_one_line(
    cluster: Cluster, tmp_path: Path, damage: Callable[[str], str], complaint: str
) -> None:
    line = damage(cluster.named("home").invite(uses=1))
    assert complaint in start_with(cluster, "damaged", line)


def test_an_expired_join_line_says_how_to_get_another(cluster: Cluster) -> None:
    line = str(cluster.named("home").ask("invite", {"ttl_s": 1.0})["line"])
    expires_at = join_line.parse(line).not_after_unix_s
    wait_until(lambda: time.time() > expires_at, "the line has expired")
    assert "kowalski-node invite" in start_with(cluster, "late", line)


def test_a_line_that_was_used_up_lets_nobody_else_in(cluster: Cluster) -> None:
    home = cluster.named("home")
    line = home.invite(uses=1)
    cluster.start("guest", "--join", line, "--no-mdns").wait_until_up(START_S)
    assert "ask for a new one" in start_with(cluster, "another", line)

    # The guest itself may start with its line again: it is a member.
    guest = cluster.named("guest")
    assert guest.stop() == 0
    cluster.start("guest", "--join", line, "--no-mdns").wait_until_up(START_S)
    assert cluster.named("guest").stop() == 0
    complaint = start_with(cluster, "guest", cluster.named("stranger").invite(uses=1))
    assert "is a member of mesh" in complaint


def test_a_line_whose_node_is_gone_asks_whether_it_runs(cluster: Cluster) -> None:
    line = join_line.parse(cluster.named("home").invite(uses=1))
    with socket.socket() as unheard:
        unheard.bind(("127.0.0.1", 0))  # nobody listens there
        address = Address(f"/ip4/127.0.0.1/tcp/{unheard.getsockname()[1]}")
        gone = line.model_copy(update={"addresses": (address,)}).render()
        complaint = start_with(cluster, "lonely", gone)
    assert complaint.endswith(f"at {address}: connection refused); is its node running?")
