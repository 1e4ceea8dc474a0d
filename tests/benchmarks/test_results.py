"""Figures and results: recorded, read back, and told."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import figures, results
from benchmarks.figures import Failure, Figure, Table
from benchmarks.machine import Machine
from benchmarks.results import BEGIN, END, Outcome, Results

MACHINE = Machine("2026-11-28 12:00 UTC", 2, "Linux-6", "3.11.7", {"trio": "0.35"}, 1.5)
OUTCOME = Outcome(
    "gateways",
    "through gateways",
    "python -m benchmarks.gateways",
    12.0,
    (
        Figure("a (ms)", 20.0, 19.0, 24.0, "other", 15.0),
        Figure("a (ms)", 1.234, 1.234, 1.234),
        Figure("b <s>", 1500.0, 1500.0, 1500.0),
    ),
    (Failure("slow|one", "no answer\nwithin 5 s"),),
    output="all of it",
)
RESULTS = Results(MACHINE, 2.5, {"other": "1.2"}, {"gone": "no npm on the path"}, (OUTCOME,))


def test_what_is_reported_is_printed_and_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    record = tmp_path / "figures"
    monkeypatch.setenv(figures.RECORD, str(record))
    figures.report("a thing (ms)", [3.0, 1.0, 2.0], cpu_ms=0.25)
    figures.report("a thing (ms)", [9.0], peer="other")
    figures.report_failure("third", "it did not start")
    told, failures = figures.read(record)
    assert told == [
        Figure("a thing (ms)", 2.0, 1.0, 3.0, figures.OURS, 0.25),
        Figure("a thing (ms)", 9.0, 9.0, 9.0, "other"),
    ]
    assert failures == [Failure("third", "it did not start")]
    printed = capsys.readouterr().out.splitlines()
    assert printed[0].split() == ["a", "thing", "(ms)", "2.000", "1.000", "3.000", "0.25", "ms"]
    assert "a thing (ms), other" in printed[1]
    assert printed[2] == "third: it did not start"


def test_without_a_record_nothing_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(figures.RECORD, raising=False)
    figures.report("a thing", [1.0])
    assert figures.read(tmp_path / "nothing") == ([], [])


def test_a_table_tells_the_median_of_the_medians_of_its_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(figures.RECORD, str(tmp_path / "figures"))
    table = Table()
    for run in ([1.0, 2.0, 9.0], [4.0], [6.0]):
        table.keep("a", "us", run, cpu_ms=run[0])
    table.keep("b", "us", [1.0])
    table.keep("a", "them", [7.0])
    table.report()
    told, _ = figures.read(tmp_path / "figures")
    assert [(one.what, one.peer) for one in told] == [("a", "us"), ("a", "them"), ("b", "us")]
    assert told[0] == Figure("a", 4.0, 2.0, 6.0, "us", 4.0)


def test_results_come_out_of_their_file_as_they_went_in(tmp_path: Path) -> None:
    RESULTS.save(tmp_path / "results.json")
    assert results.load(tmp_path / "results.json") == RESULTS


def test_a_table_has_a_column_for_each_peer_ours_first() -> None:
    assert results.table(OUTCOME) == [
        ["what", "kowalski", "other"],
        ["a (ms)", "1.23", "20 (19 to 24); CPU 15 ms"],
        ["b <s>", "1,500", ""],
    ]


def test_markdown_says_the_machine_the_versions_and_what_is_missing_and_why() -> None:
    told = results.as_markdown(RESULTS)
    for words in (
        "2026-11-28 12:00 UTC, 2 cores, Linux-6, Python 3.11.7, trio 0.35.",
        "Load average 1.5 at the beginning, 2.5 at the end.",
        "Beside: other 1.2.",
        "Not measured: gone: no npm on the path.",
        "### Through gateways",
        "| a (ms) | 1.23 | 20 (19 to 24); CPU 15 ms |",
        "Not measured: slow|one: no answer within 5 s.",
    ):
        assert words in told


def test_the_last_comparison_takes_the_place_of_the_one_before_it() -> None:
    document = f"# Benchmarks\n\n{BEGIN}\nold\n{END}\n\nand more\n"
    once = results.put_into(document, "new")
    assert once == f"# Benchmarks\n\n{BEGIN}\n\nnew\n\n{END}\n\nand more\n"
    assert results.put_into(once, "new") == once
    with pytest.raises(ValueError, match="no place"):
        results.put_into("# Benchmarks", "new")


def test_the_document_has_a_place_for_it() -> None:
    document = Path(__file__).resolve().parents[2] / "docs" / "benchmarks.md"
    assert results.put_into(document.read_text(), "x")
