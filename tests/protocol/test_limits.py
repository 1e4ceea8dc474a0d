"""The maxima fit each other: what a message may hold fits its frame, or its sender must measure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from pydantic import BaseModel

from kowalski.protocol import limits
from kowalski.protocol.messages.registry import MESSAGES
from kowalski.protocol.messages.task import Entry
from tests.protocol.strategies import fields_of

# Kinds of which the models allow more than the frame holds. Whoever sends one measures first, or
# takes the parts from something smaller; `encode` raises LocalProtocolError otherwise.
SENDER_MEASURES = {
    "copies/found": "as many entries as fit",
    "copies/offered": "as many entries as fit",
    "detached/delegation": "a specification that is announced fits with its grant",
    "detached/log-offered": "as many entries as half a frame holds",
    "inference/completion-asked": "the window of a model ends before",
    "inference/completions-asked": "short questions, as many as half a frame holds",
    "inference/completions-done": "speeds of 64 models with the longest names",
    "inference/completions-told": "told before they weigh too much",
    "inference/catalogue": "256 models with the longest names",
    "inference/completion-done": "speeds of 64 models with the longest names",
    "inference/delta": "each piece travels alone",
    "inference/embeddings-asked": "long lists of texts are split",
    "inference/embeddings-done": "speeds of 64 models with the longest names",
    "inference/tokens-asked": "long lists of texts are split",
    "inference/previews": "32 ways with the longest words",
    "inference/model-ready": "speeds of 64 models with the longest names",
    "journal/cell-finished": "files beyond 16 MiB of them are left out",
    "membership/ready": "members beyond a frame are learned from others",
    "membership/welcome": "members beyond a frame are learned from others",
    "placement/offer": "speeds of 64 models with the longest names",
    "journal/sub-calls-answered": "as many as came in one message",
    "repl/cell-asked": "inputs with 256 of the longest names",
    "repl/cell-done": "stdout and stderr are cut to what is shown",
    "repl/sub-calls-answered": "long batches are split",
    "repl/sub-calls-asked": "long batches are split",
    "swim/sync-answered": "members beyond a frame are learned from others",
    "task/announced": "the newest tasks that fit",
    "task/prefix": "as many entries as fit",
    "telemetry/hot": "speeds of 64 models with the longest names",
    "telemetry/profile": "128 models with the longest names",
    "trust/join-granted": "members beyond a frame are learned from others",
    "watching/seen": "as many entries as fit",
    "watching/traced": "as many lines as fit",
}


def weight(model: type[BaseModel]) -> int:
    """The most bytes that an instance can have on the wire, a few more at worst."""
    return 5 + sum(2 + len(name) + _weight(schema) for name, schema in fields_of(model).items())


def _weight(schema: Mapping[str, Any]) -> int:  # noqa: PLR0911
    match schema["type"]:
        case "model":
            return weight(schema["cls"])
        case "nullable" | "default":
            return _weight(schema["schema"])
        case "tuple":
            return 5 + int(schema["max_length"]) * _weight(schema["items_schema"][0])
        case "dict":
            pair = _weight(schema["keys_schema"]) + _weight(schema["values_schema"])
            return 5 + int(schema["max_length"]) * pair
        case "function-after":
            return 5 + int(schema["function"]["function"].__self__.bytes_max)
        case "str":
            return 5 + 4 * int(schema.get("max_length", 64))  # 64: names that have a pattern
        case "bytes":
            return 5 + int(schema["max_length"])
        case "literal":
            return 2 + max(map(len, schema["expected"]))
        case _:
            return 9


def test_what_can_outgrow_its_frame_is_known() -> None:
    outgrown = {
        kind
        for kind, message in MESSAGES.items()
        if 20 + len(kind) + weight(message) > message.FRAME_BYTES_MAX
    }
    assert outgrown == set(SENDER_MEASURES)


@pytest.mark.parametrize("kind", sorted(MESSAGES))
def test_no_kind_asks_for_more_than_a_frame_may_weigh(kind: str) -> None:
    assert 0 < MESSAGES[kind].FRAME_BYTES_MAX <= limits.FRAME_BYTES_MAX


@pytest.mark.parametrize(
    "kind", ["telemetry/hot", "telemetry/profile", "telemetry/round-trips", "task/announced"]
)
def test_what_is_gossiped_is_small(kind: str) -> None:
    assert MESSAGES[kind].FRAME_BYTES_MAX == limits.GOSSIP_BYTES_MAX


@pytest.mark.parametrize("kind", [kind for kind in MESSAGES if kind.startswith("journal/")])
def test_an_entry_of_the_journal_fits_into_a_frame_of_its_own(kind: str) -> None:
    beside_the_body = weight(Entry) - _weight(fields_of(Entry)["body"]) + 200
    assert MESSAGES[kind].FRAME_BYTES_MAX + beside_the_body < limits.FRAME_BYTES_MAX
    assert fields_of(Entry)["body"]["max_length"] >= MESSAGES[kind].FRAME_BYTES_MAX
