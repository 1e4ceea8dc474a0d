"""Plain-language facts, and large texts that come with every Python, to plant them in."""

from __future__ import annotations

import argparse
import inspect
import logging
import random
import tarfile
import typing
import unittest.mock
from pydoc_data.topics import topics

FACTS = (
    ("Grandmother's recipe calls for cardamom and burnt sugar.", "cardamom"),
    ("The east gate stays locked while the swans are nesting.", "swans"),
    ("Tomasz traded his motorcycle for a greenhouse.", "greenhouse"),
    ("The choir rehearses in the barn when it rains.", "choir"),
    ("Please feed the tortoise before you leave.", "tortoise"),
    ("Our landlord keeps the deposit in a tin under the stairs.", "under the stairs"),
    ("The museum lends the telescope to schools in winter.", "telescope"),
    ("Ingrid was born on a ship near Reykjavik.", "Reykjavik"),
    ("The bakery on the corner closes on the second Tuesday.", "bakery"),
    ("Nobody remembers who painted the ceiling of the station.", "ceiling"),
    ("The vaccine must be kept between two and eight degrees.", "vaccine"),
    ("Halima won the chess tournament with the black pieces.", "chess"),
    ("The well behind the mill ran dry in 1893.", "1893"),
    ("The jury found the carpenter not guilty.", "carpenter"),
    ("Their anniversary falls on the day of the harvest festival.", "harvest festival"),
    ("The tram to the harbour costs 3 crowns and 40 pence.", "crowns"),
    ("A heron stole the goldfish from the pond.", "heron"),
    ("The orchestra tunes to an old oboe.", "oboe"),
    ("The passport office moved above the pharmacy.", "pharmacy"),
    ("He buried the coins next to the crooked pine.", "crooked pine"),
)
"""What is planted, and the words that tell whether it survived."""

QUESTIONS = (
    ("Which spice does the recipe need?", "cardamom"),
    ("When is the east gate locked?", "swans"),
    ("What did Tomasz get for his motorcycle?", "greenhouse"),
    ("Where does the choir rehearse when it is raining?", "barn"),
    ("Where is the deposit that the landlord keeps?", "under the stairs"),
    ("Where was Ingrid born?", "Reykjavik"),
    ("On which day does the bakery close?", "second Tuesday"),
    ("At what temperature is the vaccine kept?", "eight degrees"),
    ("Who won at chess?", "Halima"),
    ("When did the well run dry?", "1893"),
    ("What does the tram cost?", "crowns"),
    ("Who stole goldfish?", "heron"),
)


def prose() -> str:
    return "\n\n".join(topics[name] for name in sorted(topics))[:400_000]


def source_and_logs() -> str:
    modules = (argparse, logging, tarfile, typing, unittest.mock)
    source = "\n".join(inspect.getsource(module) for module in modules)[:260_000]
    drawn = random.Random(11)
    steps = [
        f"2024-06-0{1 + n % 9} 1{n % 10}:{n % 60:02}:{n * 7 % 60:02}.{n * 37 % 1000:03} "
        f"[worker-{n % 8}] INFO  build step {n} took {drawn.randrange(977)} ms, "
        f"object {drawn.getrandbits(64):016x}"
        for n in range(1200)
    ]
    beats = [f"2024-06-09 11:{n // 60:02}:{n % 60:02} heartbeat ok" for n in range(500)]
    return "\n".join([source, *steps, *beats, ""])


def planted(text: str, *, seed: int) -> str:
    """`text` with every fact on a line of its own, at places drawn from `seed`."""
    drawn = random.Random(seed)
    lines = text.split("\n")
    places = sorted(drawn.sample(range(50, len(lines) - 50), len(FACTS)), reverse=True)
    for place, (fact, _) in zip(places, drawn.sample(FACTS, len(FACTS)), strict=True):
        lines.insert(place, fact)
    return "\n".join(lines)


def survivors(text: str) -> int:
    """How many facts can still be read in `text`."""
    words = " ".join(text.split())
    return sum(key in words for _, key in FACTS)
