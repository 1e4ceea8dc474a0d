"""Requests over the control socket: what is accepted, and how a refusal reads."""

from __future__ import annotations

import pytest

from kowalski.node import control_messages as messages
from kowalski.protocol.errors import ConfigError

SOUND: dict[str, dict[str, object]] = {
    "status": {},
    "peers": {},
    "topology": {},
    "doctor": {},
    "tasks": {"limit": 5},
    "task": {"task": "01ARZ3NDEKTSV4RRFFQ69G5FAV"},
    "files": {"task": "t1"},
    "cancel": {"task": "t1"},
    "attach": {"task": "t1@küche"},
    "resume": {"task": "t1", "timeout_s": 60, "max_iterations": 3},
    "trace": {"task": "t1"},
    "explain": {"task": "t1"},
    "dry_run": {"prompt": "why", "mode": "rlm", "model": "m"},
    "submit": {
        "prompt": "why",
        "mode": "rlm",
        "context": [{"name": "a b.txt", "path": "/tmp/a"}],
        "max_iterations": 3,
        "timeout_s": 5,
        "task_id": "mine",
        "follow": False,
        "priority": "batch",
        "failover": "queue",
        "retries_max": 3,
        "retry_delay_s": 0.5,
        "retry_is_exponential": False,
        "submitter_gone": "abort",
        "side_effects": "at_most_once",
    },
    "run": {
        "language": "python",
        "code": "",
        "name": "x.py",
        "timeout_s": 1.5,
        "args": ["-v"],
        "stdin": "/tmp/in",
        "files": [{"name": "a/b", "path": "/tmp/a"}],
        "wants_files": True,
    },
    "ask": {
        "prompt": "why",
        "model": "m",
        "max_tokens": 1,
        "temperature": 0,
        "stop": ["x"],
        "images": ["/a.png"],
        "thinking": "low",
    },
    "embed": {"texts": ["a"], "model": "m", "dimensions": 3},
    "models": {"query": "llama", "loadable": True},
    "pull": {"model": "m", "on": "desk", "backend": "ollama"},
    "load": {"model": "m", "sharding": "tensor", "devices_min": 2},
    "preview": {"model": "m"},
    "unload": {"model": "m", "deletes": True},
    "fold": {"path": "/tmp/a", "ratio": 0.5},
    "unfold": {"handle": "0a" * 32, "question": "who?", "budget_tokens": 100},
    "tokens": {"model": "m", "text": "how long is this?"},
    "folds": {"question": "who?", "count": 2},
    "drain": {"timeout_s": 0},
    "undrain": {},
    "invite": {"roles": ["repl", "infer", "admin"], "ttl_s": 60, "uses": 2},
    "revoke": {"peer": "desk", "why": "sold"},
}


@pytest.mark.parametrize("verb", sorted(messages.REQUESTS))
def test_a_sound_request_is_read_as_its_model(verb: str) -> None:
    request = messages.parse_request(verb, SOUND[verb])
    assert type(request) is messages.REQUESTS[verb]


@pytest.mark.parametrize("verb", sorted(messages.REQUESTS))
def test_an_unknown_field_is_refused_by_name(verb: str) -> None:
    with pytest.raises(ConfigError, match="unknown field 'tpyo'"):
        messages.parse_request(verb, {**SOUND[verb], "tpyo": 1})


@pytest.mark.parametrize(
    ("verb", "change", "part"),
    [
        ("submit", {"prompt": " \n"}, "submit: prompt: it must not be empty"),
        ("submit", {"prompt": 7}, "prompt"),
        ("submit", {"mode": "fast"}, "mode"),
        ("submit", {"timeout_s": 0}, "timeout_s"),
        ("submit", {"timeout_s": float("nan")}, "timeout_s"),
        ("submit", {"timeout_s": "5"}, "timeout_s"),
        ("submit", {"max_iterations": 0}, "max_iterations"),
        ("submit", {"task_id": "../etc"}, "task_id"),
        ("submit", {"context": [{"name": "a", "path": "here"}]}, "context.0.path"),
        ("submit", {"context": [{"name": "a\nb", "path": "/a"}]}, "context.0.name"),
        ("submit", {"context": [{"name": "a", "path": "/a\x00"}]}, "context.0.path"),
        ("run", {"language": "py thon"}, "language"),
        ("run", {"language": ""}, "language"),
        ("ask", {"temperature": -1}, "temperature"),
        ("ask", {"stop": [""]}, "stop.0"),
        ("ask", {"images": ["here.png"]}, "images.0"),
        ("embed", {"texts": []}, "texts"),
        ("load", {"sharding": "diagonal"}, "sharding"),
        ("load", {"devices_min": 0}, "devices_min"),
        ("pull", {"model": ""}, "model"),
        ("fold", {"text": "both"}, "either path or text"),
        ("fold", {"path": None}, "either path or text"),
        ("fold", {"budget_tokens": 5}, "not both"),
        ("invite", {"roles": ["cook"]}, "roles.0"),
        ("invite", {"roles": []}, "roles"),
        ("revoke", {"peer": ""}, "peer"),
        ("revoke", {"why": "x" * 201}, "why"),
        ("tasks", {"limit": 10**9}, "limit"),
        ("task", {"task": ""}, "task"),
    ],
)
def test_a_value_out_of_bounds_is_refused_by_field(
    verb: str, change: dict[str, object], part: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        messages.parse_request(verb, {**SOUND[verb], **change})
    assert part in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_field_is_refused_by_name() -> None:
    with pytest.raises(ConfigError, match="run: language: field required"):
        messages.parse_request("run", {})


def test_an_unknown_verb_is_refused() -> None:
    with pytest.raises(ConfigError, match="unknown verb 'dance'"):
        messages.parse_request("dance", {})
