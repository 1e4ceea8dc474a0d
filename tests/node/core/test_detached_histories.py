"""A detached task's group under histories that hypothesis makes up: every invariant, every step."""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from random import Random
from typing import get_args

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from kowalski.node.core import detached_state as ds
from kowalski.protocol.ids import PeerId
from kowalski.protocol.messages.task import Failover, RetryPolicy
from tests.node.core.detached_world import GROUP, GroupWorld

ENDS_WITHIN_S = 90.0
STEPS_OF_A_STORM = 60


class Groups(RuleBasedStateMachine):
    """Messages are lost, doubled and late, members die at any effect, wires are cut, time jumps.

    An election takes a dozen deliveries in a row: a storm is many small steps, drawn from a seed.
    """

    @initialize(failover=st.sampled_from(get_args(Failover)), retries=st.integers(0, 3))
    def begin(self, failover: Failover, retries: int) -> None:
        self.world = GroupWorld(
            policy={"failover": failover, "retry": RetryPolicy(retries_max=retries, delay_s=0.5)}
        )

    @rule(seed=st.integers(0, 2**32), calm=st.sampled_from([0.0, 0.5, 0.9]))
    def storm(self, seed: int, calm: float) -> None:
        random = Random(seed)
        for _ in range(STEPS_OF_A_STORM):
            if random.random() < calm:
                _go_on(self.world, random)
            else:
                random.choices(FAULTS, WEIGHTS)[0](self.world, random)

    @rule(one=st.sampled_from(GROUP), is_up=st.booleans())
    def kill_or_start(self, one: PeerId, is_up: bool) -> None:
        if not is_up:
            self.world.kill(one)
        elif one not in self.world.members:
            self.world.start(one)

    @rule(one=st.sampled_from(GROUP), other=st.sampled_from(GROUP))
    def cut_or_mend(self, one: PeerId, other: PeerId) -> None:
        self.world.cut ^= {frozenset((one, other))}

    @rule()
    def mend_all(self) -> None:
        self.world.cut.clear()

    def teardown(self) -> None:
        """`no_lost_ack`: any two that are up and connected bring it to its one end."""
        world = self.world
        world.cut.clear()
        gone = GROUP[len(world.committed) % 3]
        world.kill(gone)
        for one in GROUP:
            if one != gone:
                if one not in world.members:
                    world.start(one)
                world.handle(one, ds.Reachable(frozenset(GROUP) - {gone}))
        kept = list(world.committed)
        world.settle(works=_finish, seconds=ENDS_WITHIN_S)
        assert world.committed[: len(kept)] == kept, "no_lost_ack"
        for one in GROUP:
            if one != gone:
                member = world.members[one]
                assert member.is_over, (member, "no_lost_ack: it never ends")
                assert member.committed == len(world.committed), "all of it is shown"


def _go_on(world: GroupWorld, random: Random) -> None:
    if world.network and random.random() < 0.9:
        world.deliver(0)
    elif world.coordinators and random.random() < 0.6:
        world.write(random.choice(sorted(world.coordinators)), ends=random.random() < 0.05)
    else:
        world.lose_offers()
        world.pass_time()


def _crash(random: Random) -> float:
    return random.choice([inf, inf, inf, 0, 1, 2])


def _deliver(world: GroupWorld, random: Random) -> None:
    if world.network:
        at = random.randrange(len(world.network))
        world.deliver(at, crash_after=_crash(random), again=random.random() < 0.3)


def _drop(world: GroupWorld, random: Random) -> None:
    if world.network:
        del world.network[random.randrange(len(world.network))]


def _write(world: GroupWorld, random: Random) -> None:
    if world.coordinators:
        one = random.choice(sorted(world.coordinators))
        world.write(one, ends=random.random() < 0.05, crash_after=_crash(random))


def _lose_coordinator(world: GroupWorld, random: Random) -> None:
    if world.coordinators:
        one = random.choice(sorted(world.coordinators))
        term = world.coordinators.pop(one).term
        world.handle(one, ds.CoordinatorLost(term, random.random() < 0.3))


def _wait(world: GroupWorld, random: Random) -> None:
    world.pass_time()


def _lose(world: GroupWorld, random: Random) -> None:
    world.lose_offers()


def _kill(world: GroupWorld, random: Random) -> None:
    world.kill(random.choice(GROUP))


def _start(world: GroupWorld, random: Random) -> None:
    for one in GROUP:
        if one not in world.members:
            world.start(one)
            return


def _cut(world: GroupWorld, random: Random) -> None:
    world.cut ^= {frozenset(random.sample(GROUP, 2))}


def _see(world: GroupWorld, random: Random) -> None:
    one = random.choice(GROUP)
    if one in world.members:
        seen = frozenset(other for other in GROUP if random.random() < 0.8)
        world.handle(one, ds.Reachable(seen))


def _yield(world: GroupWorld, random: Random) -> None:
    one = random.choice(GROUP)
    if one in world.members:
        world.handle(one, ds.Yielded())


def _cancel(world: GroupWorld, random: Random) -> None:
    one = random.choice(GROUP)
    if one in world.members:
        world.handle(one, random.choice([ds.CancelWanted("enough"), ds.ResumeWanted()]))


FAULTS: list[Callable[[GroupWorld, Random], None]] = [
    _deliver, _drop, _write, _lose_coordinator, _wait, _lose, _kill, _start, _cut, _see, _yield,
    _cancel,
]  # fmt: skip
WEIGHTS = [10, 3, 3, 1, 4, 4, 1, 3, 1, 2, 1, 1]


def _finish(world: GroupWorld) -> None:
    for one in tuple(world.coordinators):
        member = world.members[one]
        if member.role == "leader" and member.ends_at is None:
            leading = world.coordinators[one]
            if leading.entries != member.entries:  # it was forgotten meanwhile: it begins anew
                del world.coordinators[one]
                world.handle(one, ds.CoordinatorLost(member.term))
                continue
            world.write(one, ends=leading.entries >= 2)


TestGroups = Groups.TestCase
TestGroups.settings = settings(max_examples=25, stateful_step_count=20, deadline=None)
