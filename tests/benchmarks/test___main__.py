"""The command itself, as a process: names, results, and its end in the middle."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from benchmarks.__main__ import main
from benchmarks.results import load
from tests.benchmarks.tiny import Tiny

ROOT = Path(__file__).resolve().parents[2]


def test_scenarios_and_peers_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["list"]) == 0
    told = capsys.readouterr().out
    assert "gateways" in told
    assert "litellm[proxy]==" in told


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (["run", "nothing"], "no scenario nothing; there are gateways, "),
        (["compare", "--peers", "nobody"], "no peer nobody; there are litellm, "),
    ],
)
def test_a_name_that_there_is_not_is_refused_with_those_that_there_are(
    given: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(given)
    assert ended.value.code == 2
    assert words in capsys.readouterr().err


def test_a_run_leaves_results_and_a_page_behind_and_tells_by_its_code_whether_all_went_well(
    tmp_path: Path,
) -> None:
    scenarios = (Tiny("good", "a test"), Tiny("bad", "a test", quick=("--fails",)))
    out = ["--out", str(tmp_path / "some" / "where")]
    assert main(["run", "good", *out], scenarios) == 0
    (outcome,) = load(tmp_path / "some" / "where" / "results.json").outcomes
    assert (outcome.name, len(outcome.figures)) == ("good", 1)
    assert "a thing (ms)" in (tmp_path / "some" / "where" / "index.html").read_text()
    assert main(["run", "--quick", *out], scenarios) == 1
    told = load(tmp_path / "some" / "where" / "results.json").outcomes
    assert [one.name for one in told] == ["good", "bad"]


STOPPED = """
import sys
from pathlib import Path
from benchmarks.__main__ import main
from benchmarks.results import load
from tests.benchmarks.tiny import Tiny
from tests.benchmarks.tiny import Tiny
out = Path(sys.argv[1])
main(["run", "--quick", "--out", str(out)],
     (Tiny("slow", "a test", quick=("--hangs", str(out / "child"))),))
"""


def test_who_stops_it_stops_what_it_started(tmp_path: Path) -> None:
    """Also where a shell has put it into the background: Ctrl-C is ignored there at first."""
    command = f"'{sys.executable}' -c '{STOPPED}' '{tmp_path}' >/dev/null 2>&1 & echo $!"
    shell = subprocess.run(
        ["sh", "-c", command], cwd=ROOT, check=True, capture_output=True, timeout=60
    )
    one = psutil.Process(int(shell.stdout))
    give_up_at = time.monotonic() + 60
    while not (tmp_path / "child").exists() and time.monotonic() < give_up_at:
        time.sleep(0.05)
    started = one.children(recursive=True)
    one.send_signal(signal.SIGINT)
    _, alive = psutil.wait_procs([one, *started], timeout=60)
    assert len(started) == 2, "the scenario and its child"
    assert alive == []
