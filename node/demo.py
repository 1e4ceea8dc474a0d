"""Three nodes on this machine, a real task over real input, and the loss of one of them.

Real processes, real libp2p on loopback, real mDNS, the real sandbox. The input is the source of
Python's standard library, collected where this runs. With a model server at hand the loop with a
model runs too.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import signal
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

from kowalski.node.control_line import ExitCode
from kowalski.node.local_cluster import Event, LocalCluster, LocalNode, NodeTroubleError
from kowalski.protocol.errors import KowalskiError

NAMES = ("desktop", "laptop", "minipc")
INPUT_BYTES = 10_000_000
TASK_S = 180.0

PROMPT = """\
Which modules of Python's standard library define the most functions, and how much of the library is
comment? The library's source is the context.

```python
import re
modules = {}
for part in context.split("\\x0c# file: ")[1:]:
    name, _, source = part.partition("\\n")
    modules[name] = source
defs = re.compile(r"^[ \\t]*(?:async )?def ", re.M)
functions = {name: len(defs.findall(source)) for name, source in modules.items()}
print(len(modules), "modules,", sum(functions.values()), "functions")
```

```bash
lines=$(wc -l < "$CONTEXT")
comments=$(grep -cE '^[[:space:]]*#' "$CONTEXT")
echo "$comments of $lines lines are comments"
```

```python
top = sorted(functions, key=lambda name: (-functions[name], name))[:5]
for name in top:
    print(f"{functions[name]:5} {name}")
```

