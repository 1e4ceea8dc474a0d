"""What a peer is and how busy it is: gossiped, and piggybacked on replies. For choosing only."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import Field

from kowalski.protocol.ids import PeerIdField
from kowalski.protocol.limits import GOSSIP_BYTES_MAX, ROUND_TRIPS_MAX
from kowalski.protocol.messages.base import (
    Boot,
    Code,
    Count,
    Fraction,
    Message,
    ModelName,
    Name,
    Record,
)
from kowalski.protocol.messages.trust import Addresses, Roles

TokensPerSecond = Annotated[float, Field(ge=0, le=100_000, allow_inf_nan=False)]
"""Beyond reason is a lie that must not attract all work."""

Places = Annotated[int, Field(ge=0, le=10_000)]


class Occupancy(Record):
    """Of one kind of work. Load is (running + queued) / slots, and may exceed 1."""

    running: Places = 0
    queued: Places = 0
    slots: Places = 0


TemperatureC = Annotated[float, Field(ge=-50, le=200, allow_inf_nan=False)]

GPUS_MAX = 16


class Battery(Record):
    charge: Fraction
    is_plugged: bool | None = None


class Pressure(Record):
    """Share of the last 10 s in which some task waited for the resource (Linux PSI)."""

    cpu: Fraction | None = None
    memory: Fraction | None = None
    io: Fraction | None = None


class GpuUse(Record):
    """Of one GPU, in the order of the profile's; what its driver does not tell is left out."""

    busy: Fraction | None = None
    memory_used: Fraction | None = None
    temperature_c: TemperatureC | None = None


class Condition(Record):
    """How the device is, beyond its processor and memory; what it does not tell is left out.

    `disk_free_bytes` is of the disk that the node's data is on.
    """

    swap_used: Fraction | None = None
    disk_free_bytes: Count | None = None
    temperature_c: TemperatureC | None = None
    battery: Battery | None = None
    pressure: Pressure | None = None
    gpus: Annotated[
        tuple[GpuUse, ...], Field(strict=False, fail_fast=True, max_length=GPUS_MAX)
    ] = ()


class Hot(Record):
    """The values that move. Speeds, by model, are measured from requests served.

    `tokens_per_s` is of generation, `prompt_tokens_per_s` of reading what is not cached.
    `paused`: why the node takes no work of others now, in words; empty when it does.
    `is_draining`: it is about to leave, and takes nothing on.
    """

    repl: Occupancy = Occupancy()
    inference: Occupancy = Occupancy()
    folding: Occupancy = Occupancy()
    memory_used: Fraction = 0.0
    cpu_used: Fraction = 0.0
    tokens_per_s: dict[ModelName, TokensPerSecond] = Field(default_factory=dict, max_length=64)
    paused: Annotated[str, Field(max_length=128)] = ""
    prompt_tokens_per_s: dict[ModelName, TokensPerSecond] = Field(
        default_factory=dict, max_length=64
    )
    is_draining: bool = False
    condition: Condition = Condition()


class Language(Record):
    name: Code
    version: Name


class Model(Record):
    """What can be run. `capabilities` so far: `chat`, `embed`, `vision`, `tools`, `thinking`."""

    name: ModelName
    context_tokens: Count | None = None
    is_warm: bool = False
    backend: Annotated[str, Field(max_length=64)] = ""
    size_bytes: Count = 0
    capabilities: Annotated[
        tuple[Code, ...], Field(strict=False, fail_fast=True, max_length=16)
    ] = ()


class Gpu(Record):
    """`memory_bytes` 0: not known."""

    name: Annotated[str, Field(min_length=1, max_length=256)]
    memory_bytes: Count = 0


class Profile(Message):
    """What changes rarely. `sandbox` is the tier that cells run in, `none` if without.

    `speed` is that of one core at running Python, measured at the start; 1 is a usual one.
    """

    KIND: ClassVar[str] = "telemetry/profile"
    FRAME_BYTES_MAX: ClassVar[int] = GOSSIP_BYTES_MAX

    boot: Boot
    sequence: Count
    name: Name
    version: Name
    roles: Roles
    addresses: Addresses
    sandbox: Code
    languages: Annotated[
        tuple[Language, ...], Field(strict=False, fail_fast=True, max_length=64)
    ] = ()
    models: Annotated[tuple[Model, ...], Field(strict=False, fail_fast=True, max_length=128)] = ()
    cpu: Annotated[str, Field(max_length=256)] = ""
    cores: Places = 0
    memory_bytes: Count = 0
    system: Annotated[str, Field(max_length=256)] = ""
    speed: Annotated[float, Field(ge=0.001, le=1000, allow_inf_nan=False)] = 1.0
    hot: Hot = Hot()
    gpus: Annotated[tuple[Gpu, ...], Field(strict=False, fail_fast=True, max_length=GPUS_MAX)] = ()
    disk_bytes: Count = 0


class HotDelta(Message):
    """The values that move, on their own. Sequences of a boot are shared with its profiles."""

    KIND: ClassVar[str] = "telemetry/hot"
    FRAME_BYTES_MAX: ClassVar[int] = GOSSIP_BYTES_MAX

    boot: Boot
    sequence: Count
    hot: Hot


RoundTripS = Annotated[float, Field(ge=0, le=3600, allow_inf_nan=False)]


class RoundTripTo(Record):
    """What its origin measured to one peer: smoothed, the least of half a minute, the jitter."""

    peer: PeerIdField
    smooth_s: RoundTripS
    least_s: RoundTripS
    jitter_s: RoundTripS


class RoundTrips(Message):
    """One row of the latency matrix. Sequences of a boot are shared with its profiles."""

    KIND: ClassVar[str] = "telemetry/round-trips"
    FRAME_BYTES_MAX: ClassVar[int] = GOSSIP_BYTES_MAX

    boot: Boot
    sequence: Count
    paths: Annotated[
        tuple[RoundTripTo, ...], Field(strict=False, fail_fast=True, max_length=ROUND_TRIPS_MAX)
    ] = ()
