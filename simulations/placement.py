"""How good choices are against one who knows everything: `python -m simulations.placement`.

Ten submitters, clusters of different machines, telemetry a second old. Each story is told three
times with the same jobs: by nodes, by the naive best score, and by an omniscient scheduler.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from math import ceil

from simulations.placement_askers import Asker, Clairvoyant, Naive, Node, Omniscient, Sent
from simulations.placement_cluster import Cluster, GatedWorker, Job, Worker

ASKERS = 10

Policy = Callable[[Cluster, str, Sent], Asker]
POLICIES: dict[str, tuple[Policy, type[Worker]]] = {
    "offers": (Node, GatedWorker),
    "best score": (Naive, Worker),
    "omniscient": (Omniscient, Worker),
    "clairvoyant": (Clairvoyant, Worker),
}


@dataclass(frozen=True, slots=True)
class Story:
    """`load`: of the cluster's true capacity, as (from when, how much). `work_s`: on average."""

    workers: int = 20
    work_s: float = 0.5
    is_lognormal: bool = False
    load: tuple[tuple[float, float], ...] = ((0.0, 0.9),)
    lasts_s: float = 120.0
    patience_s: float = 60.0
    events: tuple[tuple[float, Callable[[Cluster], None]], ...] = ()
    warm_up_s: float = 10.0
    """Not counted."""

    def load_at(self, now: float) -> float:
        return [load for start, load in self.load if start <= now][-1]


@dataclass(slots=True)
class Told:
    """How a story went."""

    jobs: list[Job]
    cluster: Cluster
    sent: Sent = field(default_factory=Sent)

    def latencies(self, start: float = 0.0, end: float = 1e9) -> list[float]:
        """Of jobs asked for in that time and done, sorted."""
        return sorted(
            job.latency_s
            for job in self.jobs
            if job.latency_s is not None and start <= job.asked_at < end
        )

    def quantile(self, share: float, start: float = 0.0, end: float = 1e9) -> float:
        seen = self.latencies(start, end)
        return seen[max(0, ceil(share * len(seen)) - 1)] if seen else float("inf")

    def share_done(self, start: float = 0.0, end: float = 1e9) -> float:
        asked = [job for job in self.jobs if start <= job.asked_at < end]
        return sum(job.latency_s is not None for job in asked) / max(1, len(asked))

    def share_of(self, peer: str, start: float, end: float) -> float:
        """Of the jobs done that were asked for in that time."""
        done = [job for job in self.jobs if job.peer and start <= job.asked_at < end]
        return sum(job.peer == peer for job in done) / max(1, len(done))


def tell(story: Story, policy: str, seed: int) -> Told:
    """Tell a story to its end, and until every job is over."""
    make_asker, make_worker = POLICIES[policy]
    cluster = Cluster(story.workers, work_s=story.work_s, seed=seed, make=make_worker)
    told = Told([], cluster)
    askers = [make_asker(cluster, f"asker{number}", told.sent) for number in range(ASKERS)]
    cluster.gossip()
    for at, act in story.events:
        cluster.clock.after(at, partial(act, cluster))
    capacity = cluster.capacity

    def ask() -> None:
        now = cluster.clock.now
        if now >= story.lasts_s:
            return
        job = Job(len(told.jobs), _work_s(cluster, story), now, now + story.patience_s)
        told.jobs.append(job)
        cluster.jobs.choice(askers).submit(job)
        plan()

    def plan() -> None:
        rate = story.load_at(cluster.clock.now) * capacity / story.work_s
        cluster.clock.after(cluster.jobs.expovariate(rate), ask)

    plan()
    cluster.clock.run(story.lasts_s + story.patience_s)
    return told


def _work_s(cluster: Cluster, story: Story) -> float:
    if story.is_lognormal:
        sigma = 1.0
        return story.work_s * cluster.jobs.lognormvariate(-sigma * sigma / 2, sigma)
    return cluster.jobs.expovariate(1 / story.work_s)


def amplification(told: Told) -> float:
    """Requests that reached or missed a worker, for each job that was asked for."""
    return told.sent.requests / max(1, len(told.jobs))


def recovered_after_s(told: Told, *, from_s: float, step_s: float = 5.0) -> float:
    """From `from_s` on, how long until p99 is what it was before, and all that is asked is done.

    Before: up to 40 s, when the stories' trouble begins. Looked at in windows of `step_s`.
    """
    usual_s = told.quantile(0.99, 10.0, 40.0)
    last = max(job.asked_at for job in told.jobs)
    start = recovered = from_s
    while start < last:
        end = start + step_s
        if told.share_done(start, end) < 1.0 or told.quantile(0.99, start, end) > 1.5 * usual_s:
            recovered = end
        start = end
    return recovered - from_s


# --- stories ------------------------------------------------------------------------------------


