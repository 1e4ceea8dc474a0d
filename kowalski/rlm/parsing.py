"""Finds the code blocks of a reply, and puts outputs back after the blocks of a prompt.

Blocks are fences as CommonMark 0.31 defines them, read by markdown-it-py. Only the text handed in
is looked at: which text that may be (the newest reply; the prompt in mode `blocks`; an output
never) is the session's decision, and so is what to do with a fence that was never closed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from markdown_it import MarkdownIt
from markdown_it.rules_block import html_block

if TYPE_CHECKING:
    from markdown_it.rules_block import StateBlock
    from markdown_it.token import Token

LINES_MAX: Final = 10_000
"""Lines read by default. A text built to hurt costs the block parser up to 0.1 ms a line."""

# Levels of quotes and (two each) lists; the default of 20 makes hostile quotes twice as slow.
_NESTING_MAX: Final = 10

LANGUAGES: Final[Mapping[str, str]] = {
    "bash": "bash",
    "cjs": "js",
    "go": "go",
    "golang": "go",
    "ipython": "python",
    "ipython3": "python",
    "java": "java",
    "javascript": "js",
    "js": "js",
    "mjs": "js",
    "node": "js",
    "nodejs": "js",
    "perl": "perl",
    "pl": "perl",
    "py": "python",
    "py3": "python",
    "python": "python",
    "python3": "python",
    "rb": "ruby",
    "repl": "python",
    "rs": "rust",
    "ruby": "ruby",
    "rust": "rust",
    "sh": "bash",
    "shell": "bash",
    "ts": "typescript",
    "typescript": "typescript",
    "zsh": "bash",
}
"""What a fence may say, in lower case, to the language it means.

