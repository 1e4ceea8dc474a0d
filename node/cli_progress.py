"""The live view of a task under way, on stderr: a line for each thing that happens.

On a terminal a last line counts along. It only retells events; the task does not depend on anybody
watching.
"""

from __future__ import annotations

import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from kowalski.node import cli_render as render

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from rich.text import Text

# Of what a cell prints, this much is worth watching; the rest is in the journal of the task.
OUTPUT_LINES_MAX = 20


class Progress:
    """What happened so far; `line` takes the next event and says what to print for it."""

    def __init__(self, budget_s: float, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._budget_s = budget_s
        self._clock = clock
        self._begun = clock()
        self._output_lines = 0
        self._peers: set[str] = set()
        self._characters = 0
        self._running: set[str] = set()
        # By the kind of event; a kind that is not here is newer than this program.
        self._tell: Mapping[str, Callable[[Mapping[str, object]], str | None]] = {
            "submitted": self._submitted,
            "coordinator": self._coordinator,
            "turn": self._turn,
            "cell": self._cell,
            "output": self._output,
            "delta": self._delta,
            "call": self._call,
            "fold": self._fold,
            "note": self._note,
        }
        self.task: str | None = None
        self.turns = 0
        self.cells = 0
        self.calls = 0

    @property
    def elapsed_s(self) -> float:
        return self._clock() - self._begun

    def headline(self) -> str:
        """Where we are, for the last line."""
        left_s = max(0.0, self._budget_s - self.elapsed_s)
        parts = [f"{self.elapsed_s:.0f} s"]
        if self.turns:
            parts.append(f"turn {self.turns}")
        parts.append(_count(self.cells, "cell") + f" ({len(self._running)} running)")
        if self.calls:
            parts.append(_count(self.calls, "call"))
        if self._characters:
            parts.append(f"~{self._characters // 4} tokens")
        parts += [_count(len(self._peers), "peer"), f"{render.duration(left_s)} left"]
        return ", ".join(parts)

    def line(self, event: Mapping[str, object]) -> str | None:
        if event.get("name") or event.get("peer"):
            self._peers.add(render.who(event))
        tell = self._tell.get(str(event.get("kind")))
        return None if tell is None else tell(event)

    def _submitted(self, event: Mapping[str, object]) -> str:
        self.task = render.field(event, "task")
        return f"task {self.task}"

    def _coordinator(self, event: Mapping[str, object]) -> str:
        return f"led by {render.who(event)}, term {render.field(event, 'term')}"

    def _turn(self, event: Mapping[str, object]) -> str:
        self.turns = int(render.number(event.get("n")) or self.turns + 1)
        return f"turn {self.turns}"

    def _delta(self, event: Mapping[str, object]) -> None:
        self._characters += len(str(event.get("text") or ""))

    def _call(self, event: Mapping[str, object]) -> str:
        count = int(render.number(event.get("count")) or 1)
        self.calls += count
        times = f", {count} times" if count > 1 else ""
        return f"model {render.field(event, 'model')} on {render.who(event)}{times}"

    def _fold(self, event: Mapping[str, object]) -> str:
        return f"folded: {_rest(event)}"

    def _note(self, event: Mapping[str, object]) -> str:
        return render.field(event, "text")

    def _cell(self, event: Mapping[str, object]) -> str:
        cell = render.field(event, "cell")
        place = f"cell {cell} {render.field(event, 'language')} on {render.who(event)}"
        why = f": {event['why']}" if event.get("why") else ""
        self._output_lines = 0
        match event.get("status"):
            case "started":
                self.cells += cell not in self._running
                self._running.add(cell)
                return f"{place}{why}"
            case "moved":
                return f"{place}, moved there{why}"
            case status:
                self._running.discard(cell)
                took = render.duration(event.get("duration_s"))
                return f"{place}: {render.text(status)} after {took}{why}"

    def _output(self, event: Mapping[str, object]) -> str | None:
        lines = str(event.get("text") or "").splitlines()
        room = OUTPUT_LINES_MAX - self._output_lines
        self._output_lines += len(lines)
        if room <= 0 or not lines:
            return None
        kept = [f"  | {line}" for line in lines[:room]]
        if len(lines) > room:
            kept.append("  | ...")
        return "\n".join(kept)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _rest(event: Mapping[str, object]) -> str:
    return render.text({name: value for name, value in event.items() if name != "kind"})


@contextmanager
def shown(
    progress: Progress, say: Callable[[str], None]
) -> Iterator[Callable[[dict[str, object]], None]]:
    """Yields what to call with every event. `say` prints where there is no terminal."""
    if not sys.stderr.isatty():

        def plain(event: dict[str, object]) -> None:
            line = progress.line(event)
            if line is not None:
                say(f"[{progress.elapsed_s:6.1f} s] {line}")

        yield plain
        return
    from rich.console import Console
    from rich.live import Live
    from rich.spinner import Spinner
    from rich.text import Text

    from kowalski.rlm.truncation import printable

    console = Console(stderr=True, highlight=False)
    spinner = Spinner("dots")

    def last_line() -> Spinner:
        spinner.update(text=Text(progress.headline(), style="bold"))
        return spinner

    def live_line(event: dict[str, object]) -> None:
        line = progress.line(event)
        if line is not None:
            console.print(_styled(Text(printable(line)), event))

    with Live(get_renderable=last_line, console=console, transient=True, refresh_per_second=8):
        yield live_line


def _styled(line: Text, event: Mapping[str, object]) -> Text:
    styles = {"output": "dim", "note": "yellow", "turn": "bold"}
    line.stylize(styles.get(str(event.get("kind")), ""))
    return line
