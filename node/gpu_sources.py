"""The GPUs of this device, and how busy they are: the only module that knows NVML.

NVIDIA's by their own library (the extra `gpu`), AMD's by what Linux shows in sysfs. Without library
or driver there are none, and that is no error. Each value is optional: None is "not told".
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from kowalski.protocol.messages.telemetry import GPUS_MAX, Gpu, GpuUse

T = TypeVar("T")

DRM = Path("/sys/class/drm")
NAME_CHARS_MAX = 256
GPU_INTERVAL_S = 2.0
"""A question takes a driver up to some milliseconds, and wakes a GPU that sleeps."""


class GpuSource:
    """Opens NVML once, and keeps it: opening wakes the driver up, which takes seconds on some.

    `use` wants the seconds of any monotonic clock, and answers in the order of `gpus`.
    """

    def __init__(self, *, drm: Path = DRM) -> None:
        self._nvml = _open_nvml()
        self._devices = _list_nvidia(self._nvml) if self._nvml is not None else []
        self._cards = [] if self._devices else _list_amd(drm)
        self._used_at = float("-inf")
        self._use: tuple[GpuUse, ...] = ()

    @property
    def gpus(self) -> tuple[Gpu, ...]:
        found = [gpu for gpu, _ in self._devices] + [gpu for gpu, _ in self._cards]
        return tuple(found[:GPUS_MAX])

    def use(self, now: float) -> tuple[GpuUse, ...]:
        if now - self._used_at >= GPU_INTERVAL_S:
            self._used_at = now
            found = [_nvidia_use(self._nvml, device) for _, device in self._devices]
            found += [_amd_use(card, gpu.memory_bytes) for gpu, card in self._cards]
            self._use = tuple(found[:GPUS_MAX])
        return self._use


# --- NVIDIA -------------------------------------------------------------------------------------


def _open_nvml() -> Any | None:  # noqa: ANN401 a module without types
    try:
        import pynvml  # noqa: PLC0415 an extra
    except ImportError:
        return None
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return None  # no driver, or none that speaks to us
    return pynvml


def _list_nvidia(nvml: Any) -> list[tuple[Gpu, Any]]:  # noqa: ANN401
    found: list[tuple[Gpu, Any]] = []
    for index in range(_told(nvml, nvml.nvmlDeviceGetCount) or 0):
        device = _told(nvml, nvml.nvmlDeviceGetHandleByIndex, index)
        if device is None:
            continue  # lost, or not ours to see: the others may be well
        name = _told(nvml, nvml.nvmlDeviceGetName, device) or "NVIDIA GPU"
        memory = _told(nvml, nvml.nvmlDeviceGetMemoryInfo, device)
        total = 0 if memory is None else int(memory.total)
        found.append((_gpu(str(name), total), device))
    return found


def _nvidia_use(nvml: Any, device: Any) -> GpuUse:  # noqa: ANN401
    rates = _told(nvml, nvml.nvmlDeviceGetUtilizationRates, device)
    memory = _told(nvml, nvml.nvmlDeviceGetMemoryInfo, device)
    degrees = _told(nvml, nvml.nvmlDeviceGetTemperature, device, nvml.NVML_TEMPERATURE_GPU)
    return GpuUse(
        busy=None if rates is None else _fraction(rates.gpu / 100),
        memory_used=None
        if memory is None or not memory.total
        else _fraction(memory.used / memory.total),
        temperature_c=_degrees(degrees),
    )


def _told(nvml: Any, question: Callable[..., T], *about: object) -> T | None:  # noqa: ANN401
    try:
        return question(*about)
    except nvml.NVMLError:
        return None


# --- AMD ----------------------------------------------------------------------------------------


def _list_amd(drm: Path) -> list[tuple[Gpu, Path]]:
    found: list[tuple[Gpu, Path]] = []
    for path in sorted(drm.glob("card*/device/mem_info_vram_total")):
        total = _number(path)
        if total:
            found.append((_gpu(_text(path.with_name("product_name")) or "AMD GPU", total), path))
    return found


def _amd_use(vram_total: Path, total_bytes: int) -> GpuUse:
    busy = _number(vram_total.with_name("gpu_busy_percent"))
    used = _number(vram_total.with_name("mem_info_vram_used"))
    # In thousandths of a degree; temp1 is that of the edge.
    readings = [_number(at) for at in vram_total.parent.glob("hwmon/hwmon*/temp1_input")]
    degrees = next((one / 1000 for one in readings if one is not None), None)
    return GpuUse(
        busy=None if busy is None else _fraction(busy / 100),
        memory_used=None if used is None else _fraction(used / total_bytes),
        temperature_c=_degrees(degrees),
    )


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""


def _number(path: Path) -> int | None:
    text = _text(path)
    return int(text) if text.isdecimal() else None


def _gpu(name: str, memory_bytes: int) -> Gpu:
    return Gpu(name=name[:NAME_CHARS_MAX], memory_bytes=memory_bytes)


def _fraction(value: float) -> float:
    return min(1.0, max(0.0, value))


def _degrees(value: float | None) -> float | None:
    """Broken sensors say things like -128 or 65261."""
    return float(value) if value is not None and 0 < value < 150 else None
