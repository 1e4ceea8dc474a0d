"""The page of a story in a real browser, at a desk and on a phone.

Screenshots are left in build/dashboard for whoever wants to look.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from simulations import pages, plan
from simulations.scenarios import load
from simulations.story import tell
from tests.integration.test_dashboard_page import driver, someone_at

__all__ = ["driver"]

pytestmark = [pytest.mark.real, pytest.mark.timeout(300)]

DESK = {"width": 1280, "height": 800}
PHONE = {"width": 390, "height": 844}


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> str:
    page: Path = tmp_path_factory.mktemp("story") / "story.html"
    report = tell(plan.draw(load("trouble"), 2), keeps_timeline=True)
    page.write_text(pages.page(report), encoding="utf-8")
    return page.as_uri()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize(("name", "window"), [("desk", DESK), ("phone", PHONE)])
def test_it_can_be_read_without_scrolling_the_page_sideways(
    driver: Path, url: str, name: str, window: dict[str, int], scheme: str
) -> None:
    with someone_at(driver, url) as person:
        person.do("open", **window, scheme=scheme)
        person.do("wait", selector=".chart")
        person.do("shot", name=f"story-{name}-{scheme}")
        assert not person.do("wide")
        assert person.do("complaints") == []
        heights = person.do("heights", selector="svg text")
        assert min(heights) >= 9, "words in a chart are as large as elsewhere"
        assert person.do("pale") == []
