"""A language of a few words for scripted cells: what a cell does can be read off its code.

wait 2.5            works for so many seconds
keep x 41           sets a variable, for later cells too
show x              prints `x is 41`, or fails if no cell has set it
say WORDS           prints
flood 20000         prints so many characters
ask PROMPT          a sub-call; prints the reply
ask-many 100 WORDS  so many sub-calls in one batch, `WORDS 0` to `WORDS 99`; prints the replies
ask-child WORDS     a sub-call for a session of its own; prints the reply
budget              prints what is left of it
answer WORDS        sets the answer, and that it is ready
draft WORDS         sets the answer, not ready; `answer` and `draft` put in `$reply`
fail WORDS          ends with an error
leave NAME WORDS    leaves a file
arguments           prints its name, its arguments, what it is to read, and its files
die                 takes the session with it
"""

from __future__ import annotations

from dataclasses import dataclass, field

from kowalski.node.repl.scripted_sessions import ScriptedCell, ScriptedState
from kowalski.node.repl.seam import Answer, Artefact, CellOutcome, SubCall, SubCallResult

FLOOD = "0123456789abcde\n"


@dataclass(slots=True)
class _Run:
    variables: dict[str, str]
    answers: list[SubCallResult]
    state: ScriptedState | None = None
    printed: list[str] = field(default_factory=list)
    error: str | None = None
    answer: Answer | None = None
    is_alive: bool = True
    reply: str = ""

    def take(self, count: int) -> list[str]:
        """The next answers to sub-calls, as words."""
        taken, self.answers = self.answers[:count], self.answers[count:]
        words = [one.text if one.error is None else f"[{one.error}]" for one in taken]
        self.reply = " | ".join(word or "" for word in words)
        return [word or "" for word in words]

    def do(self, line: str) -> None:  # noqa: C901, PLR0912 a flat table
        word, _, rest = line.strip().partition(" ")
        match word:
            case "keep":
                name, _, value = rest.partition(" ")
                self.variables[name] = value
            case "show" if rest in self.variables:
                self.printed.append(f"{rest} is {self.variables[rest]}")
            case "show":
                self.error = f"NameError: {rest}"
            case "say":
                self.printed.append(rest)
            case "flood":
                self.printed.append((FLOOD * (int(rest) // len(FLOOD) + 1))[: int(rest)])
            case "ask" | "ask-child" | "budget":
                self.printed += self.take(1)
            case "ask-many" | "ask-big":
                self.printed += self.take(int(rest.partition(" ")[0]))
            case "answer" | "draft":
                self.answer = Answer(rest.replace("$reply", self.reply), word == "answer")
            case "answer-big":
                size, _, letter = rest.partition(" ")
                self.answer = Answer(letter * int(size), ready=True)
            case "fail":
                self.error = rest
            case "die":
                self.is_alive = False
            case "arguments" if self.state is not None:
                self.printed.append(_scene(self.state))
            case "wait" | "leave" | "arguments" | "":
                pass
            case _:
                self.error = f"SyntaxError: {line}"

    def run(self, code: str) -> None:
        for line in code.splitlines():
            if self.error is None and self.is_alive:
                self.do(line)


def run_plainly(code: str, variables: dict[str, str]) -> str:
    """What a cell without sub-calls prints, its error last; it sets variables."""
    run = _Run(variables, [])
    run.run(code)
    return "".join(f"{line}\n" for line in run.printed) + (run.error or "")


def sub_calls(code: str) -> tuple[SubCall, ...]:
    calls: list[SubCall] = []
    for line in code.splitlines():
        word, _, rest = line.strip().partition(" ")
        if word == "ask":
            calls.append(SubCall(rest))
        elif word == "ask-child":
            calls.append(SubCall(rest, kind="rlm"))
        elif word == "budget":
            calls.append(SubCall("", kind="budget"))
        elif word == "ask-many":
            count, _, prompt = rest.partition(" ")
            calls += [SubCall(f"{prompt} {number}") for number in range(int(count))]
        elif word == "ask-big":
            count, _, size = rest.partition(" ")
            calls += [SubCall(f"{number} ".ljust(int(size), "x")) for number in range(int(count))]
    return tuple(calls)


def toy_script(code: str, state: ScriptedState) -> ScriptedCell:
    """A `scripted_sessions.Script`."""
    seconds = (line.split()[1] for line in code.splitlines() if line.strip().startswith("wait "))

    def outcome_of(results: tuple[SubCallResult, ...]) -> CellOutcome:
        run = _Run(_variables(state.codes), list(results), state)
        run.run(code)
        stdout = "".join(f"{text}\n" for text in run.printed).encode()
        if not run.is_alive:
            return CellOutcome("died", stdout, error="it died", session_alive=False)
        return CellOutcome(
            "ok" if run.error is None else "error",
            stdout,
            error=run.error,
            answer=run.answer,
            exit_code=int(run.error is not None),
        )

    left = (line.split(maxsplit=2) for line in code.splitlines() if line.startswith("leave "))
    return ScriptedCell(
        duration_s=sum(map(float, seconds)),
        sub_calls=sub_calls(code),
        outcome_of=outcome_of,
        leaves=tuple(Artefact(name, words.encode()) for _, name, words in left),
    )


def _scene(state: ScriptedState) -> str:
    scene = state.scene
    read = scene.stdin.read_text() if scene.stdin else ""
    files = ", ".join(f"{name}: {path.read_text()}" for name, path in sorted(state.files.items()))
    return f"{scene.name} {list(scene.arguments)} {read!r} {{{files}}}"


def _variables(codes: tuple[str, ...]) -> dict[str, str]:
    """What the cells before this one have set."""
    run = _Run({}, [])
    for code in codes:
        run.error, run.is_alive = None, True
        lines = (line for line in code.splitlines() if not line.startswith(("ask", "budget")))
        run.run("\n".join(lines))
    return run.variables
