"""What models say to the loop, turn by turn, well and badly: scripts for tests, written by hand.

They are no recordings of a real model. Each follows something that models were seen to do, in the
training data of the paper on Recursive Language Models (arXiv 2512.24601) or in issues of such
loops: text markers for answers, invented output, the same block again and again, broken fences.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

HAY = "".join(f"line {n}: nothing\n" for n in range(400)) + "line 400: the needle is 4711\n"


@dataclass(frozen=True, slots=True)
class Turn:
    """One reply, and what the model is `shown` next; `hidden` must not be there."""

    reply: str
    shown: tuple[str, ...] = ()
    hidden: tuple[str, ...] = ()
    cells: int = 1
    """Blocks of the reply that are run."""


@dataclass(frozen=True, slots=True)
class Trajectory:
    """`last` is the reply beyond the turns, where one is asked for."""

    about: str
    turns: tuple[Turn, ...]
    answer: str
    question: str = "Which needle?"
    context: str = HAY
    reservation: str = ""
    last: str | None = None
    sub_replies: Mapping[str, str] = field(default_factory=dict)
    """To sub-calls, by what is in their prompt."""
    options: Mapping[str, object] = field(default_factory=dict)


def python(code: str) -> str:
    return f"```python\n{code}\n```"


FINAL = Turn(python("FINAL(4711)"))
LOOK = Turn(python("print(len(context), context[:40])"), shown=("line 0: nothing",))

TRAJECTORIES: Mapping[str, Trajectory] = {
    "good": Trajectory(
        "looks, asks a model about each part, puts the answer together",
        (
            LOOK,
            Turn(
                python(
                    "parts = [context[i : i + 4000] for i in range(0, len(context), 4000)]\n"
                    "replies = llm_query_batched(['which needle? ' + part for part in parts])\n"
                    "print(replies)"
                ),
                shown=("['none', '4711']",),
            ),
            Turn(python('answer["content"] = replies[-1]\nanswer["ready"] = True')),
        ),
        "4711",
        sub_replies={"the needle is 4711": "4711", "which needle?": "none"},
    ),
    "prose": Trajectory(
        "talks before, between and after its blocks, in more than one of the usual fences",
        (
            Turn(
                "First, I'll look at `context`.\n\n```repl\nfound = context.find('needle')\n"
                "print('at', found)\n```\n\nThen at what stands there:\n\n1. like this:\n\n"
                "   ~~~py\n   print(context[found:])\n   ~~~\n\nThat should do.",
                shown=(
                    "Output of block 1 (python):\nat ",
                    "Output of block 2 (python):\nneedle is",
                ),
                hidden=("That should do",),
                cells=2,
            ),
            Turn("Now it is clear.\n" + python("FINAL_VAR('found')") + "\nThe answer is 4711."),
        ),
        str(HAY.find("needle")),
    ),
    "wrong fences": Trajectory(
        "no fence, no language, a language of its own, a fence that is never closed",
        (
            Turn("    print(context[:40])", shown=("Nothing was run: ", "no code block"), cells=0),
            LOOK,
            Turn("```\nprint(1)\n```", shown=("does not say its language",), cells=0),
            LOOK,
            Turn("```cobol\nDISPLAY 1\n```", shown=("`cobol` is no language",), cells=0),
            LOOK,
            Turn("```python\nanswer['ready'] = Tr", shown=("never closed",), cells=0),
            FINAL,
        ),
        "4711",
    ),
    "odd fences": Trajectory(
        "ends of lines as in Windows, a fence in a string, a capital, thoughts with drafts in them",
        (
            Turn("```Python\r\nx = 1\r\nprint(x + 1)\r\n```\r\n", shown=("(python):\n2",)),
            Turn(python('s = "```"\nprint(len(s))'), shown=("(python):\n3",)),
            Turn(
                f"<think>\n{python('print(99)')}\nor rather\n</think>\n{python('print(x)')}",
                shown=("(python):\n1",),
                hidden=("99",),
            ),
            FINAL,
        ),
        "4711",
    ),
    "early answers": Trajectory(
        "answers in prose before it has looked, with markers of older loops",
        (
            Turn("FINAL(42)", shown=("no code block", 'answer["ready"] = True'), cells=0),
            LOOK,
            Turn("The final answer is 42.", shown=("no code block",), cells=0),
            FINAL,
        ),
        "4711",
    ),
    "only prose": Trajectory(
        "never writes code: what it says twice in a row is taken, and marked",
        (
            Turn("I believe it is 4711.", shown=("no code block",), cells=0),
            Turn("As I said: 4711.", cells=0),
        ),
        "As I said: 4711.",
        reservation="extracted",
    ),
    "invented output": Trajectory(
        "writes code, invents what it prints, and answers from that in the same reply",
        (
            Turn(
                python("print(context[-7:])")
                + "\n\nOutput of block 1 (python):\n```output\n42\n```\n\nFINAL(42)\n",
                shown=("Output of block 1 (python):\ns 4711",),
                hidden=("42",),
            ),
            FINAL,
        ),
        "4711",
    ),
    "one block again": Trajectory(
        "says the same until its turns are over; each time is one run, and the last word is asked",
        (
            *(
                Turn(
                    python("n = globals().get('n', 0) + 1\nprint('run', n)"),
                    shown=(f"run {n}\n",),
                    hidden=(f"run {n - 1}\n", f"run {n + 1}\n"),
                )
                for n in range(1, 25)
            ),
            Turn(python("n += 1\nopen('/job/turns', 'w').write(f'{n}')")),
        ),
        "It ran 25 times.",
        question=f"What did this print?\n{python('n = 1000')}",
        context=f"It begins with code:\n{python('n = 2000')}\n",
        reservation="extracted",
        last="It ran 25 times.",
        options={"max_iterations": 25},
    ),
    "exceptions": Trajectory(
        "goes on after errors with what was assigned before them; functions see later globals",
        (
            Turn(
                python("kept = True\n_x = 5\ndef f(): return later\n1 / 0\nlost = True"),
                shown=("ZeroDivisionError", "[ended with an error]"),
            ),
            Turn(
                python("later = 2\nprint(kept, f(), _x, 'lost' in globals())"),
                shown=("True 2 5 False",),
            ),
            FINAL,
        ),
        "4711",
    ),
    "exits": Trajectory(
        "ends the interpreter, twice for good: earlier cells are run again, and it is told",
        (
            Turn(python("found = context[-5:]\nprint('set')"), shown=("set",)),
            Turn(python("import sys\nsys.exit(0)"), shown=("the session goes on",)),
            Turn(
                python("gone = 1\nimport os\nos._exit(3)"),
                shown=("its process died; the session began anew, what this block did to it",),
            ),
            Turn(python("print(found, 'gone' in globals())"), shown=("4711\n False",)),
            Turn(python("import ctypes\nctypes.string_at(0)"), shown=("the session began anew",)),
            Turn(python("print('still', found)"), shown=("still 4711",)),
            Turn(python("FINAL(found.strip())")),
        ),
        "4711",
    ),
    "runaway output": Trajectory(
        "prints all it has, then without end: it is shown both ends, and what became of it",
        (
            Turn(python("mark = 7\nprint('<' + 'x' * 3_000_000 + '>')"), shown=("<xxx", "xxx>")),
            Turn(
                python("while True: print('y' * 1000)"),
                shown=("too much output", "the session began anew"),
            ),
            Turn(python("print(mark)"), shown=("(python):\n7",)),
            FINAL,
        ),
        "4711",
    ),
    "no end": Trajectory(
        "loops for ever: stopped in time, what it had printed is shown, its variables stay",
        (
            Turn(
                python("n = 1\nprint('begun', flush=True)\nwhile True: n += 1"),
                shown=("begun", "[stopped: it took too long]"),
            ),
            Turn(python("print(n > 1)"), shown=("True",)),
            FINAL,
        ),
        "4711",
        options={"cell_timeout_s": 0.5},
    ),
    "says nothing": Trajectory(
        "an empty reply, a thought that never ends, then work",
        (
            Turn("", shown=("the reply was empty",), cells=0),
            LOOK,
            Turn("<think>hm, on and on", shown=("the reply was empty",), cells=0),
            FINAL,
        ),
        "4711",
    ),
    "drafts": Trajectory(
        "writes drafts of its answer, never says that one is ready, and runs out of turns",
        (
            Turn(python('answer["content"] = "first thoughts"'), shown=("Turn 2 of 2",)),
            Turn(python('answer["content"] = "4711, I think"')),
        ),
        "4711, I think",
        reservation="unready",
        options={"max_iterations": 2},
    ),
    "sub-calls": Trajectory(
        "asks the same twice and a model that nobody has; the error has its place and a type",
        (
            Turn(
                python(
                    "one, same = llm_query('part a'), llm_query('part a')\n"
                    "a, b = llm_query_batched(['part a', 'part b'], model='nobody has it')\n"
                    "print(one == same, isinstance(a, LLMError), type(b).__name__)"
                ),
                shown=("True True LLMError",),
            ),
            FINAL,
        ),
        "4711",
        sub_replies={"part a": "read"},
    ),
    "shape": Trajectory(
        "gives words where JSON is wanted, then JSON of another shape, then the right one",
        (
            Turn(python("FINAL('it is 4711')"), shown=("That answer will not do.",)),
            Turn(python('FINAL(\'{"needle": "4711"}\')'), shown=("That answer will not do.",)),
            Turn(python("FINAL({'needle': 4711})")),
        ),
        '{"needle": 4711}',
        options={
            "json_schema": (
                '{"type": "object", "properties": {"needle": {"type": "integer"}},'
                ' "required": ["needle"]}'
            )
        },
    ),
}
