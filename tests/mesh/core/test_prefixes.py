from kowalski.mesh.core.prefixes import HELD_S, PrefixBook, prefixes_of
from kowalski.protocol.messages.placement import PREFIXES_MAX

TURN_1 = (("system", "Be brief."), ("user", "How many?"))
TURN_2 = (*TURN_1, ("assistant", "17"), ("user", "Sure?"))


def digests(*messages: tuple[str, str], model: str = "m") -> list[str]:
    return [one.digest for one in prefixes_of(model, messages)]


def test_a_conversation_that_goes_on_begins_like_the_one_before() -> None:
    assert digests(*TURN_1)[0] in digests(*TURN_2)
    assert digests(*TURN_2)[-1] == digests(*TURN_1)[-1]


def test_the_longest_beginning_comes_first_and_weighs_most() -> None:
    prefixes = prefixes_of("m", TURN_2)
    assert len(prefixes) == 4
    tokens = [one.tokens for one in prefixes]
    assert tokens == sorted(tokens, reverse=True)


def test_other_models_roles_and_borders_are_other_beginnings() -> None:
    assert not set(digests(*TURN_1)) & set(digests(*TURN_1, model="n"))
    assert digests(("user", "ab"), ("user", "c"))[0] != digests(("user", "a"), ("user", "bc"))[0]
    assert digests(("user", "a"))[0] != digests(("system", "a"))[0]


def test_of_a_very_long_conversation_the_longest_beginnings_are_named() -> None:
    messages = tuple(("user", f"{number}") for number in range(3 * PREFIXES_MAX))
    found = digests(*messages)
    assert len(found) == PREFIXES_MAX
    assert found[0] == digests(*messages)[0]


def test_who_read_the_longest_beginning_is_found() -> None:
    book = PrefixBook()
    book.read("one", prefixes_of("m", TURN_1), 0.0)
    assert book.find(digests(*TURN_2), 1.0) == ("one", prefixes_of("m", TURN_1)[0].tokens)
    book.read("two", prefixes_of("m", TURN_2), 2.0)
    found = book.find(digests(*TURN_2), 3.0)
    assert found == ("two", prefixes_of("m", TURN_2)[0].tokens)


def test_what_nobody_read_or_long_ago_is_not_found() -> None:
    book = PrefixBook()
    assert book.find(digests(*TURN_1), 0.0) is None
    book.read("one", prefixes_of("m", TURN_1), 0.0)
    assert book.find(digests(*TURN_1), HELD_S - 1) is not None
    assert book.find(digests(*TURN_1), HELD_S) is None
    assert book.find(digests(("user", "else")), 1.0) is None


def test_the_oldest_are_forgotten_first() -> None:
    book = PrefixBook(entries_max=3)
    for number in range(4):
        book.read("one", prefixes_of("m", [("user", f"{number}")]), float(number))
    assert len(book) == 3
    assert book.find(digests(("user", "0")), 4.0) is None
    assert book.find(digests(("user", "1")), 4.0) is not None
