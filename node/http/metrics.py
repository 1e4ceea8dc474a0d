"""What Prometheus reads: the node's own counters, and the mesh as this node sees it.

The only module that imports prometheus_client. Each node has a registry of its own.
"""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import get_args

from prometheus_client import CollectorRegistry, Gauge, ProcessCollector
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.exposition import generate_latest

from kowalski import __version__
from kowalski.mesh.core.breaker import Standing
from kowalski.mesh.core.placement import Kind
from kowalski.mesh.mesh import Mesh, PeerFacts
from kowalski.node.core.http_counts import HttpCounts, Times, Tokens
from kowalski.node.http.completions import Completed
from kowalski.node.services.copies import CopyRoom
from kowalski.node.services.dispatch import Dispatch
from kowalski.node.services.submitter import SubmitterRoom
from kowalski.protocol.messages.telemetry import Hot

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
KINDS: tuple[Kind, ...] = get_args(Kind)
STANDINGS = {Standing.CLOSED: "closed", Standing.HALF_OPEN: "half_open", Standing.OPEN: "open"}
OPENNESS = {Standing.CLOSED: 0.0, Standing.HALF_OPEN: 0.5, Standing.OPEN: 1.0}
TASK_STATES = ("waiting", "running", "answered", "failed", "cancelled")


@dataclass(frozen=True, slots=True)
class Seen:
    """The rooms that are looked at when somebody asks."""

    mesh: Mesh
    submitter: SubmitterRoom
    dispatch: Dispatch
    copies: CopyRoom | None = None


class NodeMetrics:
    def __init__(self, seen: Seen) -> None:
        self._registry = CollectorRegistry()
        self._counts = HttpCounts()
        self.request_answered = self._counts.request_answered
        """By route, method, status and seconds."""
        self.connections = Gauge(
            "kowalski_http_connections", "Open HTTP connections.", registry=self._registry
        )
        self._registry.register(_Counted(self._counts))
        self._registry.register(_MeshSeen(seen.mesh, seen.submitter))
        self._registry.register(_WorkSeen(seen))
        ProcessCollector(registry=self._registry)

    def expose(self) -> bytes:
        return generate_latest(self._registry)

    def call_ended(self, call: Completed) -> None:
        usage = call.usage
        used = None
        if usage is not None:
            used = Tokens(usage.prompt_tokens, usage.completion_tokens)
        self._counts.call_ended(call.model, call.peer, call.outcome, call.after_s, used)


class _Unnamed:
    """What is read off when somebody looks."""

    def describe(self) -> Iterator[Metric]:
        """Nothing: the registry would collect all of it to learn the names."""
        return iter(())


class _Counted(_Unnamed):
    """The node's own counts."""

    def __init__(self, counts: HttpCounts) -> None:
        self._counts = counts

    def collect(self) -> Iterator[Metric]:
        requests = CounterMetricFamily(
            "kowalski_http_requests",
            "HTTP requests that were answered.",
            labels=("route", "method", "status"),
        )
        calls = CounterMetricFamily(
            "kowalski_model_calls",
            "Model calls asked for over HTTP, by the peer that answered.",
            labels=("model", "peer", "outcome"),
        )
        tokens = CounterMetricFamily(
            "kowalski_model_tokens",
            "Tokens of model calls asked for over HTTP.",
            labels=("model", "direction"),
        )
        counts = self._counts
        for labels, count in counts.requests():
            requests.add_metric(labels, count)
        for labels, count in counts.calls():
            calls.add_metric(labels, count)
        for model, used in counts.tokens.items():
            tokens.add_metric((model, "prompt"), used.prompt)
            tokens.add_metric((model, "completion"), used.completion)
        yield from (requests, calls, tokens)
        yield _times(
            "kowalski_http_request_seconds",
            "From the head of a request to the end of its answer.",
            "route",
            counts.request_s,
        )
        yield _times(
            "kowalski_model_call_seconds",
            "From a model call to the end of its answer.",
            "model",
            counts.call_s,
        )


def _times(name: str, help_text: str, label: str, of: Mapping[str, Times]) -> Metric:
    family = HistogramMetricFamily(name, help_text, labels=(label,))
    for value, times in of.items():
        family.add_metric((value,), times.buckets(), times.sum_s)
    return family


