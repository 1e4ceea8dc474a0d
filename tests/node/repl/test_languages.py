from __future__ import annotations

import platform
from dataclasses import replace

import pytest

from kowalski.node.repl.languages import LANGUAGES, probe_languages
from tests.node.repl.rooms import kernel_source, sandbox_here

pytestmark = [pytest.mark.real, pytest.mark.trio]


async def test_what_runs_inside_is_found_with_its_version() -> None:
    async with kernel_source() as source:
        probe = await probe_languages(source)
    assert probe.versions["python"] == platform.python_version()
    assert probe.versions["bash"][0].isdigit()
    assert set(probe.versions) | set(probe.failures) == set(LANGUAGES)


async def test_what_does_not_run_inside_is_not_advertised() -> None:
    broken = replace(sandbox_here(), interpreter="/usr/bin/no-such-python")
    async with kernel_source(broken) as source:
        probe = await probe_languages(source, ("python",))
    assert probe.versions == {}
    assert "no-such-python" in probe.failures["python"]
