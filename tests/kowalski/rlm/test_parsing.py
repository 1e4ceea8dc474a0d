from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kowalski.rlm.parsing import (
    LANGUAGES,
    CodeBlock,
    Parsed,
    SkippedBlock,
    code_blocks,
    parse,
    replace_blocks,
)


def codes(markdown: str) -> list[str]:
    return [block.code for block in code_blocks(markdown)]


def test_a_fence_is_a_block_with_its_language_code_and_line() -> None:
    assert code_blocks("Look:\n\n```python\nx = 1\nprint(x)\n```\nDone.\n") == (
        CodeBlock("python", "x = 1\nprint(x)\n", ordinal=0, line=4, is_closed=True),
    )


def test_blocks_keep_their_order_and_are_numbered_without_the_skipped_ones() -> None:
    parsed = parse("```py\na\n```\n```json\n{}\n```\n~~~bash\nb\n~~~\n")
    assert [(b.language, b.ordinal, b.line) for b in parsed.blocks] == [
        ("python", 0, 2),
        ("bash", 1, 8),
    ]
    assert parsed.skipped == (SkippedBlock("json", 5),)


@pytest.mark.parametrize(
    ("info", "language"),
    [
        ("python", "python"),
        (" Python ", "python"),
        ("py", "python"),
        ("python3.12", "python"),
        ("repl", "python"),
        ("python title=x", "python"),
        ("{.python}", "python"),
        ("{python}", "python"),
        ("{ .python .numbered }", "python"),
        ("{#listing .python}", "python"),
        ("language-js", "js"),
        ("lang-javascript", "js"),
        ("node", "js"),
        ("rust,no_run", "rust"),
        ("sh", "bash"),
        ("shell", "bash"),
        ("zsh", "bash"),
        ("golang", "go"),
        ("TS", "typescript"),
        ("rb", "ruby"),
        ("pl", "perl"),
        ("java", "java"),
    ],
)
def test_every_usual_way_to_name_a_language_is_understood(info: str, language: str) -> None:
    [block] = code_blocks(f"~~~{info}\nx\n~~~\n")
    assert block.language == language


@pytest.mark.parametrize(
    ("info", "label"),
    [
        ("", ""),
        ("   ", ""),
        ("json", "json"),
        ("C++", "c++"),
        ("c#", "c#"),
        ("pycon", "pycon"),
        ("javax", "javax"),
        ("{#id}", ""),
        ("=html", ""),
        ("console", "console"),
        ("output", "output"),
    ],
)
def test_a_fence_in_no_known_language_is_skipped_and_reported(info: str, label: str) -> None:
    assert parse(f"```{info}\nx\n```\n") == Parsed((), (SkippedBlock(label, 2),), 0)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "no code here",
        "    indented = 'is text'\n",
        "Run `print(1)` or ``` print(2) ``` now.\n",
        "```python print(1)```\n",
        "    ```python\n    x\n    ```\n",
        "``python\nx\n``\n",
        "<!--\n```python\nhidden\n```\n-->\n",
        "<pre>\n```python\nx\n```\n</pre>\n",
        "a ```python\nx\n",
    ],
)
def test_what_is_no_fence_is_no_block(text: str) -> None:
    parsed = parse(text)
    assert [block for block in parsed.blocks if block.is_closed] == []
    assert "x\n" not in [block.code for block in parsed.blocks]


@pytest.mark.parametrize("tag", ["<answer>", "<details open>", "<div>", "<think>"])
def test_a_tag_on_the_line_above_does_not_hide_a_fence(tag: str) -> None:
    assert codes(f"{tag}\n```python\nx\n```\n") == ["x\n"]


def test_fences_in_quotes_and_lists_lose_the_marks_of_their_container() -> None:
    text = (
        "> ```python\n> if x:\n>     y\n> ```\n\n"
        "1. first\n\n   ```js\n   a\n     b\n   ```\n"
        "- > ~~~sh\n  > ls\n  > ~~~\n"
    )
    assert codes(text) == ["if x:\n    y\n", "a\n  b\n", "ls\n"]


def test_carriage_returns_at_line_ends_are_not_code() -> None:
    assert codes("```python\r\nx = 1\r\n\r\ny\r\n```\r\n") == ["x = 1\n\ny\n"]
    assert codes("```python\rx = 1\r```\r") == ["x = 1\n"]


def test_fences_inside_strings_and_longer_fences_do_not_end_a_block() -> None:
    assert codes('```python\ns = """ ```js """\nt = "```"\n```\n') == [
        's = """ ```js """\nt = "```"\n'
    ]
    assert codes("````python\n```\nx\n```\n````\n") == ["```\nx\n```\n"]
    assert codes("~~~python\n```\n~~~\n") == ["```\n"]


@pytest.mark.parametrize(
    ("text", "is_closed"),
    [
        ("```python\nx\n```", True),
        ("```python\nx\n```\n", True),
        ("```python\nx\n", False),
        ("```python\nx", False),
        ("> ```python\n> x\n\ntext\n", False),
        ("> ```python\n> x\n>", False),
        ("- ```python\n  x\n\ntext\n", False),
        ("```python\nx\n    ```\n", False),
        ("```python\nx\n``` no\n", False),
        ("```python\n```", True),
        ("```python", False),
    ],
)
def test_a_block_says_whether_its_fence_was_closed(text: str, is_closed: bool) -> None:
    [block] = code_blocks(text)
    assert block.is_closed is is_closed


