"""fence_monotone: below the highest term heard for a task nothing is heard any more."""

from hypothesis import given
from hypothesis import strategies as st

from kowalski.node.core.fences import TASKS_MAX, Fences, Stale
from kowalski.protocol.ids import TaskId

heard = st.lists(st.tuples(st.sampled_from("abc"), st.integers(min_value=1, max_value=5)))


@given(heard)
def test_fence_monotone_a_term_passes_if_no_higher_one_was_heard_for_its_task(
    messages: list[tuple[str, int]],
) -> None:
    fences = Fences()
    highest: dict[str, int] = {}
    for task, term in messages:
        fences, stale = fences.hear(TaskId(task), term)
        expected = Stale(highest[task]) if term < highest.get(task, 0) else None
        assert stale == expected
        highest[task] = max(term, highest.get(task, 0))
        assert fences.terms == highest


def test_the_longest_unheard_is_forgotten_first_when_there_are_too_many() -> None:
    terms = {TaskId(f"t{n}"): 5 for n in range(TASKS_MAX)}
    fences, _ = Fences(terms).hear(TaskId("t0"), 5)  # heard again
    fences, _ = fences.hear(TaskId("new"), 1)
    assert len(fences.terms) == TASKS_MAX
    assert fences.hear(TaskId("t0"), 4)[1] == Stale(5)
    assert fences.hear(TaskId("t1"), 4)[1] is None
