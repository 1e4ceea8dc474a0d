from hypothesis import given
from hypothesis import strategies as st

from kowalski.mesh.core.latencies import KEPT, NEEDED, Latencies


def of(seconds: list[float]) -> Latencies:
    seen = Latencies()
    for one in seconds:
        seen = seen.add(one)
    return seen


def test_few_latencies_say_nothing() -> None:
    assert of([1.0] * (NEEDED - 1)).quantile(0.95) is None
    assert of([1.0] * NEEDED).quantile(0.95) == 1.0


def test_the_95th_percentile_is_exceeded_by_one_in_twenty() -> None:
    assert of([float(n) for n in range(1, 101)]).quantile(0.95) == 95.0
    assert of([float(n) for n in range(1, 101)]).quantile(0.5) == 50.0


def test_old_ones_are_forgotten() -> None:
    assert of([9.0] * 50 + [1.0] * KEPT).quantile(1.0) == 1.0


@given(st.lists(st.floats(0, 100), min_size=NEEDED, max_size=300), st.floats(0, 1))
def test_a_quantile_is_the_least_that_so_many_do_not_exceed(
    seconds: list[float], share: float
) -> None:
    found = of(seconds).quantile(share)
    kept = seconds[-KEPT:]
    assert found in kept
    assert sum(one <= found for one in kept) >= share * len(kept)
    below = [one for one in kept if one < found]
    assert len(below) <= share * len(kept)
