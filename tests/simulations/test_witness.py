"""What the witness makes of what it sees: messages, traces, and steps of machines."""

from __future__ import annotations

from kowalski.mesh.core import connectivity
from kowalski.mesh.driver import Driver
from kowalski.mesh.loopback_streams import End
from kowalski.mesh.watching import watcher
from kowalski.protocol import codec, ids
from kowalski.protocol.messages.base import Message, Refused
from kowalski.protocol.messages.membership import RoundTrip
from kowalski.protocol.messages.repl import SessionClosed
from simulations.witness import NoChecker, Said, Witness
from tests.simulations.looking import PEERS, broken, witness_of


class Heard(NoChecker):
    def __init__(self, witness: Witness) -> None:
        super().__init__(witness)
        self.messages: list[tuple[str, Said]] = []
        self.steps = 0

    def said(self, said: Said) -> None:
        self.messages.append(("said", said))

    def heard(self, said: Said) -> None:
        self.messages.append(("heard", said))

    def stepped(self, *_: object) -> None:
        self.steps += 1


def end(number: int = 1, *, is_ours: bool = True) -> End:
    return End(
        PEERS[1],
        "/test/1",
        number=number,
        is_ours=is_ours,
        bring=lambda *_: None,
        on_over=lambda _end: None,
        is_open_to_strangers=True,
    )


def sealed(message: Message, *, request: int = 1, is_last: bool = False) -> bytes:
    return codec.seal(codec.Envelope(request, codec.encode(message), is_last))


CLOSED = SessionClosed(task=ids.TaskId("t"), term=1)


def test_messages_are_put_together_from_the_bytes_of_a_stream() -> None:
    witness = witness_of()
    heard = Heard(witness)
    witness.engage(heard)
    data = sealed(CLOSED) + sealed(CLOSED, request=2)
    for start in range(0, len(data), 5):
        witness.sent(PEERS[0], end(), data[start : start + 5])
    witness.arrived(PEERS[0], end(), data)
    assert [(how, one.speaker, one.hearer, one.message) for how, one in heard.messages] == [
        ("said", 0, 1, CLOSED),
        ("said", 0, 1, CLOSED),
        ("heard", 0, 1, CLOSED),
        ("heard", 0, 1, CLOSED),
    ]
    assert all(one.is_first and one.by_asker for _, one in heard.messages)
    assert witness.messages["repl/session-closed"] == 2


def test_only_the_first_message_of_a_request_is_its_first() -> None:
    witness = witness_of()
    heard = Heard(witness)
    witness.engage(heard)
    witness.sent(PEERS[0], end(), sealed(CLOSED) + sealed(CLOSED, is_last=True) + sealed(CLOSED))
    assert [one.is_first for _, one in heard.messages] == [True, False, True]
    witness.sent(PEERS[0], end(is_ours=False), sealed(Refused(reason="stale"), is_last=True))
    last = heard.messages[-1][1]
    assert (last.by_asker, last.is_first, last.is_last) == (False, False, True)


def test_noise_is_survived_and_hashed() -> None:
    witness, other = witness_of(), witness_of()
    witness.sent(PEERS[0], end(), b"\xff" * 40)
    witness.sent(PEERS[0], end(), sealed(RoundTrip()))
    other.sent(PEERS[0], end(), b"\xfe" * 40)
    other.sent(PEERS[0], end(), sealed(RoundTrip()))
    assert witness.trace_hash != other.trace_hash
    assert not witness.violations


def test_the_same_trace_has_the_same_hash() -> None:
    hashes = set()
    for _ in range(2):
        witness = witness_of()
        witness.note("something")
        witness.sent(PEERS[2], end(), sealed(CLOSED))
        hashes.add(witness.trace_hash)
    assert len(hashes) == 1


def test_machines_are_checked_after_each_step() -> None:
    witness = witness_of()
    heard = Heard(witness)
    witness.engage(heard)
    witness.began(0)
    token = watcher.set(witness.watch(0))
    driver: Driver[connectivity.Connectivity, connectivity.Event, connectivity.Effect] = Driver(
        connectivity.Connectivity(PEERS[0], ids.MeshId("m")),
        step=connectivity.step,
        wake_at=connectivity.wake_at,
        time_passed=connectivity.TimePassed(),
        perform=lambda _effect: None,
        clock=lambda: 0.0,
    )
    watcher.reset(token)
    driver.handle(connectivity.Sighted(PEERS[1], (ids.Address("/memory/x"),)))
    assert not broken(witness)
    assert witness.evaluated["check connectivity"] == heard.steps == 1
    assert witness.recorders[0] == [driver]
    driver.state.peers[PEERS[0]] = connectivity.Peer(PEERS[0])
    driver.handle(connectivity.TimePassed())
    assert broken(witness) == ["check connectivity"]
