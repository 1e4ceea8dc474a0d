"""What is announced of our tasks, and what is believed of others'."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from kowalski.node.core import announced_tasks as at
from kowalski.node.core.announced_tasks import AnnouncedTasks, Said
from kowalski.protocol.codec import encode
from kowalski.protocol.ids import PeerId, TaskId
from kowalski.protocol.limits import GOSSIP_BYTES_MAX
from kowalski.protocol.messages.task import Announced, TaskHeadline

LAP, BOX = PeerId("12D3KooWLapLapLa"), PeerId("12D3KooWBoxBoxBo")
BOOT, OTHER_BOOT = "0" * 16, "1" * 16


def headline(task: str = "t", state: str = "running", **more: object) -> TaskHeadline:
    fields = {
        "task": task,
        "term": 1,
        "state": state,
        "mode": "auto",
        "entries": 0,
        "head": "sum it up",
        "submitter_name": "lap",
        "age_s": 1.0,
        **more,
    }
    return TaskHeadline.model_validate(fields)


# --- what to say --------------------------------------------------------------------------------


def said_after(*steps: tuple[float, list[TaskHeadline]]) -> list[list[str]]:
    """What is announced, step by step, as tasks and their states."""
    said, told = Said(), []
    for now, headlines in steps:
        said, news = at.to_say(said, headlines, now)
        told.append([f"{one.task} {one.state}" for one in news])
    return told


def test_everything_is_said_at_first_and_every_half_minute() -> None:
    rows = [headline("a"), headline("b", "answered")]
    assert said_after((0.0, rows), (1.0, rows), (29.0, rows), (30.0, rows)) == [
        ["a running", "b answered"],
        [],
        [],
        ["a running", "b answered"],
    ]


def test_what_changes_is_said_at_once() -> None:
    first = [headline("a", "waiting", term=0)]
    assert said_after(
        (0.0, first),
        (1.0, [headline("a", "running", term=1, coordinator=BOX)]),
        (2.0, [headline("a", "running", term=2, coordinator=LAP)]),
        (3.0, [headline("a", "answered", term=2, coordinator=LAP)]),
        (4.0, [headline("a", "answered", term=2, coordinator=LAP)]),
    ) == [["a waiting"], ["a running"], ["a running"], ["a answered"], []]


def test_that_there_are_more_entries_is_said_now_and_then() -> None:
    steps = [(float(n), [headline("a", entries=n)]) for n in range(11)]
    told = [n for n, words in enumerate(said_after(*steps)) if words]
    assert told == [0, 5, 10]


def test_a_task_that_came_and_went_meanwhile_can_wait() -> None:
    steps = (
        (0.0, []),
        (1.0, [headline("quick", "answered")]),
        (30.0, [headline("quick", "answered")]),
    )
    assert said_after(*steps) == [[], [], ["quick answered"]]


@given(st.integers(0, 400), st.integers(0, 80))
def test_what_is_said_fits_gossip_and_is_the_latest(count: int, words: int) -> None:
    rows = [headline(f"t{n}", head="🐋" * words, age_s=float(n)) for n in range(count)]
    _, news = at.to_say(Said(), rows, 0.0)
    assert [one.task for one in news] == [f"t{n}" for n in range(len(news))]
    assert bool(news) == bool(rows)
    assert len(encode(Announced(boot=BOOT, sequence=1, tasks=news))) < GOSSIP_BYTES_MAX


# --- what is heard ------------------------------------------------------------------------------


def heard(
    view: AnnouncedTasks, *tasks: TaskHeadline, sequence: int, boot: str = BOOT, now: float = 0.0
) -> AnnouncedTasks:
    announced = Announced(boot=boot, sequence=sequence, tasks=tasks)
    return at.hear(view, LAP, announced, now)


def states(view: AnnouncedTasks, now: float = 0.0) -> dict[str, str]:
    return {one.headline.task: one.headline.state for one in at.listed(view, now)}


def test_what_is_announced_is_listed_the_latest_first_and_grows_older() -> None:
    view = heard(AnnouncedTasks(), headline("a", age_s=9.0), headline("b"), sequence=1)
    listed = at.listed(view, 5.0)
    assert [(one.headline.task, one.age_s) for one in listed] == [("b", 6.0), ("a", 14.0)]
    assert {(one.origin, one.submitter) for one in listed} == {(LAP, LAP)}


def test_what_is_not_named_again_has_not_changed() -> None:
    view = heard(AnnouncedTasks(), headline("a"), headline("b"), sequence=1)
    view = heard(view, headline("b", "answered"), sequence=2)
    assert states(view) == {"a": "running", "b": "answered"}


def test_replays_and_stragglers_change_nothing() -> None:
    view = heard(AnnouncedTasks(), headline("a"), sequence=5)
    view = heard(view, headline("a", "answered"), sequence=6)
    for sequence in (5, 6):
        view = heard(view, headline("a", "running"), sequence=sequence)
    assert states(view) == {"a": "answered"}
    view = heard(view, headline("a", "failed"), sequence=1, boot=OTHER_BOOT)
    assert states(view) == {"a": "failed"}, "it has been started anew"
    view = heard(view, headline("a", "running"), sequence=99)
    assert states(view) == {"a": "failed"}, "of the boot before"
    assert view.dropped == 3


def test_one_announced_for_somebody_else_is_that_peers() -> None:
    view = heard(AnnouncedTasks(), headline("a", submitter=BOX), sequence=1)
    (one,) = at.find(view, TaskId("a"), 0.0)
    assert (one.origin, one.submitter) == (LAP, BOX)
    assert at.find(view, TaskId("b"), 0.0) == ()


def test_what_is_not_heard_of_for_long_is_not_believed_in() -> None:
    view = heard(AnnouncedTasks(), headline("open"), headline("over", "answered"), sequence=1)
    assert states(view, at.OPEN_S_MAX) == {"open": "running", "over": "answered"}
    assert states(view, at.OPEN_S_MAX + 1) == {"over": "answered"}
    assert states(view, at.OVER_S_MAX + 1) == {}


def test_nobody_fills_the_view_alone() -> None:
    view = AnnouncedTasks()
    for sequence in range(1, 6):
        rows = [headline(f"t{sequence}-{n}") for n in range(100)]
        view = heard(view, *rows, sequence=sequence)
    assert len(view.origins[LAP].tasks) == at.TASKS_MAX
    assert "t5-99" in view.origins[LAP].tasks
    for number in range(at.ORIGINS_MAX + 5):
        announced = Announced(boot=BOOT, sequence=1, tasks=())
        view = at.hear(view, PeerId(f"12D3KooWpeer{number}"), announced, 0.0)
    assert len(view.origins) == at.ORIGINS_MAX