def test_a_line_of_a_megabyte_is_code_like_any_other() -> None:
    line = "x" * 1_000_000
    assert codes(f"```python\n{line}\n```\n") == [line + "\n"]


def test_lines_past_the_limit_are_counted_and_not_read() -> None:
    parsed = parse("```python\nx\n```\n```python\ny\nz\n```\n", lines_max=5)
    assert [(b.code, b.is_closed) for b in parsed.blocks] == [("x\n", True), ("y\n", False)]
    assert parsed.unread_lines == 2
    assert parse("a\nb", lines_max=2).unread_lines == 0


HOSTILE = {
    "one line of backticks": "`" * 1_000_000,
    "fences": "```\n" * 250_000,
    "open code spans": "`` `\n" * 200_000,
    "quotes": ">" * 1_000_000,
    "quoted lazy lines": ">" * 30 + "x\n" + "a\n" * 500_000,
    "brackets": "[" * 1_000_000,
    "lines of brackets": "[\n" * 500_000,
    "definitions": "[a]: \n" * 160_000,
    "rules": "- " * 500_000,
    "nested lists": "* + - 1. " * 110_000,
    "new lists": "-\n+\n" * 250_000,
    "quotes of lists": "> * > * > * > * > * > * x\n" * 40_000,
    "tags": "<a\n" * 330_000,
    "comments": "<!--\n" * 200_000,
    "carriage returns": "\r" * 1_000_000,
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_megabyte_is_read_in_bounded_time(name: str) -> None:
    begin = time.process_time()
    parse(HOSTILE[name])
    # Under a second on a laptop; without the limits these take up to half a minute.
    assert time.process_time() - begin < 4


def test_an_output_follows_its_block_and_all_else_stays_as_it_is() -> None:
    text = "Intro \n\n```python\nprint(1)\n```\ntail  \n```json\n{}\n```"
    assert replace_blocks(text, {0: "1\n"}) == (
        "Intro \n\n```python\nprint(1)\n```\n```output\n1\n```\ntail  \n```json\n{}\n```"
    )


def test_a_block_without_an_output_is_left_alone() -> None:
    text = "```python\na\n```\n```python\nb\n```\n"
    assert replace_blocks(text, {}) == text
    assert replace_blocks(text, {1: "B"}) == text + "```output\nB\n```\n"


def test_an_output_stays_in_the_quote_or_list_of_its_block() -> None:
    assert replace_blocks("- > ```sh\n  > ls\n  > ```\n\nend", {0: "a\nb"}) == (
        "- > ```sh\n  > ls\n  > ```\n  > ```output\n  > a\n  > b\n  > ```\n\nend"
    )


def test_an_output_takes_the_line_ends_of_the_text() -> None:
    assert replace_blocks("```sh\r\nls\r\n```", {0: "a\n"}) == (
        "```sh\r\nls\r\n```\r\n```output\r\na\r\n```\r\n"
    )


def test_an_open_block_is_closed_before_its_output() -> None:
    assert replace_blocks("~~~~py\nx", {0: ""}) == "~~~~py\nx\n~~~~\n```output\n```\n"


def test_no_output_can_end_its_fence_and_become_a_block() -> None:
    output = "```\n````python\nimport os\n````\n"
    replaced = replace_blocks("```py\nx\n```\n", {0: output})
    assert codes(replaced) == ["x\n"]
    assert "`````output\n" in replaced


WORDS = [
    "```",
    "~~~",
    "````",
    "python",
    "py",
    "json",
    "<!--",
    "-->",
    "`",
    "~",
    ">",
    "-",
    "*",
    "+",
    "1.",
    "#",
    "<",
    "!",
    "=",
    "x",
    "1",
    ".",
    "\n",
    "\n",
    "\n\n",
    "\r\n",
    "\r",
    "> ",
    "- ",
    "1. ",
    " ",
    "  ",
    "    ",
    "\t",
    "\u2028",
    "```python\n",
    "```\n",
    "~~~\n",
]
PIECES = st.lists(st.sampled_from(WORDS), max_size=40).map("".join)


@settings(max_examples=400)
@given(PIECES, st.lists(PIECES, min_size=1, max_size=3))
def test_outputs_never_change_which_code_a_text_holds(text: str, outputs: list[str]) -> None:
    before = code_blocks(text)
    given_outputs = {block.ordinal: outputs[block.ordinal % len(outputs)] for block in before}
    replaced = replace_blocks(text, given_outputs)
    after = code_blocks(replaced)
    assert [(b.language, b.code) for b in after] == [(b.language, b.code) for b in before]
    assert all(block.is_closed for block in after)
    remaining = iter(replaced)
    assert all(character in remaining for character in text)


@given(st.text(max_size=200))
def test_any_text_can_be_read(text: str) -> None:
    for block in code_blocks(text):
        assert block.language in LANGUAGES.values()
