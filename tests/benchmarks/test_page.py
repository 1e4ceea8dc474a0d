"""The page of results: self-contained, safe, and to scale."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest

from benchmarks.figures import Failure, Figure
from benchmarks.page import PLOT_PX, page, scale_of
from benchmarks.results import Outcome, Results
from tests.benchmarks.test_results import MACHINE, RESULTS

VOID = {"meta", "rect", "line"}


class Elements(HTMLParser):
    """Every element with its attributes, and whether all that opened was closed in order."""

    def __init__(self, document: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self._open: list[str] = []
        self.feed(document)
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def test_a_page_has_a_table_and_a_plot_for_everything_measured_and_needs_nothing_else() -> None:
    document = page(RESULTS)
    elements = Elements(document)
    tags = [tag for tag, _ in elements.found]
    assert tags.count("svg") == 2
    assert tags.count("table") == 1
    assert not {"script", "link", "img", "iframe"} & set(tags)
    assert not re.search(r"https?://|url\(", document), "nothing is fetched"
    words = " ".join(elements.texts)
    for told in ("gone: no npm on the path", "slow|one: no answer", "other 1.2", "all of it"):
        assert told in words


def test_what_peers_said_is_no_markup() -> None:
    bad = "<script>alert(1)</script>"
    outcome = Outcome(bad, bad, bad, 1.0, (Figure(bad, 1, 1, 1, bad), Figure(bad, 1, 1, 1)),
                      (Failure(bad, bad),), bad, bad)  # fmt: skip
    document = page(Results(MACHINE, 1.0, {bad: bad}, {bad: bad}, (outcome,)))
    assert "script" not in [tag for tag, _ in Elements(document).found]


def test_a_scenario_without_figures_shows_what_it_printed() -> None:
    outcome = Outcome("rlm", "the loop", "python -m x", 1.0, output="turns  0.25 ms")
    document = page(Results(MACHINE, 1.0, outcomes=(outcome,)))
    assert "turns  0.25 ms" in "".join(Elements(document).texts)
    assert "<svg" not in document


@pytest.mark.parametrize(("others", "is_log"), [((2.0, 4.0), False), ((0.2, 400.0), True)])
def test_bars_are_to_scale_and_by_logarithms_where_they_differ_much(
    others: tuple[float, ...], is_log: bool
) -> None:
    figures = tuple(Figure("a", value, value, value, str(value)) for value in (3.0, *others))
    scale, found = scale_of(figures)
    assert found is is_log
    values = sorted(one.median for one in figures)
    lengths = [scale(value) for value in values]
    assert lengths == sorted(lengths)
    assert 0 < lengths[0] < lengths[-1] == pytest.approx(PLOT_PX)
    if not is_log:
        assert scale(2.0) == pytest.approx(PLOT_PX / 2)


def test_nothing_at_all_is_a_bar_of_no_length() -> None:
    scale, _ = scale_of((Figure("errors", 0.0, 0.0, 0.0), Figure("errors", 48.0, 48.0, 48.0, "b")))
    assert scale(0.0) == 0.0
    scale, _ = scale_of((Figure("errors", 0.0, 0.0, 0.0),))
    assert scale(0.0) == 0.0
