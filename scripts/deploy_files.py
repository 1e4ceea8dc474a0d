"""Writes the files of deploy/ that are made from code: units, agents and the Grafana dashboard.

`python scripts/deploy_files.py` writes them, `--check` says which are not as they should be.
"""

import json
import sys
from pathlib import Path

from kowalski.node.service_units import launchd_agent, systemd_unit

ROOT = Path(__file__).resolve().parent.parent
PROGRAM = "/usr/local/bin/kowalski-node"


def panel(number: int, title: str, unit: str, *queries: tuple[str, str], kind: str) -> object:
    """One graph or table; two in a row."""
    targets = [
        {"refId": chr(65 + at), "expr": query, "legendFormat": legend}
        for at, (query, legend) in enumerate(queries)
    ]
    return {
        "id": number + 1,
        "type": kind,
        "title": title,
        "datasource": {"type": "prometheus", "uid": "${source}"},
        "gridPos": {"h": 8, "w": 12, "x": 12 * (number % 2), "y": 8 * (number // 2)},
        "fieldConfig": {"defaults": {"unit": unit, "min": 0}, "overrides": []},
        "targets": targets,
    }


def p(share: float, metric: str, by: str) -> str:
    return f"histogram_quantile({share}, sum by (le, {by}) (rate({metric}_bucket[5m])))"


PANELS = (
    ("Peers, by state", "none", (("max by (state) (kowalski_peers)", "{{state}}"),)),
    ("Load, by peer", "none", (("max by (name, kind) (kowalski_peer_load)", "{{name}} {{kind}}"),)),
    (
        "Round trips",
        "s",
        (("kowalski_peer_round_trip_seconds", "{{instance}} to {{name}}"),),
    ),
    (
        "Memory in use, by peer",
        "percentunit",
        (("max by (name) (kowalski_peer_memory_used_ratio)", "{{name}}"),),
    ),
    (
        "Tasks, by state",
        "none",
        (("sum by (state) (kowalski_tasks)", "{{state}}"),),
    ),
    (
        "Model calls per second, by peer and outcome",
        "reqps",
        (
            (
                "sum by (peer, outcome) (rate(kowalski_model_calls_total[5m]))",
                "{{peer}} {{outcome}}",
            ),
        ),
    ),
    (
        "Time of a model call",
        "s",
        (
            (p(0.5, "kowalski_model_call_seconds", "model"), "p50 {{model}}"),
            (p(0.95, "kowalski_model_call_seconds", "model"), "p95 {{model}}"),
        ),
    ),
    (
        "Tokens per second",
        "none",
        (
            (
                "sum by (model, direction) (rate(kowalski_model_tokens_total[5m]))",
                "{{model}} {{direction}}",
            ),
        ),
    ),
    (
        "HTTP requests per second, by status",
        "reqps",
        (("sum by (status) (rate(kowalski_http_requests_total[5m]))", "{{status}}"),),
    ),
    (
        "Time of an HTTP request",
        "s",
        ((p(0.95, "kowalski_http_request_seconds", "route"), "p95 {{route}}"),),
    ),
    (
        "Placements per second, by kind and outcome",
        "ops",
        (
            (
                "sum by (kind, outcome) (rate(kowalski_placements_total[5m]))",
                "{{kind}} {{outcome}}",
            ),
        ),
    ),
    (
        "Peers that are sent nothing for a while",
        "none",
        (
            ("max by (name, kind) (kowalski_peer_breaker_open)", "{{name}} {{kind}}"),
            ("sum by (kind) (increase(kowalski_breakers_opened_total[5m]))", "opened {{kind}}"),
        ),
    ),
    (
        "Gossip per second",
        "ops",
        (
            (
                "sum by (direction) (rate(kowalski_gossip_messages_total[5m]))",
                "{{direction}}",
            ),
            ("sum (rate(kowalski_gossip_lost_total[5m]))", "lost"),
        ),
    ),
    (
        "Journals written per second",
        "Bps",
        (("sum by (journal) (rate(kowalski_journal_bytes_total[5m]))", "{{journal}}"),),
    ),
)


def grafana() -> str:
    panels = [
        panel(number, title, unit, *queries, kind="timeseries")
        for number, (title, unit, queries) in enumerate(PANELS)
    ]
    source = {"name": "source", "type": "datasource", "query": "prometheus", "label": "Prometheus"}
    dashboard = {
        "title": "Kowalski mesh",
        "uid": "kowalski-mesh",
        "schemaVersion": 39,
        "refresh": "10s",
        "time": {"from": "now-1h", "to": "now"},
        "templating": {"list": [source]},
        "panels": panels,
    }
    return json.dumps(dashboard, indent=2) + "\n"


def files() -> dict[Path, str]:
    """Every file that is made here, and what is in it."""
    deploy = ROOT / "deploy"
    start = (PROGRAM, "start")
    data = {"KOWALSKI_DATA_DIR": "/var/lib/kowalski"}
    return {
        deploy / "systemd" / "kowalski-node.service": systemd_unit(start, data, for_user=False),
        deploy / "systemd" / "user-kowalski-node.service": systemd_unit(start, {}, for_user=True),
        deploy / "launchd" / "org.kowalski.node.plist": launchd_agent(
            start, {}, "/tmp/kowalski-node.log"
        ),
        deploy / "grafana" / "kowalski-mesh.json": grafana(),
    }


def main(*arguments: str) -> int:
    made = files()
    stale = [path for path in made if not path.exists() or path.read_text() != made[path]]
    if arguments == ("--check",):
        for path in stale:
            print(f"{path.relative_to(ROOT)} is not what {Path(__file__).name} would write")
        return 1 if stale else 0
    for path in stale:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(made[path], encoding="utf-8")
        print(path.relative_to(ROOT))
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
