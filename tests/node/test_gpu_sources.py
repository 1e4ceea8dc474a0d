"""GPUs: by the real library and the driver of this machine, by a double, and by planted files.

The double stands for the functions of nvidia-ml-py that are called, with its own structures and
errors: most machines that run these tests have no NVIDIA GPU.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pynvml
import pytest

from kowalski.node.gpu_sources import GPU_INTERVAL_S, GpuSource
from kowalski.protocol.messages.telemetry import GPUS_MAX, Gpu, GpuUse

CARD = {
    "mem_info_vram_total": "1000\n",
    "mem_info_vram_used": "250\n",
    "gpu_busy_percent": "40\n",
    "hwmon/hwmon3/temp1_input": "64500\n",
    "product_name": "Radeon\n",
}


def plant(card: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = card / "device" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def nvidia_gpus_of_this_machine() -> int:
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return 0
    return int(pynvml.nvmlDeviceGetCount())


def test_as_many_gpus_are_told_as_the_driver_has_and_none_without_one(tmp_path: Path) -> None:
    source, there = GpuSource(drm=tmp_path), nvidia_gpus_of_this_machine()
    assert len(source.gpus) == min(there, GPUS_MAX)
    used = source.use(0.0)
    assert len(used) == len(source.gpus)
    assert all(
        gpu.memory_bytes and use.memory_used is not None
        for gpu, use in zip(source.gpus, used, strict=True)
    )


class NvmlDouble:
    """A driver with these cards, each a name and what it answers; an error is raised."""

    NVMLError = pynvml.NVMLError
    NVML_TEMPERATURE_GPU = pynvml.NVML_TEMPERATURE_GPU

    def __init__(self, cards: list[dict[str, object]], init: Exception | None = None) -> None:
        self._cards = cards
        self._init = init
        self.asked = 0

    def nvmlInit(self) -> None:  # noqa: N802
        if self._init is not None:
            raise self._init

    def nvmlDeviceGetCount(self) -> int:  # noqa: N802
        return len(self._cards)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> dict[str, object]:  # noqa: N802
        self._answer(self._cards[index], "handle")
        return self._cards[index]

    def nvmlDeviceGetName(self, card: dict[str, object]) -> object:  # noqa: N802
        return self._answer(card, "name")

    def nvmlDeviceGetMemoryInfo(self, card: dict[str, object]) -> object:  # noqa: N802
        return self._answer(card, "memory")

    def nvmlDeviceGetUtilizationRates(self, card: dict[str, object]) -> object:  # noqa: N802
        self.asked += 1
        return self._answer(card, "rates")

    def nvmlDeviceGetTemperature(self, card: dict[str, object], sensor: int) -> object:  # noqa: N802
        assert sensor == pynvml.NVML_TEMPERATURE_GPU
        return self._answer(card, "degrees")

    def _answer(self, card: dict[str, object], what: str) -> object:
        answer = card.get(what)
        if isinstance(answer, Exception):
            raise answer
        return answer


def memory(*, total: int, used: int) -> object:
    return pynvml.c_nvmlMemory_t(total=total, free=total - used, used=used)


UNKNOWN = pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)
H100 = {
    "name": "NVIDIA H100 80GB HBM3",
    "memory": memory(total=85_520_809_984, used=21_380_202_496),
    "rates": pynvml.c_nvmlUtilization_t(gpu=37, memory=12),
    "degrees": 41,
}
LAPTOP = {"name": "NVIDIA GeForce MX150", "memory": UNKNOWN, "rates": UNKNOWN, "degrees": UNKNOWN}
LOST = {"handle": pynvml.NVMLError(pynvml.NVML_ERROR_GPU_IS_LOST)}


def test_cards_of_nvidia_are_told_as_their_driver_tells_them(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    plant(tmp_path / "card0", CARD)
    double = NvmlDouble([H100, LOST, LAPTOP])
    monkeypatch.setitem(sys.modules, "pynvml", double)
    source = GpuSource(drm=tmp_path)
    assert source.gpus == (
        Gpu(name="NVIDIA H100 80GB HBM3", memory_bytes=85_520_809_984),
        Gpu(name="NVIDIA GeForce MX150", memory_bytes=0),
    ), "one that is lost is passed over, and what one does not tell is not made up"
    assert source.use(0.0) == (
        GpuUse(busy=0.37, memory_used=0.25, temperature_c=41.0),
        GpuUse(),
    )
    source.use(GPU_INTERVAL_S / 2)
    assert double.asked == 2, "a question wakes a GPU that sleeps"


def test_more_cards_than_are_told_of_are_left_out(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", NvmlDouble([H100] * (GPUS_MAX + 3)))
    source = GpuSource(drm=tmp_path)
    assert len(source.gpus) == len(source.use(0.0)) == GPUS_MAX


def test_without_a_driver_that_answers_those_of_amd_are_looked_for(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    plant(tmp_path / "card0", CARD)
    no_driver = pynvml.NVMLError(pynvml.NVML_ERROR_LIBRARY_NOT_FOUND)
    monkeypatch.setitem(sys.modules, "pynvml", NvmlDouble([H100], init=no_driver))
    assert [gpu.name for gpu in GpuSource(drm=tmp_path).gpus] == ["Radeon"]


def test_cards_of_amd_are_told_by_sysfs(tmp_path: Path) -> None:
    plant(tmp_path / "card0", {"mem_info_vram_total": "17163091968\n"})
    plant(tmp_path / "card1", CARD)
    plant(tmp_path / "card2", {"mem_info_vram_total": "0\n", "product_name": "of the processor"})
    source = GpuSource(drm=tmp_path)
    if nvidia_gpus_of_this_machine():
        assert "Radeon" not in {gpu.name for gpu in source.gpus}
        return
    assert source.gpus == (
        Gpu(name="AMD GPU", memory_bytes=17163091968),
        Gpu(name="Radeon", memory_bytes=1000),
    )
    assert source.use(0.0) == (
        GpuUse(),
        GpuUse(busy=0.4, memory_used=0.25, temperature_c=64.5),
    )


def test_a_gpu_is_asked_now_and_then_only(tmp_path: Path) -> None:
    plant(tmp_path / "card0", CARD)
    source = GpuSource(drm=tmp_path)
    before = source.use(0.0)
    plant(tmp_path / "card0", {"gpu_busy_percent": "90"})
    assert source.use(GPU_INTERVAL_S / 2) == before
    if before and not nvidia_gpus_of_this_machine():
        assert source.use(GPU_INTERVAL_S)[0].busy == 0.9


def test_what_a_card_says_beyond_reason_is_not_told(tmp_path: Path) -> None:
    odd = {
        **CARD,
        "mem_info_vram_used": "4000",
        "gpu_busy_percent": "busy",
        "hwmon/hwmon3/temp1_input": "65261000",
        "product_name": "x" * 1000,
    }
    plant(tmp_path / "card0", odd)
    source = GpuSource(drm=tmp_path)
    if not nvidia_gpus_of_this_machine():
        assert source.use(0.0) == (GpuUse(memory_used=1.0),)
        assert source.gpus == (Gpu(name="x" * 256, memory_bytes=1000),)
