import pytest

from kowalski.mesh.core.blame import is_busy, is_peers_fault, is_worth_another_peer
from kowalski.protocol.errors import (
    PeerUnreachableError,
    RemoteProtocolError,
    RequestFailedError,
    RequestRefusedError,
)

CASES: list[tuple[Exception, bool, bool, bool]] = [
    # error, its peer's fault, worth another peer, only full
    (PeerUnreachableError("gone"), True, True, False),
    (RemoteProtocolError("nonsense"), True, True, False),
    (RequestFailedError("internal"), True, True, False),
    (RequestFailedError("backend"), True, True, False),
    (RequestFailedError("content"), False, True, False),
    (RequestFailedError("bad_request"), False, False, False),
    (RequestFailedError("timeout"), False, False, False),
    (RequestFailedError("cut_short"), False, False, False),
    (RequestRefusedError("busy"), False, True, True),
    (RequestRefusedError("paused"), False, True, True),
    (RequestRefusedError("draining"), False, True, False),
    (RequestRefusedError("stale"), False, True, False),
]


@pytest.mark.parametrize(("error", "fault", "elsewhere", "full"), CASES, ids=str)
def test_whose_fault_it_is(error: Exception, fault: bool, elsewhere: bool, full: bool) -> None:
    assert is_peers_fault(error) is fault
    assert is_worth_another_peer(error) is elsewhere
    assert is_busy(error) is full
