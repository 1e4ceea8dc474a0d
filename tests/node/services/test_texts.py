import pytest

from kowalski.node.services.texts import fitting


@pytest.mark.parametrize(
    ("text", "bytes_max", "fits"),
    [
        ("abc", 3, "abc"),
        ("abcd", 3, "abc"),
        ("", 3, ""),
        ("\u00e9\u00e9", 3, "\u00e9"),  # never half a character
        ("a\U0001f600b", 4, "a"),
        ("a\U0001f600b", 5, "a\U0001f600"),
        ("a\ud800", 4, "a\ufffd"),  # half a surrogate pair cannot be said
    ],
)
def test_a_text_is_cut_to_bytes_between_characters(text: str, bytes_max: int, fits: str) -> None:
    assert fitting(text, bytes_max) == fits
