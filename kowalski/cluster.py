"""Which devices work for a program, and what happens when one of them is lost."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from kowalski.errors import ConfigError


class DeviceFilter(StrEnum):
    """Which devices run cells, model calls and folds, seen from the one the program runs on."""

    LOCAL = "local"
    """This one alone: nothing of a task leaves it."""
    NETWORK = "network"
    """Any but this one."""
    ALL = "all"


class ShardingStrategy(StrEnum):
    """How a model that is too large for one device is split, where exo serves it."""

    PIPELINE = "pipeline"
    """By layers: little crosses the network."""
    TENSOR = "tensor"
    """Every layer: faster, over a fast network."""
    AUTO = "auto"
    """The fewest devices that hold it; the mesh decides."""


class FailoverStrategy(StrEnum):
    """What becomes of a task when a device that works for it is lost."""

    REDISTRIBUTE = "redistribute"
    """It goes on with the next best; fails where there is none, but that a model whose only device
    was lost while it was asked is waited for half a minute."""
    FAIL = "fail"
    QUEUE = "queue"
    """It goes on, and where nobody is able, waits for somebody who is."""


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How often lost work is begun again elsewhere, and after what pause.

    Raises:
        ConfigError: `max_retries` not from 0 to 64, `retry_delay_s` not from 0 to 600.
    """

    max_retries: int = 15
    retry_delay_s: float = 0.0
    exponential_backoff: bool = True
    """Each pause twice the one before, never over ten minutes."""

    def __post_init__(self) -> None:
        if not 0 <= self.max_retries <= 64:
            raise ConfigError(f"max_retries {self.max_retries}: from 0 to 64")
        if not 0 <= self.retry_delay_s <= 600:
            raise ConfigError(f"retry_delay_s {self.retry_delay_s}: from 0 to 600")


@dataclass(frozen=True, slots=True)
class ClusterConfig:
    """What a program wants of the mesh; each task that it submits carries it.

    Raises:
        ConfigError: `devices_min` below 1 or a timeout below 0.
    """

    device_filter: DeviceFilter = DeviceFilter.ALL
    sharding_strategy: ShardingStrategy = ShardingStrategy.AUTO
    """Used when the model of the program must be loaded first, see `Builder.with_model`."""
    auto_scaling: bool = False
    """Let a batch be as wide as the devices have room, and load the model on further devices,
    where their owners allow it, while more tasks wait than run. False: a fixed width."""
    device_discovery_timeout_s: float = 10.0
    """How long `build` waits until `devices_min` devices are there."""
    devices_min: int = 1
    """Of those that `device_filter` lets through."""
    network_retry_policy: RetryPolicy = field(default_factory=RetryPolicy)
    failover_strategy: FailoverStrategy = FailoverStrategy.REDISTRIBUTE

    def __post_init__(self) -> None:
        if self.devices_min < 1:
            raise ConfigError(f"devices_min {self.devices_min}: at least 1")
        if not self.device_discovery_timeout_s >= 0:
            raise ConfigError(
                f"device_discovery_timeout_s {self.device_discovery_timeout_s}: at least 0"
            )

    @classmethod
    def local(cls) -> ClusterConfig:
        """This device alone."""
        return cls(device_filter=DeviceFilter.LOCAL)

    @classmethod
    def network(cls) -> ClusterConfig:
        """The other devices of the mesh."""
        return cls(device_filter=DeviceFilter.NETWORK)
