"""One task, one trace, over the processes that worked for it."""

from __future__ import annotations

from pathlib import Path

import pytest

from kowalski.node.tracing import task_trace_id
from tests.integration.cluster import START_S, open_cluster, wait_until
from tests.otlp_collector import Collector

pytestmark = [pytest.mark.real, pytest.mark.timeout(240)]

PROMPT = "```python\nprint(6 * 7)\n```"


def test_a_task_led_on_one_node_and_run_on_another_is_one_trace(tmp_path: Path) -> None:
    with Collector().serving() as collector, open_cluster(tmp_path) as cluster:
        where = ("--no-mdns", "--otlp-endpoint", collector.url)
        first = cluster.start("leader", *where, "--roles", "submit,coordinate")
        first.wait_until_up(START_S)
        line = first.invite(uses=1)
        cluster.start("worker", *where, "--join", line, "--roles", "repl")
        cluster.wait_until_met(START_S)
        done = cluster.cli(first, "submit", "--json", "--mode", "blocks", PROMPT)
        assert done.exit_code == 0, done
        trace = task_trace_id(done.result["task"]).to_bytes(16, "big")

        def ours() -> dict[str, list[object]]:
            found: dict[str, list[object]] = {"leader": [], "worker": []}
            for node, span in list(collector.spans):
                if span.trace_id == trace:
                    found[node].append(span)
            return found

        wait_until(lambda: all(ours().values()), "both have told of it")
        cluster.close()
        told = ours()
    (grant,) = [one for one in told["leader"] if one.name.endswith("task/grant")]
    (cell,) = [one for one in told["worker"] if one.name.endswith("repl/cell-asked")]
    assert cell.parent_span_id == grant.span_id
    assert grant.start_time_unix_nano < cell.start_time_unix_nano
    assert cell.end_time_unix_nano < grant.end_time_unix_nano
