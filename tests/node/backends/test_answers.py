"""What a status means, whatever explanation came with it."""

from __future__ import annotations

import json

import pytest

from kowalski.node.backends.answers import status_error


@pytest.mark.parametrize(
    ("status", "code"),
    [
        (400, "rejected"),
        (401, "rejected"),
        (403, "rejected"),
        (404, "model_missing"),
        (408, "unreachable"),
        (413, "rejected"),
        (429, "overloaded"),
        (500, "bad_reply"),
        (502, "unreachable"),
        (503, "overloaded"),
        (504, "unreachable"),
        (302, "bad_reply"),
        (204, "bad_reply"),
    ],
)
def test_every_status_has_its_code(status: int, code: str) -> None:
    assert status_error(status, {}, b"", has_key=False).code == code


@pytest.mark.parametrize(
    "body",
    [
        {"error": {"message": "the reason", "code": 400}},
        {"error": "the reason"},
        {"detail": "the reason"},
        {"message": "the reason"},
        {"error": {"odd": "the reason"}},
        "the reason",
    ],
)
def test_the_explanation_is_found_in_every_shape(body: object) -> None:
    assert "the reason" in str(status_error(400, {}, json.dumps(body).encode(), has_key=False))


@pytest.mark.parametrize("body", [b"<html>bad gateway</html>", b"", b"\xff" * 99, b"[" * 9999])
def test_what_explains_nothing_stays_short(body: bytes) -> None:
    error = status_error(502, {}, body, has_key=False)
    assert "html" not in str(error)
    assert len(error.detail) <= 300
