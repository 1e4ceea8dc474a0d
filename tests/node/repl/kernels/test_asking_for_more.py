"""What every language can ask of its host beyond one question: children, the budget, long folds."""

from __future__ import annotations

import json
import re
import zlib

import pytest

from kowalski.node.repl.seam import SubCall, SubCallResult
from tests.node.repl.rooms import talk_to

pytestmark = [pytest.mark.real, pytest.mark.trio]

ORIGINAL = "".join(f"{number}ü\n" for number in range(30_000))
PIECE_CHARS = 64 * 1024


def host(call: SubCall) -> SubCallResult:
    """Unfolds in pieces, as a coordinator does."""
    match call.kind:
        case "budget":
            return SubCallResult(text=json.dumps({"calls": 3, "tokens": None}))
        case "unfold":
            handle, _, start = call.prompt.partition(":")
            assert handle == "h"
            begin = int(start or "0")
            return SubCallResult(text=ORIGINAL[begin : begin + PIECE_CHARS])
        case "find":
            assert call.prompt == "which valve?"
            found = [{"handle": f"h{n}", "score": 1 - n / 10, "text": "a valve"} for n in range(5)]
            return SubCallResult(text=json.dumps(found))
        case _:
            return SubCallResult(text=f"{call.kind} {call.prompt}")


CODE = {
    "python": (
        "print(','.join(rlm_query_batched(['a', 'b'])))",
        "print(budget()['calls'])",
        "import zlib; print(zlib.crc32(unfold('h').encode()))",
        "print([one['handle'] for one in find_folds('which valve?', 2)])",
    ),
    "js": (
        "console.log(rlm_query_batched(['a', 'b']).join(','))",
        "console.log(budget().calls)",
        "console.log(crc(unfold('h')))",
        "console.log(find_folds('which valve?', 2).map((one) => one.handle))",
    ),
    "ruby": (
        "puts rlm_query_batched(%w[a b]).join(',')",
        "puts budget()['calls']",
        "require 'zlib'; puts Zlib.crc32(unfold('h'))",
        "print find_folds('which valve?', 2).map { |one| one['handle'] }",
    ),
    "perl": (
        "print join(',', rlm_query_batched(['a', 'b'])), \"\\n\"",
        'print budget()->{calls}, "\\n"',
        "use Encode; use Compress::Zlib; print crc32(encode('UTF-8', unfold('h'))), \"\\n\"",
        "print join(',', map { $_->{handle} } find_folds('which valve?', 2))",
    ),
    "bash": (
        "rlm_query_batched a b | paste -sd,",
        "budget | grep -o '[0-9]*'",
        "",
        "find_folds which 'valve?' | grep -o 'h[01]\\b'",
    ),
}

CRC_IN_JS = """
crc = (text) => {
  let sum = ~0;
  for (const byte of Buffer.from(text)) {
    sum ^= byte;
    for (let bit = 0; bit < 8; bit++) sum = (sum >>> 1) ^ (sum & 1 ? 0xedb88320 : 0);
  }
  return ~sum >>> 0;
};
"""


@pytest.mark.parametrize("language", list(CODE))
async def test_children_the_budget_and_a_long_fold(language: str) -> None:
    children, budget, fold, _ = CODE[language]
    async with talk_to(language) as cell:
        cell.reply = host
        if language == "js":
            await cell(CRC_IN_JS)
        assert (await cell(children)).stdout == b"rlm a,rlm b\n"
        assert [call.kind for call in cell.batches[0]] == ["rlm", "rlm"]
        assert (await cell(budget)).stdout == b"3\n"
        if fold:
            crc = zlib.crc32(ORIGINAL.encode())
            assert (await cell(fold)).stdout == f"{crc}\n".encode()


@pytest.mark.parametrize("language", list(CODE))
async def test_the_nearest_folds_come_as_what_a_language_has_for_lists(language: str) -> None:
    async with talk_to(language) as cell:
        cell.reply = host
        told = (await cell(CODE[language][-1])).stdout.decode()
        assert re.findall(r"h\d", told) == ["h0", "h1"]


async def test_a_program_can_tell_errors_by_their_code() -> None:
    async with talk_to() as cell:
        cell.reply = lambda _: SubCallResult(error="4 calls are used up", code="budget_spent")
        assert (await cell("llm_query_batched(['a'])[0].code")).value == "'budget_spent'"
        assert (
            await cell("try: rlm_query('a')\nexcept LLMError as e: code = e.code\ncode")
        ).value == "'budget_spent'"
