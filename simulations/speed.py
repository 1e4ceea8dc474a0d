"""How fast the simulator is: real nodes in virtual time (tier A)."""

from __future__ import annotations

import time
from dataclasses import dataclass

from simulations import plan
from simulations.reports import Report
from simulations.scenarios import Devices, Faults, Scenario, Work
from simulations.story import tell


@dataclass(frozen=True, slots=True)
class Speed:
    """Of one story. `messages`: on streams.

    `gossip_heard_kb_s` and `streams_kb_s`: what a node hears of gossip, each message once, and says
    on streams in a second. Over gossipsub of degree 6 each message is sent on to five.
    """

    nodes: int
    virtual_s: float
    wall_s: float
    cpu_s: float
    messages: int
    tasks: int
    gossip_heard_kb_s: float
    streams_kb_s: float

    @property
    def virtual_h_per_minute(self) -> float:
        """Hours of the whole mesh in a minute of this machine."""
        return self.virtual_s / 3600 / (self.wall_s / 60)


def lab(nodes: int, seconds: float, *, has_faults: bool = True) -> Scenario:
    """So many devices, a task every other second, and a fault every six."""
    return Scenario(
        name=f"bench-{nodes}",
        about="measures the simulator",
        seconds=seconds,
        devices=(Devices(count=nodes, name="device"),),
        work=Work(every_s=2.0),
        faults=Faults(every_s=6.0) if has_faults else None,
        settle_s=120.0,
    )


def measure(scenario: Scenario, seed: int) -> tuple[Speed, Report]:
    began, began_cpu = time.perf_counter(), time.process_time()
    report = tell(plan.draw(scenario, seed))
    per_node_s = scenario.nodes * report.lasted_s * 1000
    speed = Speed(
        nodes=scenario.nodes,
        virtual_s=report.lasted_s,
        wall_s=time.perf_counter() - began,
        cpu_s=time.process_time() - began_cpu,
        messages=report.messages.total(),
        tasks=report.ends.total(),
        gossip_heard_kb_s=report.gossip_bytes / per_node_s,
        streams_kb_s=report.stream_bytes / per_node_s,
    )
    return speed, report
