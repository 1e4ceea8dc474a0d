"""Nodes that start together on a machine that is short of time: `python -m benchmarks.starting`.

Real nodes in network namespaces, and loops beside them that compute for nothing; needs root and
`ip`. How soon all have met, and who is accused, or sent no work, although everybody is there.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from benchmarks import machine
from benchmarks.figures import Figure, record
from benchmarks.membership import busy_loops
from benchmarks.membership_agents import Nodes, Opinion
from tests.integration.cluster import START_S, Cluster, open_cluster
from tests.netns import lan, missing

LOOK_S = 2.0
WATCHED_S = 15.0
"""Once all have met: by then they have stayed together, or not."""

WRONG: tuple[Opinion, ...] = ("suspect", "failed", "unroutable")


def main() -> None:
    arguments = argparse.ArgumentParser(prog="python -m benchmarks.starting", description=__doc__)
    arguments.add_argument("--nodes", type=int, default=8)
    arguments.add_argument("--busy-loops", type=int, default=20)
    arguments.add_argument("--patience-s", type=float, default=120.0)
    options = arguments.parse_args()
    if why_not := missing():
        sys.exit(f"this benchmark runs in network namespaces: {why_not}")
    # Nodes, loops and namespaces go with us, also when we are told to stop.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    print(machine.describe(), flush=True)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        made = stack.enter_context(lan(options.nodes))
        machines = {f"n{at}": one for at, one in enumerate(made, 1)}
        cluster = stack.enter_context(open_cluster(folder))
        nodes = Nodes(cluster, machines)
        first, *others = machines
        nodes.start(first)
        cluster.named(first).wait_until_up(START_S)
        line = cluster.named(first).invite(uses=len(others))
        stack.enter_context(busy_loops(options.busy_loops))
        began = time.time()
        for name in others:
            nodes.start(name, "--join", line)
        met_s = _met_s(nodes, began, options.patience_s)
        if met_s is not None:
            time.sleep(WATCHED_S)
        _tell(nodes, options.nodes, options.busy_loops, met_s)


def _met_s(nodes: Nodes, began: float, patience_s: float) -> float | None:
    """When each held every other for alive and sent it work; None: not in that time."""
    wanted = len(nodes.machines) * (len(nodes.machines) - 1)
    while time.time() < began + patience_s:
        time.sleep(LOOK_S)
        _name_peers(nodes.cluster)
        last = {
            (one.observer, one.about, one.opinion in ("routable", "unroutable")): one
            for one in sorted(nodes.seen(), key=lambda one: one.at)
        }
        good = [one for one in last.values() if one.opinion in ("routable", "alive")]
        if len([one for one in good if one.observer != one.about]) == 2 * wanted:
            return max(one.at for one in good) - began
    return None


def _name_peers(cluster: Cluster) -> None:
    """Who a node is stands in its log before its control socket answers."""
    for node in cluster.nodes:
        log = node.data_dir / "node.log"
        if node.peer or not log.exists():
            continue
        for said in log.read_text(errors="replace").splitlines():
            if '"ready"' in said and said.endswith("}"):
                node.peer = json.loads(said)["peer"]


def _tell(nodes: Nodes, count: int, loops: int, met_s: float | None) -> None:
    seen = nodes.seen()
    wrong = ", ".join(f"{what} {sum(one.opinion == what for one in seen)}" for what in WRONG)
    met = "not all met" if met_s is None else f"all met after {met_s:.0f} s"
    load = os.getloadavg()[0]
    print(f"{count} nodes, {loops} busy loops, load {load:.1f} at the end: {met}; views of {wrong}")
    if met_s is not None:
        record(
            Figure(
                f"{count} nodes that start beside {loops} busy loops: all met (s)",
                met_s,
                met_s,
                met_s,
            )
        )


if __name__ == "__main__":
    main()