class _MeshSeen(_Unnamed):
    """Read off the rooms when somebody looks."""

    def __init__(self, mesh: Mesh, submitter: SubmitterRoom) -> None:
        self._mesh = mesh
        self._submitter = submitter

    def collect(self) -> Iterator[Metric]:
        yield self._node()
        yield from self._peers()
        yield from self._tasks()
        yield self._refused()

    def _node(self) -> Metric:
        family = GaugeMetricFamily(
            "kowalski_node_info",
            "This node; always 1.",
            labels=("name", "peer", "mesh", "version"),
        )
        mesh = self._mesh
        name = mesh.name_of(mesh.me)
        family.add_metric((name, mesh.me, mesh.membership.mesh, __version__), 1)
        return family

    def _peers(self) -> Iterator[Metric]:
        labels = ("peer", "name")
        states = GaugeMetricFamily("kowalski_peers", "Peers, by state.", labels=("state",))
        routable = GaugeMetricFamily(
            "kowalski_peer_routable", "1 where work is sent to the peer.", labels=labels
        )
        rtt = GaugeMetricFamily(
            "kowalski_peer_round_trip_seconds", "Smoothed round trip.", labels=labels
        )
        load = GaugeMetricFamily(
            "kowalski_peer_load",
            "(running + queued) / slots, by kind of work.",
            labels=(*labels, "kind"),
        )
        memory = GaugeMetricFamily(
            "kowalski_peer_memory_used_ratio", "Memory in use.", labels=labels
        )
        cpu = GaugeMetricFamily("kowalski_peer_cpu_used_ratio", "CPU in use.", labels=labels)
        facts = self._mesh.facts()
        for state, count in Tally(one.state for one in facts).items():
            states.add_metric((state,), count)
        for one in facts:
            who = (one.peer, one.name)
            routable.add_metric(who, float(one.is_routable))
            if one.rtt_s is not None:
                rtt.add_metric(who, one.rtt_s)
            if one.hot is not None:
                memory.add_metric(who, one.hot.memory_used)
                cpu.add_metric(who, one.hot.cpu_used)
                for kind, at in _loads(one.hot):
                    load.add_metric((*who, kind), at)
        yield from (states, routable, rtt, load, memory, cpu)
        yield from _conditions(facts)

    def _tasks(self) -> Iterator[Metric]:
        family = GaugeMetricFamily(
            "kowalski_tasks", "Tasks that were submitted here, by state.", labels=("state",)
        )
        counts = Tally(str(task.state) for task in self._submitter.tasks)
        for state in (*TASK_STATES, *sorted(set(counts) - set(TASK_STATES))):
            family.add_metric((state,), counts[state])
        yield family

    def _refused(self) -> Metric:
        family = CounterMetricFamily(
            "kowalski_refused",
            "Requests of peers that were refused, by reason.",
            labels=("reason",),
        )
        for reason, count in self._mesh.trust.refused.items():
            family.add_metric((reason,), count)
        return family


