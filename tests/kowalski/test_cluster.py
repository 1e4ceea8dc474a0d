"""What a program may want of the mesh, and what it may not."""

from __future__ import annotations

import pytest

from kowalski.cluster import ClusterConfig, DeviceFilter, RetryPolicy
from kowalski.errors import ConfigError


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: RetryPolicy(max_retries=65),
        lambda: RetryPolicy(max_retries=-1),
        lambda: RetryPolicy(retry_delay_s=-0.1),
        lambda: RetryPolicy(retry_delay_s=float("nan")),
        lambda: ClusterConfig(devices_min=0),
        lambda: ClusterConfig(device_discovery_timeout_s=float("nan")),
    ],
)
def test_a_wrong_value_is_told_where_it_is_set(wrong: object) -> None:
    with pytest.raises(ConfigError, match=r"^(max_retries|retry_delay_s|devices_min|device_disc)"):
        wrong()  # type: ignore[operator]


def test_the_two_short_ways_to_say_where() -> None:
    assert ClusterConfig.local().device_filter == DeviceFilter.LOCAL
    assert ClusterConfig.network().device_filter == DeviceFilter.NETWORK
    assert ClusterConfig().device_filter == DeviceFilter.ALL
