"""The promises of the seam on real libp2p; those on loopback are in test_loopback_transport.py."""

import pytest

from tests.mesh.transport_promises import OpenTransport, TransportPromises
from tests.mesh.wires import one_transport


@pytest.mark.real
class TestLibp2pKeepsThePromises(TransportPromises):
    @pytest.fixture
    def world(self) -> OpenTransport:
        return one_transport

    @pytest.fixture
    def clock(self) -> None:
        return None
