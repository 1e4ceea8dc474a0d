from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from kowalski.node.repl.detection import Found, detect_sandbox, tiers
from tests.node.repl.rooms import sandbox_here

pytestmark = [pytest.mark.trio]


def bubblewraps(programs: Path) -> list[tuple[str, Callable[[], Found]]]:
    return [
        (name, find)
        for name, find in tiers(programs_path=str(programs))
        if name.startswith("bubblewrap")
    ]


@pytest.mark.real
async def test_what_works_here_is_found_by_trial() -> None:
    sandbox_here()
    verdict = await detect_sandbox()
    assert verdict.tier == "bubblewrap"
    assert verdict.sandbox is not None
    assert verdict.details == {"bubblewrap": "works"}
    assert verdict.passed_over == ()


async def test_a_missing_program_is_said_in_words_that_help(tmp_path: Path) -> None:
    verdict = await detect_sandbox(candidates=bubblewraps(tmp_path))
    assert verdict.sandbox is None
    missing = "bubblewrap is not installed: apt install bubblewrap"
    assert verdict.reason == f"{missing}; {missing}"


async def test_an_owner_who_insists_gets_none_and_reads_what_it_means(tmp_path: Path) -> None:
    verdict = await detect_sandbox(candidates=bubblewraps(tmp_path), allow_none=True)
    assert verdict.sandbox is not None
    assert verdict.sandbox.tier == verdict.tier == "none"
    assert verdict.reason.startswith("code is not contained at all")


@pytest.mark.real
async def test_the_next_best_is_taken_and_why_the_best_was_not_is_known(tmp_path: Path) -> None:
    sandbox_here()
    here = [tier for tier in tiers() if tier[0] == "namespaces"]
    verdict = await detect_sandbox(candidates=[*bubblewraps(tmp_path), *here])
    assert verdict.tier == "namespaces"
    assert verdict.passed_over == ("bubblewrap is not installed: apt install bubblewrap",) * 2


@pytest.mark.real
async def test_a_system_without_user_namespaces_is_told_apart_with_a_hint(tmp_path: Path) -> None:
    forbidden = tmp_path / "bwrap"
    forbidden.write_text(
        "#!/bin/sh\necho 'bwrap: setting up uid map: Permission denied' >&2; exit 1"
    )
    forbidden.chmod(0o755)
    verdict = await detect_sandbox(candidates=bubblewraps(tmp_path))
    assert verdict.sandbox is None
    assert "bubblewrap does not work here" in verdict.reason
    assert "setting up uid map: Permission denied" in verdict.reason
    assert "apparmor_restrict_unprivileged_userns" in verdict.reason


@pytest.mark.real
async def test_a_program_that_only_has_the_name_is_not_trusted(tmp_path: Path) -> None:
    impostor = tmp_path / "bwrap"
    impostor.write_text('#!/bin/sh\nwhile [ "$1" != -- ]; do shift; done; shift; exec "$@"\n')
    impostor.chmod(0o755)
    verdict = await detect_sandbox(candidates=bubblewraps(tmp_path))
    assert verdict.sandbox is None
    seen = verdict.details["bubblewrap for each session"]
    assert seen.startswith("code inside reads files of the host, lists folders of the host")
    assert "connects to loopback" in seen
