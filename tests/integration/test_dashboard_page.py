"""The dashboard in a real browser: what a person sees and does, with a mouse, by keys, on a phone.

Screenshots are left in build/dashboard for whoever wants to look.
"""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.cluster import ROOT, START_S, open_cluster, open_model_server, wait_until
from tests.integration.npm import install

pytestmark = [pytest.mark.real, pytest.mark.timeout(300)]

BROWSER = Path(__file__).parent / "browser"
SHOTS = ROOT / "build" / "dashboard"


@pytest.fixture(scope="session")
def driver() -> Path:
    if not Path("/usr/bin/chromium").exists():
        pytest.skip("no chromium here (Debian's chromium)")
    if why_not := install(BROWSER):
        pytest.skip(why_not)
    return BROWSER / "look.js"


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("dashboard")
    with contextlib.ExitStack() as stack:
        models = stack.enter_context(open_model_server(folder, "--model", "m"))
        cluster = stack.enter_context(open_cluster(folder))
        home = cluster.start("home", "--no-mdns", "--backend", models.url)
        home.wait_until_up(START_S)
        join = ("--join", home.invite(uses=1), "--no-mdns", "--no-repl")
        cluster.start("<b>guest</b>", *join)
        cluster.wait_until_met(START_S)
        wait_until(lambda: bool(home.ask("status")["models"]), "the model is known")
        yield f"http://127.0.0.1:{home.ask('status')['http_port']}/"