class _WorkSeen:
    """How work is placed, told and kept: read off the rooms when somebody looks.

    Labels are words of ours and names of peers, which a mesh has few of.
    """

    def __init__(self, seen: Seen) -> None:
        self._seen = seen

    def describe(self) -> Iterator[Metric]:
        """As of `_MeshSeen`."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        yield self._placements()
        yield from self._breakers()
        yield from self._gossip()
        yield from self._journals()

    def _placements(self) -> Metric:
        family = CounterMetricFamily(
            "kowalski_placements",
            "Choices of a peer, by kind of work, how it was chosen, and what came of it.",
            labels=("kind", "way", "outcome"),
        )
        for labels, count in sorted(self._seen.dispatch.decisions.counts.items()):
            family.add_metric(labels, count)
        return family

    def _breakers(self) -> Iterator[Metric]:
        states = GaugeMetricFamily(
            "kowalski_breakers",
            "Breakers of peers for kinds of work, by state; what is open is sent nothing.",
            labels=("kind", "state"),
        )
        opened = CounterMetricFamily(
            "kowalski_breakers_opened", "Times that one opened.", labels=("kind",)
        )
        cut_off = GaugeMetricFamily(
            "kowalski_peer_breaker_open",
            "1 where the breaker of the peer is open, 0.5 where it is tried again.",
            labels=("peer", "name", "kind"),
        )
        breakers, name_of = self._seen.dispatch.breakers, self._seen.mesh.name_of
        counts = Tally((key[1], standing) for key, standing in breakers)
        for kind in KINDS:
            opened.add_metric((kind,), breakers.opened[kind])
            for standing, word in STANDINGS.items():
                states.add_metric((kind, word), counts[kind, standing])
        for (peer, kind), standing in breakers:
            cut_off.add_metric((peer, name_of(peer), kind), OPENNESS[standing])
        yield from (states, opened, cut_off)

    def _gossip(self) -> Iterator[Metric]:
        told = self._seen.mesh.telemetry
        messages = CounterMetricFamily(
            "kowalski_gossip_messages",
            "Messages of peers about themselves, ours and theirs.",
            labels=("direction",),
        )
        messages.add_metric(("sent",), told.sent)
        messages.add_metric(("received",), told.received)
        lost = CounterMetricFamily(
            "kowalski_gossip_lost",
            "Numbers of peers' messages that did not come; while peers join, an upper bound.",
        )
        lost.add_metric((), told.gaps.lost)
        yield from (messages, lost)

    def _journals(self) -> Iterator[Metric]:
        entries = CounterMetricFamily(
            "kowalski_journal_entries",
            "Entries of journals written to the disk: own tasks, copies for others, detached.",
            labels=("journal",),
        )
        sizes = CounterMetricFamily(
            "kowalski_journal_bytes", "Bytes of these entries.", labels=("journal",)
        )
        counts = Tally(self._seen.submitter.journalled)
        if self._seen.copies is not None:
            counts.update(self._seen.copies.journalled)
        for whose in ("own", "copies", "detached"):
            entries.add_metric((whose,), counts[whose, "entries"])
            sizes.add_metric((whose,), counts[whose, "bytes"])
        yield from (entries, sizes)


def _conditions(facts: Iterable[PeerFacts]) -> Iterator[Metric]:
    """How the devices are; those that do not tell a value have none."""
    labels = ("peer", "name")
    swap = GaugeMetricFamily("kowalski_peer_swap_used_ratio", "Swap in use.", labels=labels)
    disk = GaugeMetricFamily(
        "kowalski_peer_disk_free_bytes", "Room on the disk of the node's data.", labels=labels
    )
    heat = GaugeMetricFamily(
        "kowalski_peer_temperature_celsius", "Of the hottest sensor.", labels=labels
    )
    battery = GaugeMetricFamily("kowalski_peer_battery_charge_ratio", "Charge.", labels=labels)
    plugged = GaugeMetricFamily(
        "kowalski_peer_battery_plugged", "1 where the device is plugged in.", labels=labels
    )
    pressure = GaugeMetricFamily(
        "kowalski_peer_pressure_ratio",
        "Time in which some task waited for the resource (Linux PSI, 10 s).",
        labels=(*labels, "resource"),
    )
    gpu = GaugeMetricFamily("kowalski_peer_gpu_used_ratio", "GPU in use.", labels=(*labels, "gpu"))
    gpu_memory = GaugeMetricFamily(
        "kowalski_peer_gpu_memory_used_ratio", "Memory of the GPU in use.", labels=(*labels, "gpu")
    )

    for one in facts:
        if one.hot is None:
            continue
        who, told = (one.peer, one.name), one.hot.condition
        found: list[tuple[GaugeMetricFamily, tuple[str, ...], float | None]] = [
            (swap, who, told.swap_used),
            (disk, who, told.disk_free_bytes),
            (heat, who, told.temperature_c),
        ]
        if told.battery is not None:
            found += [(battery, who, told.battery.charge), (plugged, who, told.battery.is_plugged)]
        if told.pressure is not None:
            found += [
                (pressure, (*who, "cpu"), told.pressure.cpu),
                (pressure, (*who, "memory"), told.pressure.memory),
                (pressure, (*who, "io"), told.pressure.io),
            ]
        for number, use in enumerate(told.gpus):
            found += [
                (gpu, (*who, str(number)), use.busy),
                (gpu_memory, (*who, str(number)), use.memory_used),
            ]
        for family, labelled, value in found:
            if value is not None:
                family.add_metric(labelled, float(value))
    yield from (swap, disk, heat, battery, plugged, pressure, gpu, gpu_memory)


def _loads(hot: Hot) -> Iterator[tuple[str, float]]:
    for kind, at in (("code", hot.repl), ("inference", hot.inference), ("folding", hot.folding)):
        if at.slots:
            yield kind, (at.running + at.queued) / at.slots
