"""What was said in a released version is still understood, and still said in the same bytes."""

from __future__ import annotations

from pathlib import Path

import pytest

from kowalski.protocol.codec import decode, encode
from kowalski.protocol.messages.base import Cancel, Refused
from kowalski.protocol.messages.registry import MESSAGES
from tests.protocol import golden_frames
from tests.protocol.examples import EXAMPLES


def test_every_kind_has_an_example_and_a_golden_frame_and_nothing_else_has() -> None:
    assert set(EXAMPLES) == set(MESSAGES)
    files = {path.name for path in golden_frames.FOLDER.iterdir()}
    assert files == {golden_frames.path_of(kind).name for kind in MESSAGES}


@pytest.mark.parametrize("kind", sorted(MESSAGES))
def test_a_golden_frame_decodes_to_its_example(kind: str) -> None:
    assert decode(golden_frames.read(kind)) == EXAMPLES[kind]


@pytest.mark.parametrize("kind", sorted(MESSAGES))
def test_an_example_encodes_to_its_golden_frame(kind: str) -> None:
    assert encode(EXAMPLES[kind]).hex() == golden_frames.read(kind).hex()


@pytest.mark.parametrize("kind", sorted(MESSAGES))
def test_an_example_leaves_no_field_at_its_default(kind: str) -> None:
    example = EXAMPLES[kind]
    assert example.model_fields_set == set(type(example).model_fields)
    said = example.model_dump(exclude_defaults=True)
    assert set(said) == set(type(example).model_fields)


def test_golden_frames_are_never_overwritten(tmp_path: Path) -> None:
    first = golden_frames.write_missing({"base/cancel": Cancel()}, tmp_path)
    assert [path.name for path in first] == ["base.cancel.hex"]
    first[0].write_text("c0ffee", encoding="ascii")
    examples = {"base/cancel": Cancel(), "base/refused": Refused(reason="busy")}
    second = golden_frames.write_missing(examples, tmp_path)
    assert [path.name for path in second] == ["base.refused.hex"]
    assert golden_frames.read("base/cancel", tmp_path) == b"\xc0\xff\xee"
    assert decode(golden_frames.read("base/refused", tmp_path)) == Refused(reason="busy")


def test_the_writer_does_nothing_unless_told_to(capsys: pytest.CaptureFixture[str]) -> None:
    assert golden_frames.main([]) == 2
    assert "--write-missing" in capsys.readouterr().err