```bash
echo "$((100 * comments / lines)) percent"
```
"""

QUESTION = "How many lines of the context begin with 'class '? Count them with code, in `context`."


def main(
    *, json_output: bool, keep: bool, data_dir: Path | None, model_url: str | None
) -> ExitCode:
    """Run the demonstration; the exit code says whether everything happened as promised."""
    show = _Show(as_json=json_output)
    try:
        with _Interrupts() as interrupts, contextlib.ExitStack() as stack:
            folder = data_dir or Path(tempfile.mkdtemp(prefix="kowalski-demo-"))
            folder.mkdir(parents=True, exist_ok=True)
            if data_dir is None and not keep:
                stack.callback(shutil.rmtree, folder, ignore_errors=True)
            show.say(f"working in {folder}")
            nodes = _three_nodes(folder, model_url, show, interrupts, keep=keep)
            cluster = stack.enter_context(nodes)
            return _tell_the_story(cluster, show)
    except KeyboardInterrupt:
        show.say("interrupted")
        return ExitCode.INTERRUPTED
    except (KowalskiError, OSError) as error:
        show.say(f"the demonstration failed: {error}")
        return ExitCode.FAILED


class _Show:
    """What a person, or a program, sees."""

    def __init__(self, *, as_json: bool) -> None:
        self._as_json = as_json
        self._began = time.monotonic()

    def say(self, text: str) -> None:
        at_s = time.monotonic() - self._began
        if self._as_json:
            self.event({"kind": "note", "text": text})
        else:
            sys.stdout.write(f"[{at_s:5.1f} s] {text}\n")
            sys.stdout.flush()

    def event(self, event: Event) -> None:
        if self._as_json:
            sys.stdout.write(json.dumps(event) + "\n")
            sys.stdout.flush()


class _Interrupts:
    """SIGINT and SIGTERM as KeyboardInterrupt, except where that would leave a node behind."""

    def __init__(self) -> None:
        self._is_held = False
        self._has_come = False
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._before[number] = signal.signal(number, self._hear)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _hear(self, _number: int, _frame: object) -> None:
        if not self._is_held:
            raise KeyboardInterrupt
        self._has_come = True

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """What comes during the block is raised behind it."""
        self._is_held, self._has_come = True, False
        try:
            yield
        finally:
            self._is_held = False
        if self._has_come:
            raise KeyboardInterrupt


@contextlib.contextmanager
def _three_nodes(
    folder: Path, model_url: str | None, show: _Show, interrupts: _Interrupts, *, keep: bool
) -> Iterator[LocalCluster]:
    """Start the first node, invite the others, wait until each knows all."""
    cluster = LocalCluster(folder)
    options = ["--backend", model_url] if model_url else []
    try:
        # Whoever asks has better things to do than to compute.
        with interrupts.held():
            first = cluster.start(NAMES[0], "--no-repl", *options)
        first.wait_until_up()
        line = first.invite(uses=len(NAMES))
        show.say(f"{first.name} is up: a mesh of one; it invites the others with {line[:24]}...")
        with interrupts.held():
            for name in NAMES[1:]:
                cluster.start(name, "--join", line, *options)
        cluster.wait_until_met()
        show.say("they have found each other: " + ", ".join(node.name for node in cluster.nodes))
        yield cluster
    finally:
        if keep:
            for node in cluster.nodes:
                show.say(f"{node.name} goes on: kowalski-node status --data-dir {node.data_dir}")
        else:
            with interrupts.held():
                cluster.stop()


# --- the story ----------------------------------------------------------------------------------


def _tell_the_story(cluster: LocalCluster, show: _Show) -> ExitCode:
    library = cluster.folder / "stdlib.txt"
    show.say(f"collected {_collect(library) / 1e6:.1f} MB of Python's standard library")
    asker = cluster.nodes[0]
    loss = _Loss(cluster, show)
    done = _submit(asker, loss.watch, prompt=PROMPT, mode="blocks", file=library)
    _print_result(done, show)
    if done["state"] != "answered":
        raise NodeTroubleError(f"the task ended {done['state']}: {done.get('reason')}")
    expected = f"{_count_functions(library)} functions"
    if expected not in loss.output:
        raise NodeTroubleError(f"the cells did not print {expected!r}")
    show.say(f"checked: counted here, without the mesh, it is {expected} as well")
    if loss.victim is None:
        raise NodeTroubleError("nobody was killed on the way: no cell ran on another node")
    models = asker.ask("status")["models"]
    peers = asker.ask("peers")["peers"]
    assert isinstance(peers, list)
    if models or any(row["models"] for row in peers):
        show.say("a model is at hand: the same context, with a model that writes the code")
        done = _submit(asker, loss.tell, prompt=QUESTION, mode="rlm", file=library)
        _print_result(done, show)
    else:
        show.say("no model server was found on the usual ports, so the model's part is left out")
    return ExitCode.OK


class _Loss:
    """Kills the node that ran the first python cell, as soon as that cell is done."""

    def __init__(self, cluster: LocalCluster, show: _Show) -> None:
        self._cluster = cluster
        self._show = show
        self.victim: LocalNode | None = None
        self.output = ""
        """What the cells printed; a model may word the answer as it likes."""

    def watch(self, event: Event) -> None:
        self.tell(event)
        is_done = event.get("kind") == "cell" and event.get("status") == "done"
        if not is_done or event.get("language") != "python" or self.victim is not None:
            return
        victim = self._cluster.named(str(event["name"]))
        if victim is self._cluster.nodes[0]:
            return
        victim.kill()
        self.victim = victim
        self._show.say(f"killed {victim.name} (kill -9), which holds the task's python variables")

    def tell(self, event: Event) -> None:
        self._show.event(event)
        if event.get("kind") == "output":
            self.output += str(event["text"])
        text = _words(event)
        if text:
            self._show.say(text)


def _words(event: Event) -> str:
    match event.get("kind"):
        case "coordinator":
            why = f" ({event['why']})" if event.get("why") else ""
            return f"led by {event['name']}, term {event['term']}{why}"
        case "cell":
            place = f"cell {event['cell']} {event['language']} on {event['name']}"
            why = f": {event['why']}" if event.get("why") else ""
            return f"{place} {event['status']}{why}"
        case "call":
            return f"model {event['model']} on {event['name']}"
        case "note":
            return str(event.get("text"))
        case _:
            return ""


def _submit(
    node: LocalNode, on_event: Callable[[Event], None], *, prompt: str, mode: str, file: Path
) -> Event:
    request = {
        "prompt": prompt,
        "mode": mode,
        "context": [{"name": file.name, "path": str(file)}],
        "timeout_s": TASK_S,
    }
    return node.ask("submit", request, on_event=on_event, silence_s=TASK_S + 30)


def _print_result(done: Event, show: _Show) -> None:
    show.event({"kind": "result", **done})
    show.say(f"{done['state']}. What ran where:")
    ran = done["ran"]
    assert isinstance(ran, list)
    for row in ran:
        show.say(f"  {row['what']:22} {row['name']:8} {row['why']}")
    show.say("The answer:\n\n" + str(done["answer"]))


def _collect(target: Path) -> int:
    """Python's standard library in one file, about ten megabytes; how many bytes it became."""
    folder = Path(sysconfig.get_paths()["stdlib"])
    size = 0
    with target.open("w", encoding="utf-8") as file:
        for path in sorted(folder.rglob("*.py")):
            name = path.relative_to(folder).as_posix()
            if "site-packages" in name or size >= INPUT_BYTES:
                continue
            try:
                source = path.read_text(encoding="utf-8")
            except (OSError, UnicodeDecodeError):
                continue  # test files with odd encodings
            size += file.write(f"\f# file: {name}\n{source.replace(chr(12), ' ')}\n")
    return size


def _count_functions(library: Path) -> int:
    lines = library.read_text(encoding="utf-8").split("\n")
    heads = (line.lstrip().removeprefix("async ") for line in lines)
    return sum(head.startswith("def ") for head in heads)
