from __future__ import annotations

from pathlib import Path

import pytest

from tests.node.repl.rooms import talk_to

pytestmark = [pytest.mark.real, pytest.mark.trio]

SHOW = 'echo "$x ${list[1]} ${map[k]} $(f) $PWD"'
SET = "x=1; list=(a b); declare -A map=([k]=v); f() { echo f$x; }; cd /tmp"


async def test_variables_functions_and_folder_stay_across_cells() -> None:
    async with talk_to("bash") as cell:
        await cell(SET)
        assert (await cell(SHOW)).stdout == b"1 b v f1 /tmp\n"


@pytest.mark.parametrize("ending", ["exit 3", "set -e; (exit 3); set +e"])
async def test_a_cell_that_ends_its_shell_does_not_end_the_session(ending: str) -> None:
    async with talk_to("bash") as cell:
        await cell(SET)
        ended = await cell(f"x=2; {ending}")
        assert (ended.status, ended.exit_code, ended.session_alive) == ("error", 3, True)
        assert "the session goes on" in (ended.error or "")
        assert (await cell(SHOW)).stdout == b"2 b v f2 /tmp\n"


async def test_a_shell_that_is_killed_goes_on_from_the_last_cell() -> None:
    async with talk_to("bash") as cell:
        await cell(SET)
        assert (await cell("x=2; kill -9 $$")).exit_code == 137
        assert (await cell(SHOW)).stdout == b"1 b v f1 /tmp\n"


@pytest.mark.parametrize("busy", ["sleep 60", "while :; do :; done", "g() { sleep 60; }; g; g"])
async def test_an_interrupted_cell_keeps_the_state(busy: str) -> None:
    async with talk_to("bash") as cell:
        stopped = await cell(f"{SET}; echo begun; {busy}; echo never", timeout_s=0.3)
        assert (stopped.status, stopped.stdout) == ("timeout", b"begun\n")
        assert stopped.session_alive
        assert (await cell(SHOW)).stdout == b"1 b v f1 /tmp\n"


async def test_an_interrupt_that_comes_again_while_the_state_is_saved_loses_nothing() -> None:
    """It comes every 50 ms until the cell is over; to save takes longer here."""
    slow = 'declare() { sleep 0.1; builtin declare "$@"; }'
    async with talk_to("bash") as cell:
        stopped = await cell(f"{SET}; {slow}; sleep 60", timeout_s=0.3)
        assert (stopped.status, stopped.session_alive) == ("timeout", True)
        assert (await cell(SHOW)).stdout == b"1 b v f1 /tmp\n"


async def test_the_last_exit_code_is_the_cells() -> None:
    async with talk_to("bash") as cell:
        assert (await cell("false")).exit_code == 1
        assert (await cell("nonsense")).exit_code == 127
        assert (await cell("echo $((")).exit_code != 0
        assert (await cell("true")).status == "ok"


async def test_a_redirected_shell_prints_again_in_the_next_cell() -> None:
    async with talk_to("bash") as cell:
        await cell("exec >/dev/null; echo away")
        assert (await cell("echo back")).stdout == b"back\n"


async def test_inputs_are_files_and_a_single_one_is_named(tmp_path: Path) -> None:
    (tmp_path / "data.txt").write_text("some data")
    async with talk_to("bash", inputs={"data.txt": tmp_path / "data.txt"}) as cell:
        assert (await cell('cat "$CONTEXT"; ls /inputs')).stdout == b"some datadata.txt\n"


async def test_the_digest_follows_the_variables_and_repeats_in_another_session() -> None:
    digests = []
    for _ in range(2):
        async with talk_to("bash", seed=3) as cell:
            digests.append((await cell("x=1; y=$RANDOM")).variables_digest)
            assert (await cell("true")).variables_digest == digests[-1]
            assert (await cell("x=2")).variables_digest != digests[-1]
    assert digests[0] == digests[1]
