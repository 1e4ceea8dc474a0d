"""Estimates how many tokens a text is, without any model's vocabulary.

A count that a backend reports is always better; this is for deciding before asking.
"""

from __future__ import annotations

from typing import Final

# What a character costs on its own, and what a run of a class adds, in hundredths of a token.
# Fitted (non-negative, least absolute error) to the mean of the o200k, Llama 3, Qwen 3, Mistral v3
# and Gemma 3 tokenizers over half of 170 texts: English prose, change logs, markdown, logs, JSON,
# code in seven languages. Over the other half the mean error is 3.4 %, the 95th percentile 8 %;
# JSON full of hashes comes out 13 % low. The prices of other scripts were set by hand from manual
# pages and message catalogues: Chinese, Japanese, Korean and Russian within 10 %, other European
# languages 5 to 25 % low, Vietnamese 50 % high.
_LETTER, _LETTER_RUN = 8, 75
_PUNCTUATION, _PUNCTUATION_RUN = 14, 80
_DIGIT = 100
_UNDERSCORE_RUN = 50
_LINE_FEED_RUN = 55
_SPACE, _INDENT = 2, 65
# By the first byte in UTF-8, which tells the script nearly enough.
_WIDE_LETTER = 110  # U+0080 to U+02FF: letters with diacritics
_CYRILLIC = 36  # and Greek
_KANA = 60  # and CJK punctuation
_HAN = 90
_HANGUL = 75
_SYMBOL = 70  # U+2000 to U+2FFF, U+F000 to U+FFFF
_ASTRAL = 250  # emoji
_OTHER = 90


# The class of every byte but those that continue a character: `.` is ASCII punctuation and control.
_CLASS_RANGES: Final = (
    (0x00, b"." * 0x80 + b"o" * 0x80),
    (0x09, b" \n"),
    (0x0D, b" "),
    (0x20, b" "),
    (0x30, b"0" * 10),
    (0x41, b"a" * 26),
    (0x5F, b"_"),
    (0x61, b"a" * 26),
    (0xC2, b"w" * 10),
    (0xCE, b"c" * 7),
    (0xE2, b"sk" + b"h" * 6 + b"g" * 4),
    (0xEF, b"s" + b"e" * 16),
)


def _class_table() -> bytes:
    table = bytearray(256)
    for first, classes in _CLASS_RANGES:
        table[first : first + len(classes)] = classes
    return bytes(table)


def _only(classes: bytes) -> bytes:
    """A table that leaves `classes` and blanks the rest, so that `split` counts runs."""
    return bytes(ord("x") if byte in classes else ord(" ") for byte in range(256))


_CONTINUATION: Final = bytes(range(0x80, 0xC0))
_CLASSES: Final = _class_table()
_LETTERS: Final = _only(b"aw")
_PUNCTUATION_ONLY: Final = _only(b".")
_UNDERSCORES: Final = _only(b"_")
_LINE_FEEDS: Final = _only(b"\n")
_SINGLE: Final = (
    (b"w", _WIDE_LETTER),
    (b"c", _CYRILLIC),
    (b"k", _KANA),
    (b"h", _HAN),
    (b"g", _HANGUL),
    (b"s", _SYMBOL),
    (b"e", _ASTRAL),
    (b"o", _OTHER),
)


def estimate_tokens(text: str) -> int:
    """0 for the empty text; for two texts joined never more than for both apart.

    Nor less than for either, but for one where an indentation becomes a space. Add a tenth for
    safety where a limit is hard.
    """
    return -(-centitokens(text) // 100)


def centitokens(text: str) -> int:
    """The estimate in hundredths of a token: sums of parts stay free of rounding."""
    classes = text.encode("utf-8", "surrogatepass").translate(_CLASSES, _CONTINUATION)
    count = classes.count
    hundredths = (
        _LETTER * count(b"a")
        + _LETTER_RUN * len(classes.translate(_LETTERS).split())
        + _DIGIT * count(b"0")
        + _SPACE * count(b" ")
    )
    punctuation = count(b".")
    if punctuation:
        runs = len(classes.translate(_PUNCTUATION_ONLY).split())
        hundredths += _PUNCTUATION * punctuation + _PUNCTUATION_RUN * runs
    if b"_" in classes:
        hundredths += _UNDERSCORE_RUN * len(classes.translate(_UNDERSCORES).split())
    if b"\n" in classes:
        hundredths += _LINE_FEED_RUN * len(classes.translate(_LINE_FEEDS).split())
    hundredths += _INDENT * (count(b"\n ") + classes.startswith(b" "))
    if not text.isascii():
        hundredths += sum(price * count(script) for script, price in _SINGLE)
    return hundredths
