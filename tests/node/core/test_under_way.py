from kowalski.mesh.core.breaker import Breaker
from kowalski.mesh.core.experience import NOISE_S
from kowalski.node.core.under_way import UnderWay, most_overdue


def test_the_one_that_takes_longest_for_what_was_promised_counts() -> None:
    _, passage = Breaker("a").send(0.0)
    soon, late = (UnderWay(0.0, promised_s, "code", passage) for promised_s in (10.0, 1.0))
    assert most_overdue((soon, late), 5.0) == 5.0 / (1.0 + NOISE_S)
    assert most_overdue((), 5.0) == 0.0