def steady(workers: int, load: float, work_s: float, *, is_lognormal: bool = False) -> Story:
    return Story(workers, work_s, is_lognormal, load=((0.0, load),))


def one_liar(cluster: Cluster) -> None:
    """The one with the most to offer turns out to be ten times slower than it says."""
    liar = max(cluster.workers.values(), key=lambda one: one.slots * one.speed)
    liar.slowness = 10.0


def slow_third(cluster: Cluster) -> None:
    for worker in list(cluster.workers.values())[::3]:
        worker.slowness = 10.0


def all_break(cluster: Cluster) -> None:
    for worker in cluster.workers.values():
        worker.is_broken = True


def all_heal(cluster: Cluster) -> None:
    for worker in cluster.workers.values():
        worker.is_broken = False


LIAR = Story(load=((0.0, 0.5),), lasts_s=60.0, events=((20.0, one_liar),))
SLOW_THIRD = Story(load=((0.0, 0.3),), lasts_s=60.0, events=((10.0, slow_third),))
OUTAGE = Story(
    load=((0.0, 0.6),),
    lasts_s=120.0,
    patience_s=20.0,
    events=((40.0, all_break), (70.0, all_heal)),
)
OVERLOAD = Story(load=((0.0, 0.7), (40.0, 1.5), (100.0, 0.7)), lasts_s=180.0, patience_s=10.0)

STEADY: tuple[tuple[str, Callable[[float], Story]], ...] = (
    ("8 workers, 2 s exponential", lambda load: steady(8, load, 2.0)),
    ("20 workers, 0.5 s exponential", lambda load: steady(20, load, 0.5)),
    ("10 workers, 2 s exponential", lambda load: steady(10, load, 2.0)),
    ("50 workers, 2 s lognormal", lambda load: steady(50, load, 2.0, is_lognormal=True)),
)
LOADS = (0.7, 0.8, 0.9)


def compare(story: Story, seeds: range) -> dict[str, tuple[float, float]]:
    """For each policy, the mean of p50 and of p99 over the seeds."""
    found: dict[str, tuple[float, float]] = {}
    for policy in POLICIES:
        runs = [tell(story, policy, seed) for seed in seeds]
        p50s, p99s = (
            [run.quantile(share, story.warm_up_s, story.lasts_s) for run in runs]
            for share in (0.5, 0.99)
        )
        found[policy] = sum(p50s) / len(p50s), sum(p99s) / len(p99s)
    return found


def main() -> None:
    arguments = argparse.ArgumentParser(prog="python -m simulations.placement", description=__doc__)
    arguments.add_argument("--seeds", type=int, default=3)
    arguments.add_argument(
        "--only", default="", metavar="WORDS", help="clusters named so, or `trouble`; default: all"
    )
    options = arguments.parse_args()
    seeds = range(options.seeds)
    print(f"{'p99 in s, and to omniscient':36} load  " + "  ".join(f"{p:>18}" for p in POLICIES))
    for name, make in (one for one in STEADY if options.only in one[0]):
        for at in LOADS:
            found = compare(make(at), seeds)
            best = found["omniscient"][1]
            cells = "  ".join(f"{p99:9.2f} ({p99 / best:5.2f}x)" for _, p99 in found.values())
            print(f"{name:36} {at:.0%}  {cells}", flush=True)
    if options.only not in "trouble":
        return
    print()
    for name, value, goal in trouble(options.seeds):
        print(f"{name:62} {value:8.3f}  goal {goal}", flush=True)


def trouble(seeds: int) -> Iterator[tuple[str, float, str]]:
    """Each figure of the stories in which something goes wrong, the worst of all seeds."""
    liars, thirds, outages, overloads = (
        [tell(story, "offers", seed) for seed in range(seeds)]
        for story in (LIAR, SLOW_THIRD, OUTAGE, OVERLOAD)
    )
    shares = [told.share_of(_slow_ones(told)[0], 30.0, 60.0) for told in liars]
    yield "one 10 x slower than it says: its share, 10 s later", max(shares), "0.05"
    shares = [sum(told.share_of(one, 20.0, 60.0) for one in _slow_ones(told)) for told in thirds]
    yield "a third 10 x slower: their share, 10 s later", max(shares), ""
    yield "nobody works for 30 s: requests for each job", max(map(amplification, outages)), "1.25"
    healed = [1.0 - told.share_done(75.0, 120.0) for told in outages]
    yield "  not done of what was asked for 5 s after it healed", max(healed), "0"
    times = [recovered_after_s(told, from_s=100.0) for told in overloads]
    yield "150 % for 60 s, then 70 %: as before after (s)", max(times), "30"
    late = [float(sum(one.late for one in told.cluster.workers.values())) for told in overloads]
    yield "  begun after its deadline", max(late), "0"


def _slow_ones(told: Told) -> list[str]:
    return [peer for peer, one in told.cluster.workers.items() if one.slowness > 1.0]


if __name__ == "__main__":
    main()