Transcripts (`console`, `pycon`) are absent: their prompts and outputs are no program.
"""

_LINE = re.compile(r"[^\r\n]*(?:\r\n?|\n)|[^\r\n]+")
_LINE_END = re.compile(r"\r\n?|\n")
_BACKTICKS = re.compile(r"`{3,}")
# `python`, `python3.12`, `python title=x`, `rust,no_run`, `language-js`
_LABEL = re.compile(r"[{\s]*(?:lang(?:uage)?-)?([\w+][\w+#-]*)")
# `{#listing .python .numbered}`: the first class names the language
_CLASS = re.compile(r"[{\s]\.([\w+#-]+)")
# The kinds of HTML block that hide what is inside them: comments, <pre>, declarations.
_HIDING_TAG = re.compile(r"<(?:[!?]|(?:script|pre|style|textarea)(?![\w-]))", re.IGNORECASE)
_NOT_QUOTE_OR_TAB = re.compile(r"[^>\t]")


@dataclass(frozen=True, slots=True)
class CodeBlock:
    language: str
    """One of the values of `LANGUAGES`."""
    code: str
    """Every line ends in a line feed, whatever the text used; NUL became U+FFFD."""
    ordinal: int
    """0 for the first block of the text."""
    line: int
    """The 1-based line of the text on which the code begins."""
    is_closed: bool
    """False if the fence ended with its container or the text: the code may be cut short."""


@dataclass(frozen=True, slots=True)
class SkippedBlock:
    """A fence in no language that we know: text for a hint, never for running."""

    label: str
    """The language as written, in lower case; empty if none was."""
    line: int


@dataclass(frozen=True, slots=True)
class Parsed:
    blocks: tuple[CodeBlock, ...]
    skipped: tuple[SkippedBlock, ...]
    unread_lines: int
    """Lines past the limit; a block on the border is there, and not closed."""


def parse(markdown: str, *, lines_max: int = LINES_MAX) -> Parsed:
    """The fenced blocks of `markdown` in order, in quotes and lists too.

    Indented and inline code is text. A tag such as `<answer>` on the line above a fence does not
    hide it, as CommonMark says it would: models write such tags.
    """
    blocks: list[CodeBlock] = []
    skipped: list[SkippedBlock] = []
    lines = _LINE.findall(markdown)
    for fence in _fences(lines[:lines_max]):
        label = _label(fence.info)
        language = LANGUAGES.get(label)
        line = fence.map[0] + 2 if fence.map else 0
        if language is None:
            skipped.append(SkippedBlock(label, line))
        else:
            ordinal = len(blocks)
            blocks.append(CodeBlock(language, fence.content, ordinal, line, _is_closed(fence)))
    return Parsed(tuple(blocks), tuple(skipped), max(0, len(lines) - lines_max))


def code_blocks(markdown: str) -> tuple[CodeBlock, ...]:
    """`parse` for who needs no hints."""
    return parse(markdown).blocks


def replace_blocks(markdown: str, outputs: Mapping[int, str], *, lines_max: int = LINES_MAX) -> str:
    """Put each output, by the ordinal of its block, into an `output` fence after the block.

    Lines are only added: the text itself stays as it is to the byte, and no output can end its own
    fence. A block that was never closed is closed first. Takes the `lines_max` given to `parse`.
    """
    lines = _LINE.findall(markdown)
    pieces: list[str] = []
    done = ordinal = 0
    for fence in _fences(lines[:lines_max]):
        if fence.map is None or _label(fence.info) not in LANGUAGES:
            continue
        if ordinal in outputs:
            begin, end = fence.map
            pieces += lines[done:end]
            pieces += _output_fence(fence, lines[begin], lines[end - 1], outputs[ordinal])
            done = end
        ordinal += 1
    return "".join(pieces + lines[done:])


def _fences(lines: list[str]) -> list[Token]:
    text = "".join(lines)
    # A last line without an end would make a closed fence look like an open one (`_is_closed`).
    text = text if text.endswith(("\n", "\r")) else text + "\n"
    return [token for token in _MARKDOWN.parse(text) if token.type == "fence"]


def _is_closed(fence: Token) -> bool:
    # Between the opening line and the end of the block lie the code and, if closed, one line more.
    begin, end = fence.map or (0, 0)
    return fence.content.count("\n") == end - begin - 2


def _label(info: str) -> str:
    found = _CLASS.search(info) if info.lstrip().startswith("{") else None
    found = found or _LABEL.match(info)
    return found[1].lower() if found else ""


def _output_fence(fence: Token, opening_line: str, last_line: str, output: str) -> list[str]:
    last_ends = _LINE_END.search(last_line)
    ends = last_ends or _LINE_END.search(opening_line)
    newline = ends[0] if ends else "\n"
    # The same quotes and the same indent as the block, so that the output stays in its container.
    container = opening_line[: opening_line.index(fence.markup)]
    prefix = _NOT_QUOTE_OR_TAB.sub(" ", container)
    longest = max((len(run) for run in _BACKTICKS.findall(output)), default=2)
    ticks = "`" * (longest + 1)
    content = _LINE_END.split(output)
    if content[-1] == "":
        content.pop()
    closing = [] if _is_closed(fence) else [fence.markup]
    inserted = [*closing, f"{ticks}output", *content, ticks]
    return ["" if last_ends else newline, *(prefix + line + newline for line in inserted)]


def _hiding_html_block(state: StateBlock, line: int, end: int, silent: bool) -> bool:  # noqa: FBT001 - markdown-it-py calls it so
    start = state.bMarks[line] + state.tShift[line]
    return bool(_HIDING_TAG.match(state.src, start)) and html_block(state, line, end, silent)


def _block_parser() -> MarkdownIt:
    parser = MarkdownIt("commonmark", {"maxNesting": _NESTING_MAX})
    # Inline parsing and link definitions cannot hold a fence, and are what hostile text slows most.
    parser.core.ruler.enableOnly(["normalize", "block"])
    parser.block.ruler.disable("reference")
    interrupts = ["paragraph", "reference", "blockquote"]
    parser.block.ruler.at("html_block", _hiding_html_block, {"alt": interrupts})
    return parser


_MARKDOWN: Final = _block_parser()
