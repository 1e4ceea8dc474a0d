"""fence_monotone: below the highest term heard for a task nothing is heard any more."""

from hypothesis import given
from hypothesis import strategies as st

from kowalski.node.core.fences import TASKS_MAX, Fences, Stale
from kowalski.protocol.ids import TaskId


def nothing_heard() -> Fences[TaskId]:
    return Fences()


heard = st.lists(st.tuples(st.sampled_from("abc"), st.integers(min_value=1, max_value=5)))


@given(heard)
def test_fence_monotone_a_term_passes_if_no_higher_one_was_heard_for_its_task(
    messages: list[tuple[str, int]],
) -> None:
    fences = nothing_heard()
    highest: dict[str, int] = {}
    for task, term in messages:
        fences, stale = fences.hear(TaskId(task), term)
        expected = Stale(highest[task]) if term < highest.get(task, 0) else None
        assert stale == expected
        highest[task] = max(term, highest.get(task, 0))
        assert {name: fences.highest(TaskId(name)) for name in highest} == highest


def test_a_task_is_remembered_until_many_others_were_heard_since() -> None:
    fences, _ = nothing_heard().hear(TaskId("old"), 5)
    for number in range(TASKS_MAX):
        fences, _ = fences.hear(TaskId(f"t{number}"), 5)
        if number % 1000 == 0:
            fences, _ = fences.hear(TaskId("often"), 5)
        if number == TASKS_MAX // 2 - 2:
            assert fences.hear(TaskId("old"), 4)[1] == Stale(5)
    assert fences.hear(TaskId("often"), 4)[1] == Stale(5)
    assert fences.hear(TaskId("old"), 4)[1] is None, "forgotten, for want of room"
    assert len(fences.recent) + len(fences.older) <= TASKS_MAX


def test_a_term_that_is_heard_again_changes_nothing() -> None:
    fences, _ = nothing_heard().hear(TaskId("a"), 5)
    assert fences.hear(TaskId("a"), 5) == (fences, None)
