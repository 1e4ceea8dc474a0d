"""Where this machine keeps the programs of each language, and what of that a sandbox must show.

A program under /usr is shown with it. Another one, from a version manager or from the owner's home,
is shown with the folder it was installed into; never with a home folder as a whole.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

_ASK_S_MAX = 10.0
_SYSTEM = (Path("/usr"), Path("/bin"), Path("/lib"))
# Where installers put programs that the PATH of a service does not name.
_USUAL = ("~/.cargo/bin", "/usr/local/go/bin", "~/.local/bin", "/opt/homebrew/bin", "/usr/bin")


@dataclass(frozen=True, slots=True)
class Toolchain:
    """`programs` are real files; `shown` and `path` are what a sandbox adds for them."""

    programs: tuple[Path, ...]
    shown: tuple[Path, ...] = ()
    path: tuple[Path, ...] = ()

    def fingerprint(self) -> str:
        """Changes when a program does; blocks on disk. Raises OSError."""
        found = [(path, path.stat()) for path in self.programs]
        return " ".join(f"{path}:{about.st_mtime_ns}:{about.st_size}" for path, about in found)


@dataclass(frozen=True, slots=True)
class Toolchains:
    """What was found, by language; `missing` says why not, in words."""

    found: Mapping[str, Toolchain] = field(default_factory=dict[str, Toolchain])
    missing: Mapping[str, str] = field(default_factory=dict[str, str])

    @property
    def shown(self) -> tuple[Path, ...]:
        return tuple(dict.fromkeys(path for each in self.found.values() for path in each.shown))

    @property
    def path(self) -> tuple[Path, ...]:
        return tuple(dict.fromkeys(path for each in self.found.values() for path in each.path))


def find_toolchains(
    needs: Mapping[str, Iterable[str]], *, path: str | None = None, home: Path | None = None
) -> Toolchains:
    """The programs that each language needs; blocks for some 10 ms.

    `path` None: this process's PATH and the usual places.
    """
    home = home or Path.home()
    if path is None:
        usual = [os.path.expanduser(place) for place in _USUAL]  # noqa: PTH111
        path = os.pathsep.join((os.environ.get("PATH", ""), *usual))
    found: dict[str, Toolchain] = {}
    missing: dict[str, str] = {}
    for language, programs in needs.items():
        places = {name: shutil.which(name, path=path) for name in programs}
        absent = [name for name, place in places.items() if place is None]
        if absent:
            missing[language] = f"{' and '.join(absent)} not installed"
        else:
            real = tuple(_real(Path(place)) for place in places.values() if place is not None)
            found[language] = _toolchain(real, home)
    return Toolchains(found, missing)


def _real(program: Path) -> Path:
    """The program itself: rustup, for one, puts a switch in its place."""
    real = program.resolve()
    if real.name == "rustup":
        try:
            told = subprocess.run(
                [str(program), "--print", "sysroot"],
                capture_output=True,
                check=True,
                timeout=_ASK_S_MAX,
                stdin=subprocess.DEVNULL,
            )
        except (OSError, subprocess.SubprocessError):
            return real
        return Path(os.fsdecode(told.stdout.strip())) / "bin" / program.name
    return real


def _toolchain(programs: tuple[Path, ...], home: Path) -> Toolchain:
    others = [path for path in programs if not any(path.is_relative_to(top) for top in _SYSTEM)]
    shown = tuple(dict.fromkeys(_installed_into(path, home) for path in others))
    return Toolchain(programs, shown, tuple(dict.fromkeys(path.parent for path in others)))


def _installed_into(program: Path, home: Path) -> Path:
    """The folder that holds it with its library, or only the program where that would say more."""
    prefix = program.parent.parent if program.parent.name in {"bin", "sbin"} else program.parent
    home = home.resolve()
    holds_more = home.is_relative_to(prefix) or prefix in {home / ".local", home / ".cargo"}
    return program if holds_more or len(prefix.parts) < 3 else prefix
