"""The pages of the dashboard as they are served; what they do, test_dashboard_page.py looks at."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from kowalski.node.http.dashboard import PAGES
from simulations.virtual_time import JumpingClock
from simulations.world import open_world
from tests.node.http.rooms import ask, open_room

pytestmark = pytest.mark.trio

PAGE_BYTES_MAX = 300_000


async def test_the_page_is_whole_small_and_takes_nothing_from_elsewhere(
    virtual_time: JumpingClock, tmp_path: Path
) -> None:
    async with open_world(1) as world:
        room = open_room(world, tmp_path)
        index = await ask(room, "GET", "/")
        assert index.headers["content-type"].startswith("text/html")
        assert "default-src 'none'" in index.headers["content-security-policy"]
        total = 0
        for name in PAGES:
            told = await ask(room, "GET", f"/pages/{name}")
            assert told.status == 200
            total += len(told.body)
            outside = re.findall(rb"(?:https?:)?//[a-z0-9.-]+\.[a-z]+", told.body)
            assert [one for one in outside if b"w3.org" not in one] == []
        assert total < PAGE_BYTES_MAX
        for name in re.findall(rb'(?:src|href)="(/pages/[^"]+)"', index.body):
            assert (await ask(room, "GET", name.decode())).status == 200


async def test_a_page_that_has_not_changed_is_not_sent_again(
    virtual_time: JumpingClock, tmp_path: Path
) -> None:
    async with open_world(1) as world:
        room = open_room(world, tmp_path)
        first = await ask(room, "GET", "/pages/page.js")
        again = await ask(room, "GET", "/pages/page.js", if_none_match=first.headers["etag"])
        assert (again.status, again.body) == (304, b"")


@pytest.mark.parametrize("name", ["nope.js", "..%2f__init__.py", "%2e%2e"])
async def test_there_are_no_other_pages(
    virtual_time: JumpingClock, tmp_path: Path, name: str
) -> None:
    async with open_world(1) as world:
        assert (await ask(open_room(world, tmp_path), "GET", f"/pages/{name}")).status == 404


async def test_an_invite_comes_with_a_picture_of_it(
    virtual_time: JumpingClock, tmp_path: Path
) -> None:
    async with open_world(2) as world:
        told = (await ask(open_room(world, tmp_path), "POST", "/pages/invite", {})).json
        assert str(told["line"]).startswith("kw1:")
        assert str(told["qr"]).startswith("data:image/svg+xml")
        refused = await ask(open_room(world, tmp_path, 1), "POST", "/pages/invite", {})
        assert (refused.status, refused.json["error"]["code"]) == (403, "not_allowed")
