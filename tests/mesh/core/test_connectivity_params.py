"""How the patience of connectivity goes with that of the failure detector."""

from __future__ import annotations

from kowalski.mesh.core import failure_detector_state
from kowalski.mesh.core.connectivity_params import Params


def test_a_connection_outlives_the_probes_that_make_its_peer_unroutable() -> None:
    params, detection = Params(), failure_detector_state.Params()
    assert params.silence_s > 2 * params.misses_max * detection.timeout_s
