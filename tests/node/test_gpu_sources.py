"""GPUs: by the real library where there is no driver, and by planted files of sysfs."""

from __future__ import annotations

from pathlib import Path

import pynvml

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
