"""What every language can ask of its host beyond one question: children, the budget, long folds."""

from __future__ import annotations

import json
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
        case _:
            return SubCallResult(text=f"{call.kind} {call.prompt}")


CODE = {
    "python": (
        "print(','.join(rlm_query_batched(['a', 'b'])))",
        "print(budget()['calls'])",
        "import zlib; print(zlib.crc32(unfold('h').encode()))",
    ),
    "js": (
        "console.log(rlm_query_batched(['a', 'b']).join(','))",
        "console.log(budget().calls)",
        "console.log(crc(unfold('h')))",
    ),
    "ruby": (
        "puts rlm_query_batched(%w[a b]).join(',')",
        "puts budget()['calls']",
        "require 'zlib'; puts Zlib.crc32(unfold('h'))",
    ),
    "perl": (
        "print join(',', rlm_query_batched(['a', 'b'])), \"\\n\"",
        'print budget()->{calls}, "\\n"',
        "use Encode; use Compress::Zlib; print crc32(encode('UTF-8', unfold('h'))), \"\\n\"",
    ),
    "bash": (
        "rlm_query_batched a b | paste -sd,",
        "budget | grep -o '[0-9]*'",
        "",
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
    children, budget, fold = CODE[language]
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


async def test_a_program_can_tell_errors_by_their_code() -> None:
    async with talk_to() as cell:
        cell.reply = lambda _: SubCallResult(error="4 calls are used up", code="budget_spent")
        assert (await cell("llm_query_batched(['a'])[0].code")).value == "'budget_spent'"
        assert (
            await cell("try: rlm_query('a')\nexcept LLMError as e: code = e.code\ncode")
        ).value == "'budget_spent'"
