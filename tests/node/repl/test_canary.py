from __future__ import annotations

import struct
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest

from kowalski.node.repl import canary
from kowalski.protocol.errors import RequestFailedError
from tests.node.repl.rooms import kernel_source, sandbox_here

pytestmark = [pytest.mark.real, pytest.mark.trio]

ALLOW_EVERYTHING = struct.pack("=HBBI", 0x06, 0, 0, 0x7FFF0000)


async def test_the_canary_cannot_get_out_of_a_working_sandbox() -> None:
    async with kernel_source() as source:
        assert await canary.escapes(source) == ()


async def test_a_long_way_to_temporary_files_is_no_obstacle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    deep = tmp_path / ("deep" * 25)
    deep.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(deep))
    async with kernel_source() as source:
        assert await canary.escapes(source) == ()


async def test_the_canary_notices_a_missing_filter() -> None:
    sandbox = sandbox_here()
    open_wide = replace(sandbox.sessions, system_call_filter=ALLOW_EVERYTHING)
    async with kernel_source(replace(sandbox, sessions=open_wide)) as source:
        seen = await canary.escapes(source)
    assert "makes memory files" in seen
    assert "opens AF_NETLINK sockets" in seen
    assert "reads files of the host" not in seen


@pytest.mark.parametrize(
    ("bwrap", "words"),
    [("/bin/true", "the fork server did not start"), ("/no/such/bwrap", "/no/such/bwrap")],
)
async def test_a_sandbox_in_which_nothing_runs_is_no_sandbox(bwrap: str, words: str) -> None:
    async with kernel_source(replace(sandbox_here(), bwrap=bwrap)) as source:
        with pytest.raises(RequestFailedError, match=words):
            await canary.escapes(source)
