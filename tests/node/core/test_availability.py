"""The owner's hours, battery and processors."""

import pytest

from kowalski.node.core.availability import Availability, Hours, parse_hours

NIGHT = Availability(quiet_hours=parse_hours("22:00-07:00"))


@pytest.mark.parametrize(
    ("text", "hours"),
    [
        ("", ()),
        ("22:00-07:00", (Hours(1320, 420),)),
        ("9:30 - 12:00, 13:00-17:45", (Hours(570, 720), Hours(780, 1065))),
        ("18:00-24:00", (Hours(1080, 0),)),
    ],
)
def test_hours_are_read(text: str, hours: tuple[Hours, ...]) -> None:
    assert parse_hours(text) == hours


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("late", "'late' is not like 22:00-07:00"),
        ("22-7", "'22-7' is not like 22:00-07:00"),
        ("25:00-07:00", "25:00 is no time of day"),
        ("22:60-07:00", "22:60 is no time of day"),
        ("08:00-08:00", "begins and ends at the same time"),
        ("22:00-07:00, x", "'x' is not like"),
    ],
)
def test_what_is_no_time_is_said(text: str, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        parse_hours(text)


@pytest.mark.parametrize(
    ("minute", "why"),
    [
        (21 * 60 + 59, ""),
        (22 * 60, "quiet hours until 07:00"),
        (0, "quiet hours until 07:00"),
        (6 * 60 + 59, "quiet hours until 07:00"),
        (7 * 60, ""),
    ],
)
def test_quiet_hours_may_go_over_midnight(minute: int, why: str) -> None:
    assert NIGHT.why_paused(minute, on_battery=False) == why


def test_there_is_no_work_on_battery_unless_the_owner_says_so() -> None:
    assert Availability().why_paused(0, on_battery=True) == "on battery"
    assert Availability().why_paused(0, on_battery=False) == ""
    assert Availability(works_on_battery=True).why_paused(0, on_battery=True) == ""


@pytest.mark.parametrize(
    ("share", "slots", "left"),
    [(1.0, 8, 8), (0.5, 8, 4), (0.5, 5, 2), (0.1, 4, 1), (0.3, 10, 3), (0.5, 0, 0)],
)
def test_a_share_of_the_processors_is_whole_ones_and_one_at_least(
    share: float, slots: int, left: int
) -> None:
    assert Availability(cpu_share=share).slots(slots) == left
