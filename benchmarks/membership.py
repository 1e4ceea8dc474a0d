"""Who is there: how soon a lost node is noticed, beside Serf: `python -m benchmarks.membership`.

Real nodes and Serf's agents in the same network namespaces, on one bridge; needs root and `ip`,
and for the comparison Debian's `serf` and `nftables` (without: no Serf, no bytes). The faults hit
both at once. `unroutable`: no work is sent there any more; Serf has no such thing. `failed`: the
verdict of all. `back`: from the end of the fault, or from the start of a new process.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks import machine
from benchmarks.figures import Figure, record
from benchmarks.membership_agents import Agents, Opinion, Seen, open_nodes, open_serf, signal_to
from tests.netns import Machine, lan, missing

FAILED_S = 40.0
BACK_S = 45.0
LOOK_S = 0.1
SETTLE_S = 3.0

PORTS = {"kowalski-node": "4170", "Serf": "7946", "multicast": "5353"}
COUNTED = """
add table inet bench
add counter inet bench {name}
add chain inet bench {name} {{ type filter hook output priority 0; }}
add rule inet bench {name} meta l4proto {{ tcp, udp }} th dport {port} counter name {name} return
add rule inet bench {name} meta l4proto {{ tcp, udp }} th sport {port} counter name {name}
"""


@dataclass(frozen=True, slots=True)
class Fault:
    title: str
    begin: Callable[[], None]
    end: Callable[[], None]


def main() -> None:
    arguments = argparse.ArgumentParser(prog="python -m benchmarks.membership", description=__doc__)
    arguments.add_argument("--sizes", type=int, nargs="+", default=[3, 8], help="default 3 8")
    arguments.add_argument("--runs", type=int, default=1, help="of each fault (default 1)")
    arguments.add_argument(
        "--quiet-s", type=float, default=60.0, help="quiet, and under load, each; 0 for neither"
    )
    options = arguments.parse_args()
    if why_not := missing():
        sys.exit(f"this benchmark runs in network namespaces: {why_not}")
    # Nodes, agents and namespaces go with us, also when we are told to stop.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    sys.stdout.write(f"{machine.describe()}\n{_versions()}\n")
    for size in options.sizes:
        _measure(size, options.runs, options.quiet_s)


def _versions() -> str:
    if shutil.which("serf") is None:
        return "no Serf here"
    said = subprocess.run(["serf", "version"], capture_output=True, text=True, check=True).stdout
    shown = subprocess.run(
        ["dpkg-query", "--show", "serf"], capture_output=True, text=True, check=False
    ).stdout
    return f"Serf {said.split()[0]}, Debian's {shown.split()[-1] if shown else '?'}"


def _measure(size: int, runs: int, quiet_s: float) -> None:
    _say(f"\n{size} nodes, load average {os.getloadavg()[0]:.1f}")
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        machines = {f"n{at}": one for at, one in enumerate(stack.enter_context(lan(size)), 1)}
        began = time.monotonic()
        meshes: list[Agents] = [stack.enter_context(open_nodes(folder, machines))]
        _say(f"kowalski-node: all up and met after {time.monotonic() - began:.1f} s")
        if shutil.which("serf"):
            meshes.append(stack.enter_context(open_serf(machines)))
        _wait(lambda: all(_has_met(agents, machines) for agents in meshes[1:]), BACK_S)
        time.sleep(SETTLE_S)
        if quiet_s:
            counting = _count_bytes(machines.values()) if shutil.which("nft") else None
            _watch("quiet", meshes, machines, quiet_s, counting)
            with busy_loops(2 * (os.cpu_count() or 1)) as count:
                _watch(f"{count} busy loops", meshes, machines, quiet_s, counting)
        _head("seconds", [f"{agents.title}: {what}" for agents in meshes for what in WHAT])
        for fault in _faults(f"n{size}", meshes, machines):
            _strike(fault, f"n{size}", meshes, machines, runs)


def _has_met(agents: Agents, machines: Mapping[str, Machine]) -> bool:
    pairs = {(one.observer, one.about) for one in agents.seen() if one.opinion == "alive"}
    return all((a, b) in pairs for a in machines for b in machines if a != b)


# --- when nothing is wrong ------------------------------------------------------------------------


def _watch(
    title: str,
    meshes: Sequence[Agents],
    machines: Mapping[str, Machine],
    seconds: float,
    counting: Callable[[], dict[str, tuple[int, int]]] | None,
) -> None:
    """What it costs, and who is accused, for some seconds in which everybody is well."""
    began, sent = time.time(), counting() if counting else {}
    spent = [_cpu_s(agents, machines) for agents in meshes]
    time.sleep(seconds)
    sent_after = counting() if counting else {}
    share = len(machines) * seconds
    _say(f"\n{title}, {seconds:g} s, load average {os.getloadavg()[0]:.1f}; a node and a second:")
    for agents, before in zip(meshes, spent, strict=True):
        cpu = 100 * (_cpu_s(agents, machines) - before) / share
        since = [one for one in agents.seen() if one.at >= began]
        counts = ", ".join(
            f"{what} {sum(one.opinion == what for one in since)}" for what in ACCUSATIONS
        )
        packets, octets = _sent(agents.title, sent, sent_after)
        _say(
            f"  {agents.title:14} {cpu:5.2f} % of a core; sends {octets / share / 1000:.2f} kB in"
            f" {packets / share:.1f} packets; of all: {counts}"
        )
    packets, _ = _sent("multicast", sent, sent_after)
    _say(f"  {'multicast':14} {packets / share:.3f} packets")


ACCUSATIONS: tuple[Opinion, ...] = ("suspect", "failed", "unroutable")


def _cpu_s(agents: Agents, names: Iterable[str]) -> float:
    return sum(sum(agents.process(name).cpu_times()[:2]) for name in names)


def _count_bytes(machines: Iterable[Machine]) -> Callable[[], dict[str, tuple[int, int]]]:
    """Count what each machine sends, by port; what is returned reads packets and bytes of all."""
    script = "".join(COUNTED.format(name=_counter(name), port=port) for name, port in PORTS.items())
    watched = tuple(machines)
    for one in watched:
        one.run("nft", script)

    def read() -> dict[str, tuple[int, int]]:
        totals = dict.fromkeys(PORTS, (0, 0))
        for one in watched:
            told = json.loads(one.run("nft", "-j", "list", "counters"))["nftables"]
            found = {row["counter"]["name"]: row["counter"] for row in told if "counter" in row}
            for name, (packets, octets) in totals.items():
                row = found[_counter(name)]
                totals[name] = (packets + row["packets"], octets + row["bytes"])
        return totals

    return read


def _counter(name: str) -> str:
    return name.replace("-", "_").lower()


def _sent(
    name: str, before: Mapping[str, tuple[int, int]], after: Mapping[str, tuple[int, int]]
) -> tuple[float, float]:
    nothing = (float("nan"), float("nan"))
    (p, b), (q, c) = before.get(name, nothing), after.get(name, nothing)
    return q - p, c - b


@contextmanager
def busy_loops(count: int) -> Iterator[int]:
    """Processes that compute for nothing, of the same priority as the nodes."""
    hogs = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield count
    finally:
        for hog in hogs:
            hog.kill()
            hog.wait(10)


# --- faults ---------------------------------------------------------------------------------------

NOTICED: tuple[Opinion, ...] = ("unroutable", "failed")
WHAT = (*NOTICED, "back")


def _faults(
    victim: str, meshes: Sequence[Agents], machines: Mapping[str, Machine]
) -> Iterator[Fault]:
    def of_all(act: Callable[[Agents], object]) -> Callable[[], None]:
        def act_on_each() -> None:
            for agents in meshes:
                act(agents)

        return act_on_each

    yield Fault(
        "kill -9",
        of_all(lambda agents: agents.kill(victim)),
        of_all(lambda agents: agents.start(victim)),
    )
    yield Fault(
        "SIGSTOP",
        of_all(lambda agents: signal_to(agents, victim, signal.SIGSTOP)),
        of_all(lambda agents: signal_to(agents, victim, signal.SIGCONT)),
    )
    yield Fault("link down", machines[victim].cut, machines[victim].mend)


def _strike(
    fault: Fault,
    victim: str,
    meshes: Sequence[Agents],
    machines: Mapping[str, Machine],
    runs: int,
) -> None:
    survivors = frozenset(machines) - {victim}
    times: list[dict[str, list[float]]] = [{what: [] for what in WHAT} for _ in meshes]
    false = [0 for _ in meshes]
    for _ in range(runs):
        began, healed = _suffer(fault, victim, meshes, survivors)
        for at, agents in enumerate(meshes):
            seen = [one for one in agents.seen() if one.observer in survivors]
            for what in NOTICED:
                times[at][what] += _delays(seen, victim, {what}, began, healed)
            times[at]["back"] += _delays(seen, victim, agents.back, healed)
            false[at] += sum(
                one.opinion == "failed" and one.about != victim and one.at >= began for one in seen
            )
        time.sleep(SETTLE_S)
    for agents, of_each in zip(meshes, times, strict=True):
        for named_what, values in of_each.items():
            if values:
                named = f"{len(machines)} nodes, {fault.title}: {named_what} (s)"
                middle = statistics.median(values)
                record(Figure(named, middle, min(values), max(values), agents.title.lower()))
    expected = runs * len(survivors)
    cells = [_cell(times[at][what], expected) for at in range(len(meshes)) for what in WHAT]
    _row(fault.title, cells)
    for agents, count in zip(meshes, false, strict=True):
        if count:
            _say(f"    {agents.title}: {count} false verdicts among the survivors")


def _suffer(
    fault: Fault, victim: str, meshes: Sequence[Agents], survivors: frozenset[str]
) -> tuple[float, float]:
    """Let it happen until all have noticed, and end it until all is well; when it did both."""

    def have_all_seen(opinions: Callable[[Agents], Iterable[Opinion]], since: float) -> bool:
        for agents in meshes:
            seen = [one for one in agents.seen() if one.observer in survivors]
            if len(_delays(seen, victim, opinions(agents), since)) < len(survivors):
                return False
        return True

    began = time.time()
    fault.begin()
    _wait(lambda: have_all_seen(lambda _: {"failed"}, began), FAILED_S)
    healed = time.time()
    fault.end()
    _wait(lambda: have_all_seen(lambda agents: agents.back, healed), BACK_S)
    return began, healed


def _delays(
    seen: Iterable[Seen],
    victim: str,
    opinions: Iterable[Opinion],
    since: float,
    until: float = float("inf"),
) -> list[float]:
    """By observer, how long it took until it had been of each of these opinions."""
    first: dict[str, dict[str, float]] = {}
    wanted = set(opinions)
    for one in sorted(seen, key=lambda one: one.at):
        if one.about == victim and one.opinion in wanted and since <= one.at < until:
            first.setdefault(one.observer, {}).setdefault(one.opinion, one.at - since)
    return [max(found.values()) for found in first.values() if found.keys() == wanted]


def _wait(holds: Callable[[], bool], timeout_s: float) -> None:
    """For that, or so long: what did not happen shows in the table."""
    give_up_at = time.monotonic() + timeout_s
    while not holds() and time.monotonic() < give_up_at:
        time.sleep(LOOK_S)


# --- telling --------------------------------------------------------------------------------------


def _cell(values: Sequence[float], expected: int) -> str:
    if not values:
        return "-"
    missed = f", {expected - len(values)} never" if len(values) < expected else ""
    return f"{statistics.median(values):.2f}, {max(values):.2f}{missed}"


def _head(title: str, columns: Sequence[str]) -> None:
    _say(f"\n{title}: median and most of all survivors")
    _row("", columns)


def _row(title: str, cells: Iterable[str]) -> None:
    _say(f"{title:10} " + " ".join(f"{cell:>25}" for cell in cells))


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
