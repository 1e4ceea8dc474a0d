"""Measure, and compare with what a user would pick instead: `python -m benchmarks run|compare`.

`run` measures this project alone, `compare` beside others on the same machine: those are installed
into a cache of their own, started, asked the same against the same scripted server, and stopped.
Both print their figures with machine and versions as they come, and leave results.json and
index.html behind. What cannot be installed or does not start is named with its reason.
"""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from benchmarks import environments, results
from benchmarks.page import page
from benchmarks.running import ROOT, install, run
from benchmarks.scenarios import SCENARIOS, Scenario

DOCUMENT = ROOT / "docs" / "benchmarks.md"
OUT = ROOT / "build" / "benchmarks"


def main(given: Sequence[str] | None = None, scenarios: tuple[Scenario, ...] = SCENARIOS) -> int:
    """The exit code: 0, or 1 where a scenario did not come to its end."""
    options = _arguments(scenarios).parse_args(given)
    for one in (signal.SIGINT, signal.SIGTERM):
        # Also where a shell has started this in the background, and told it to ignore Ctrl-C.
        signal.signal(one, signal.default_int_handler)
    if options.command == "list":
        return _list(scenarios)
    is_comparing = options.command == "compare"
    names = options.scenario or [one.name for one in scenarios if one.peers or not is_comparing]
    wanted = [one for name in names for one in scenarios if one.name == name]
    found = {}
    if is_comparing:
        peers = [peer for one in wanted for peer in one.peers]
        asked = options.peers or peers
        found = install((peer for peer in peers if peer in asked), options.cache)
    told = run(wanted, found, is_quick=options.quick)
    options.out.mkdir(parents=True, exist_ok=True)
    told.save(options.out / "results.json")
    (options.out / "index.html").write_text(page(told), encoding="utf-8")
    print(f"\n{results.about(told)}\n{options.out / 'index.html'}")
    if is_comparing and options.document:
        document = results.put_into(DOCUMENT.read_text(), results.as_markdown(told))
        DOCUMENT.write_text(document)
    return int(any(one.failure for one in told.outcomes))


def _arguments(scenarios: tuple[Scenario, ...]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.set_defaults(command="run", scenario=[], quick=False, out=OUT)
    names = [one.name for one in scenarios]
    commands = parser.add_subparsers(dest="command", metavar="run | compare | list")
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument(
        "scenario", nargs="*", type=_one_of("scenario", names), metavar="SCENARIO", help="or all"
    )
    common.add_argument("--quick", action="store_true", help="fewer runs: minutes, not an hour")
    common.add_argument("--out", type=Path, default=OUT, metavar="FOLDER", help="for the results")
    commands.add_parser("run", parents=[common], help="this project alone")
    compare = commands.add_parser("compare", parents=[common], help="beside others")
    compare.add_argument(
        "--peers", nargs="+", type=_one_of("peer", environments.BY_NAME), help="these alone"
    )
    compare.add_argument(
        "--cache", type=Path, default=environments.cache_folder(), help="where they are installed"
    )
    compare.add_argument("--document", action="store_true", help="put it into docs/benchmarks.md")
    commands.add_parser("list", help="scenarios, and whom they compare with")
    return parser


def _one_of(what: str, known: Iterable[str]) -> Callable[[str], str]:
    names = tuple(known)

    def check(text: str) -> str:
        if text not in names:
            raise argparse.ArgumentTypeError(f"no {what} {text}; there are {', '.join(names)}")
        return text

    return check


def _list(scenarios: tuple[Scenario, ...]) -> int:
    for scenario in scenarios:
        beside = f" (beside {', '.join(scenario.peers)})" if scenario.peers else ""
        print(f"{scenario.name:12} {scenario.about}{beside}")
    print()
    for peer in environments.PEERS:
        what = ", ".join(filter(None, [*peer.requirements, peer.npm, *_programs(peer)]))
        print(f"{peer.name:14} {peer.about}: {what}")
    return 0


def _programs(peer: environments.Peer) -> list[str]:
    return [f"Debian's {one.program}" for one in peer.debian]


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit("\ninterrupted; what was started is stopped")
