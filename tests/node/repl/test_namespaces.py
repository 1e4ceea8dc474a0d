"""The tier that needs no program: what it shows is what bubblewrap shows, and nobody gets out."""

from __future__ import annotations

import ast

import pytest

from kowalski.node.repl import canary
from kowalski.node.repl.detection import namespaces_here
from kowalski.node.repl.namespaces import NamespacesSandbox
from tests.node.repl.rooms import kernel_source, sandbox_here, talk_to

pytestmark = [pytest.mark.real, pytest.mark.trio]

LOOK = """
import os, socket
tree = {place: sorted(os.listdir(place)) for place in ("/", "/etc", "/dev", "/proc/sys")}
limits = [os.statvfs(place).f_blocks for place in ("/tmp", "/job", "/dev/shm")]
tree, limits, os.getcwd(), sorted(os.environ), socket.gethostname(), os.getpid() < 5
"""


def here() -> NamespacesSandbox:
    found = namespaces_here()
    if isinstance(found, str):
        pytest.skip(found)
    return found


async def test_the_canary_cannot_get_out() -> None:
    async with kernel_source(here()) as source:
        assert await canary.escapes(source) == ()


async def test_inside_looks_as_in_bubblewrap() -> None:
    seen = []
    for sandbox in (here(), sandbox_here()):
        async with talk_to(sandbox=sandbox) as cell:
            outcome = await cell(LOOK)
            assert outcome.value is not None, outcome.error
            seen.append(ast.literal_eval(outcome.value))
    (ours, *rest), (theirs, *other) = seen
    # A place to read inputs from, a console that bwrap makes: nothing that a cell would miss.
    for place in ours:
        assert set(ours[place]) ^ set(theirs[place]) <= {"sessions", "console", "core"}, place
    assert rest == other


async def test_what_bubblewrap_would_not_show_cannot_be_seen() -> None:
    async with talk_to(sandbox=here()) as cell:
        outcome = await cell(
            "import os\n"
            "[place for place in ('/host', '/home', '/sys', '/run', '/var', '/boot')"
            " if os.path.exists(place)] + os.listdir('/sessions')"
        )
        assert outcome.value == "[]", outcome.error
