"""What is believed of what peers say about themselves."""

from __future__ import annotations

import cbor2
import pytest
from pydantic import ValidationError

from kowalski.protocol.codec import decode, encode
from kowalski.protocol.errors import RemoteProtocolError
from kowalski.protocol.messages.telemetry import Condition, Hot, HotDelta, Model, Occupancy
from tests.protocol.examples import BOOT, PROFILE


@pytest.mark.parametrize("speed", [1e9, -1.0, float("inf"), float("nan")])
def test_a_speed_beyond_reason_attracts_no_work(speed: float) -> None:
    with pytest.raises(ValidationError, match="tokens_per_s"):
        Hot(tokens_per_s={"qwen3:8b": speed})


@pytest.mark.parametrize("used", [1.01, -0.01, float("nan")])
def test_no_more_memory_is_used_than_there_is(used: float) -> None:
    with pytest.raises(ValidationError, match="memory_used"):
        Hot(memory_used=used)


@pytest.mark.parametrize(
    "lie",
    [
        {"swap_used": 1.5},
        {"disk_free_bytes": -1},
        {"temperature_c": 5000.0},
        {"temperature_c": float("nan")},
        {"battery": {"charge": 2.0}},
        {"battery": {"charge": 0.5, "is_plugged": "yes"}},
        {"pressure": {"io": -0.1}},
        {"gpus": [{"busy": float("inf")}]},
        {"gpus": [{"memory_used": 1.01}]},
        {"gpus": [{}] * 17},
    ],
)
def test_a_condition_beyond_reason_is_not_taken(lie: dict[str, object]) -> None:
    honest = encode(HotDelta(boot=BOOT, sequence=1, hot=Hot()))
    version, kind, body = cbor2.loads(honest)
    body["hot"] = {"condition": lie}
    with pytest.raises(RemoteProtocolError):
        decode(cbor2.dumps([version, kind, body], canonical=True))


def test_a_device_that_tells_nothing_has_an_unknown_condition() -> None:
    told = Hot().condition
    assert told == Condition()
    assert (told.battery, told.temperature_c, told.gpus) == (None, None, ())


def test_load_may_exceed_one() -> None:
    assert Occupancy(running=2, queued=7, slots=2).queued == 7


def test_an_idle_peer_says_so_in_fifty_bytes() -> None:
    assert len(encode(HotDelta(boot=BOOT, sequence=1, hot=Hot()))) <= 60


def test_a_device_with_a_hundred_models_fits_what_gossip_carries() -> None:
    models = tuple(
        Model(name=f"mlx-community/Llama-3.2-{n:03}B-Instruct-4bit", context_tokens=131_072)
        for n in range(100)
    )
    assert len(encode(PROFILE.model_copy(update={"models": models}))) < 12_000


def test_the_name_of_any_model_may_have_a_speed() -> None:
    name = "m" * 256
    assert Hot(tokens_per_s={Model(name=name).name: 1.0}).tokens_per_s == {name: 1.0}
