"""A model without weights that really reads: rules in place of a network, for tests.

It is asked questions over more data than it is ever shown. It looks at the beginning of the data,
writes code that cuts it at line ends and asks a model of each part, and that model (this one again)
reads its part by rules and tells what it found. So an answer is right only if every byte of the
data went through cells and sub-calls, once.
"""

from __future__ import annotations

import json
import random
import re
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from tests.scripted_model_server import Call

PART_CHARS = 100_000
COLOURS = ("red", "green", "blue", "ochre", "teal")
CITIES = ("Lisbon", "Oslo", "Quito", "Hanoi", "Accra", "Turin", "Perth")

_SECRET = re.compile(r"^the secret of (\w+) is (\d+)$", re.MULTILINE)
_RECORD = re.compile(r"^record (\d+): colour (\w+), code (\w+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Hay:
    """Lines of records, with secrets among them, and what a careful reader knows of them."""

    text: str
    secrets: dict[str, int]
    colours: dict[str, int]
    pairs: frozenset[tuple[int, int]]
    """Numbers of records that have the same code; no code has more than two."""


def make_hay(size_bytes: int, *, seed: int = 7) -> Hay:
    chance = random.Random(seed)
    lines: list[str] = []
    colours: Counter[str] = Counter()
    pairs: set[tuple[int, int]] = set()
    size = number = 0
    while size < size_bytes:
        colour = chance.choice(COLOURS)
        colours[colour] += 1
        lines.append(f"record {number}: colour {colour}, code c{number:x}")
        size += len(lines[-1]) + 1
        number += 1
    for _ in range(10):
        one, other = sorted(chance.sample(range(number), 2))
        if not any(n in pair for pair in pairs for n in (one, other)):
            pairs.add((one, other))
            head, _, _ = lines[other].rpartition(" ")
            lines[other] = f"{head} c{one:x}"
    secrets = {city: chance.randrange(10**6) for city in CITIES}
    for city, secret in secrets.items():
        lines.insert(chance.randrange(len(lines)), f"the secret of {city} is {secret}")
    return Hay("\n".join(lines) + "\n", secrets, dict(colours), frozenset(pairs))


def questions(hay: Hay) -> Iterator[tuple[str, str]]:
    """What to ask about the hay, and the right answers."""
    yield "What is the secret of Quito?", str(hay.secrets["Quito"])
    told = ", ".join(f"{city}: {secret}" for city, secret in sorted(hay.secrets.items()))
    yield "What are the secrets of all cities?", told
    yield "How many records have the colour teal?", str(hay.colours["teal"])
    told = ", ".join(f"{one} and {other}" for one, other in sorted(hay.pairs))
    yield "Which pairs of records have the same code?", told


# --- the reader ---------------------------------------------------------------------------------

_LOOK = "I look at the data first.\n```python\nprint(len(context), context[:300])\n```"

_ASK = f"""I read it in parts, a hundred at a time.
```python
import json
found, start, size = [], 0, len(context)
while start < size:
    parts = []
    while start < size and len(parts) < 100:
        end = start + {PART_CHARS}
        end = size if end >= size else context.rindex("\\n", start, end) + 1
        parts.append("READ {{what}}\\n" + context[start:end])
        start = end
    found += [json.loads(one) for one in llm_query_batched(parts)]
print("all was read")
```"""

_END: dict[str, str] = {
    "secret": "FINAL(next(str(v) for one in found for k, v in one if k == {name!r}))",
    "secrets": (
        "FINAL(', '.join(f'{k}: {v}' for k, v in sorted((k, v) for one in found for k, v in one)))"
    ),
    "count": "FINAL(str(sum(found)))",
    "pairs": """seen, same = {}, []
for one in found:
    for number, code in one:
        if code in seen:
            same.append((seen[code], number))
        seen[code] = number
FINAL(", ".join(f"{a} and {b}" for a, b in sorted(same)))""",
}

_WHAT: tuple[tuple[str, str], ...] = (
    (r"What is the secret of (\w+)\?", "secret"),
    (r"What are the secrets of all cities\?", "secrets"),
    (r"How many records have the colour (\w+)\?", "count"),
    (r"Which pairs of records have the same code\?", "pairs"),
)


def read(call: Call) -> str | None:
    """What the reader says to this; None to what it was never taught."""
    if call.last.startswith("READ "):
        return _read_part(call.last)
    for pattern, what in _WHAT:
        if asked := re.search(pattern, call.prompt):
            name = asked.group(1) if asked.groups() else ""
            turn = sum(message["role"] == "assistant" for message in call.messages)
            if turn == 0:
                return _LOOK
            if turn == 1:
                return _ASK.replace("{what}", f"{what} {name}".strip())
            return f"Now I know.\n```python\n{_END[what].replace('{name!r}', repr(name))}\n```"
    return None


def _read_part(prompt: str) -> str:
    head, _, part = prompt.partition("\n")
    _, what, *names = head.split()
    reads: dict[str, Callable[[], object]] = {
        "secret": lambda: _SECRET.findall(part),
        "secrets": lambda: _SECRET.findall(part),
        "count": lambda: sum(colour in names for _, colour, _ in _RECORD.findall(part)),
        "pairs": lambda: [(int(number), code) for number, _, code in _RECORD.findall(part)],
    }
    return json.dumps(reads[what](), separators=(",", ":"))
