from __future__ import annotations

from kowalski.node.repl.limits import CellLimits, Limits, SessionLimits


def test_a_language_has_its_own_limits_or_everybodys() -> None:
    roomy = SessionLimits(processes=128)
    limits = Limits(by_language={"java": roomy})
    assert limits.of("java") is roomy
    assert limits.of("python") is limits.session


def test_a_cell_is_killed_only_for_far_more_output_than_is_kept() -> None:
    limits = CellLimits()
    assert limits.output_bytes_max == 4 * limits.output_bytes_kept