class Person:
    """In front of the page."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def do(self, step: str, **arguments: object) -> Any:  # noqa: ANN401 JSON
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"do": step, **arguments}) + "\n")
        self._process.stdin.flush()
        told = json.loads(self._process.stdout.readline())
        assert "failed" not in told, (step, arguments, told)
        return told["done"]


@contextlib.contextmanager
def someone_at(driver: Path, url: str) -> Iterator[Person]:
    SHOTS.mkdir(parents=True, exist_ok=True)
    argv = ["node", str(driver), url, str(SHOTS)]
    process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        yield Person(process)
    finally:
        process.kill()
        process.communicate()


@pytest.fixture
def person(driver: Path, url: str) -> Iterator[Person]:
    with someone_at(driver, url) as someone:
        yield someone
        assert someone.do("complaints") == []
        # Nothing was asked of anybody but the node.
        assert {one for one in someone.do("asked") if one != "data:"} == {url.split("/")[2]}


DESK = {"width": 1280, "height": 900, "scheme": "light"}
PHONE = {"width": 390, "height": 844, "scheme": "dark"}


def test_peers_are_seen_live_and_what_they_call_themselves_is_no_markup(person: Person) -> None:
    person.do("open", **DESK)
    person.do("waitText", selector="#peers li b", text="guest")
    assert set(person.do("texts", selector="#peers li b")) == {"home", "<b>guest</b>"}
    person.do("waitText", selector="#peers li", text="model m")
    assert person.do("text", selector="#node-name") == "home"
    assert "(2)" in person.do("text", selector="#peers-count")


def test_a_task_is_given_and_followed_to_its_answer(person: Person) -> None:
    person.do("open", **DESK)
    person.do("fill", selector="#prompt", text="```python\nprint(6 * 7)\n```\nECHO: it is 42")
    person.do("select", selector="#mode", value="blocks")
    person.do("click", selector="#ask button")
    person.do("waitText", selector="#task-line", text="answered")
    person.do("waitText", selector="#task-answer", text="42")
    person.do("waitText", selector="#task-ran li", text="cell 0 (python) on home")
    person.do("waitText", selector="#tasks .pill", text="answered")
    person.do("waitText", selector="#task-why li", text="run python")
    person.do("shot", name="task")


def test_the_keyboard_is_enough(person: Person) -> None:
    person.do("open", **DESK)
    person.do("wait", selector="#peers li")
    person.do("press", keys=["Tab"])
    assert person.do("focused") == "Skip to the peers"
    person.do("press", keys=["Tab"])
    assert person.do("focused") == "invite-open"
    person.do("press", keys=["Enter"])
    person.do("wait", selector="#invite[open] img")
    person.do("press", keys=["Escape"])
    assert person.do("focused") == "invite-open"
    person.do("press", keys=["Tab"])
    assert person.do("focused") == "drain"
    person.do("press", keys=["Tab"])
    assert person.do("focused") == "prompt"
    person.do("fill", selector="#prompt", text="ECHO: typed")
    person.do("press", keys=["Control+Enter"])
    person.do("waitText", selector="#task-answer", text="typed")
    assert person.do("focused") == "task-title"


def test_an_invite_is_a_line_and_a_picture(person: Person) -> None:
    person.do("open", **PHONE)
    person.do("click", selector="#invite-open")
    person.do("wait", selector="#invite[open] img")
    assert "start --join kw1:" in person.do("text", selector="#invite-line")
    person.do("shot", name="invite-phone")


def test_a_phone_shows_it_all_without_scrolling_sideways(person: Person) -> None:
    person.do("open", **PHONE)
    person.do("waitText", selector="#peers li b", text="guest")
    assert not person.do("wide")
    person.do("shot", name="phone")


def test_it_is_light_or_dark_as_the_device_is(person: Person) -> None:
    person.do("open", **DESK)
    light = person.do("colour", selector="body")
    person.do("open", **{**DESK, "scheme": "dark"})
    assert person.do("colour", selector="body") != light


# --- what is old is not shown as if it were new ---------------------------------------------------


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_stands_out_from_what_is_behind_it(person: Person, scheme: str) -> None:
    person.do("open", **{**DESK, "scheme": scheme})
    person.do("waitText", selector="#peers li b", text="guest")
    person.do("fill", selector="#prompt", text="ECHO: pale?")
    person.do("press", keys=["Control+Enter"])
    person.do("waitText", selector="#task-answer", text="pale?")
    person.do("waitText", selector="#task-why li", text="→")
    person.do("shot", name=f"desk-{scheme}")
    assert person.do("pale") == []
    person.do("click", selector="#invite-open")
    person.do("wait", selector="#invite[open] img")
    assert person.do("pale") == []


def test_a_peer_that_is_gone_and_a_node_that_is_silent_are_shown_so(
    driver: Path, tmp_path: Path
) -> None:
    with open_cluster(tmp_path) as cluster:
        home = cluster.start("home", "--no-mdns")
        home.wait_until_up(START_S)
        guest = cluster.start("guest", "--join", home.invite(uses=1), "--no-mdns", "--no-repl")
        cluster.wait_until_met(START_S)
        url = f"http://127.0.0.1:{home.ask('status')['http_port']}/"
        with someone_at(driver, url) as person:
            person.do("open", **PHONE)
            person.do("waitText", selector="#peers li b", text="guest")
            person.do("waitText", selector="#link", text="live")
            assert person.do("count", selector="#peers .age") == 0
            guest.kill()
            person.do("waitText", selector="#peers li.old .age", text="ago")
            assert person.do("pale") == []
            home.process.send_signal(signal.SIGSTOP)
            person.do("waitText", selector="#link", text="not live: nothing is heard")
            assert "as of" in person.do("text", selector="#link")
            assert person.do("texts", selector="#peers .pill")[0] == "was here"
            assert person.do("pale") == []
            person.do("shot", name="lost-phone")
            assert not person.do("wide")
            home.process.send_signal(signal.SIGCONT)
            person.do("wait", selector="body:not(.lost)")
            assert person.do("text", selector="#link") == "live"
            home.stop()
            person.do("waitText", selector="#link", text="not live: this node is stopping")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_of_the_interface_can_be_read_too(person: Person, scheme: str) -> None:
    person.do("open", **{**PHONE, "scheme": scheme}, path="docs")
    person.do("waitText", selector="code", text="/v1/responses")
    assert person.do("pale") == []


def test_a_page_of_elsewhere_reads_answers_where_its_origin_is_named_and_only_there(
    driver: Path, tmp_path: Path
) -> None:
    sent = {"authorization": "Bearer none", "x-stainless-os": "Linux", "anthropic-version": "1"}
    with open_cluster(tmp_path) as cluster:
        page = cluster.start("page", "--no-mdns")
        page.wait_until_up(START_S)
        origin = f"http://127.0.0.1:{page.ask('status')['http_port']}"
        asking = {"headers": sent, "header": "x-request-id"}
        with someone_at(driver, f"{origin}/") as person:
            person.do("open", **DESK, path="docs")  # the dashboard itself asks nobody else
            for name, named in (("named", ("--http-origin", origin)), ("unnamed", ())):
                node = cluster.start(name, "--join", page.invite(uses=1), "--no-mdns", *named)
                node.wait_until_up(START_S)
                asking["from"] = f"http://127.0.0.1:{node.ask('status')['http_port']}/v1/models/x"
                told = person.do("fetched", **asking)
                if named:
                    assert told[0] == 404, "an error, which it may read"
                    assert told[1], "and whose request that was"
                else:
                    assert told is None
