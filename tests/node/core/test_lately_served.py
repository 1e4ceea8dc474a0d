"""What answered a moment ago, and no longer."""

from kowalski.node.core.lately_served import LATELY_S, MODELS_MAX, LatelyServed


def test_a_model_that_answered_is_remembered_for_a_while() -> None:
    lately = LatelyServed()
    lately.note("m", 10.0)
    assert lately.was("m", 10.0 + LATELY_S)
    assert not lately.was("m", 10.1 + LATELY_S)
    assert not lately.was("other", 10.0)


def test_of_too_many_the_one_that_answered_longest_ago_is_forgotten() -> None:
    lately = LatelyServed()
    for number in range(MODELS_MAX):
        lately.note(str(number), float(number))
    lately.note("0", 500.0)
    lately.note("one more", 501.0)
    assert lately.was("0", 501.0)
    assert not lately.was("1", 501.0 - LATELY_S + 1.0)
    assert lately.was("2", 300.0)
