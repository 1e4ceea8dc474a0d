"""What a task would want of peers."""

from __future__ import annotations

import pytest

from kowalski.node.core.task_needs import needs_of
from kowalski.protocol.messages.journal import Opened
from kowalski.protocol.messages.task import Asking, Mode, Quality, TaskSpec

BLOCKS = "```python\nx\n```\n```bash\ny\n```\n```python\nz\n```\n"


def wanted(mode: Mode, model: str | None = "m", **spec: object) -> list[str]:
    assert mode != "auto"
    asked = {"prompt": BLOCKS, "mode": mode, "max_iterations": 5, "timeout_s": 60.0, **spec}
    needs = needs_of(TaskSpec.model_validate(asked), Opened(mode=mode, model=model))
    return [need.work for need in needs]


def test_blocks_want_each_of_their_languages_once_and_a_model_for_the_answer() -> None:
    assert wanted("blocks") == ["code python", "code bash", "inference m"]
    assert wanted("blocks", model=None) == ["code python", "code bash"]


def test_a_direct_question_wants_its_model_alone() -> None:
    assert wanted("direct") == ["inference m"]


def test_the_loop_wants_python_its_model_and_somebody_who_folds() -> None:
    assert wanted("rlm") == ["code python", "inference m", "folding"]


def test_models_for_parts_of_the_work_are_wanted_too_but_not_twice() -> None:
    asking = Asking(sub_model="small", fold_model="m")
    quality = Quality(threshold=0.5, model="judge")
    found = wanted("rlm", asking=asking, quality=quality)
    assert found == ["code python", "inference m", "inference small", "inference judge"]


@pytest.mark.parametrize("devices", ["all", "local", "network"])
def test_only_the_devices_that_the_task_may_use_are_wanted(devices: str) -> None:
    spec = TaskSpec.model_validate(
        {
            "prompt": "x",
            "mode": "rlm",
            "max_iterations": 5,
            "timeout_s": 60.0,
            "devices": devices,
        }
    )
    needs = needs_of(spec, Opened(mode="rlm", model="m"))
    assert {need.devices for need in needs} == {devices}
