"""Which files of this machine a sandbox shows, read-only, and the few that it makes up itself.

Programs and libraries, just enough of /etc, the interpreter: nothing of anybody's own. The tiers
render it as options of bubblewrap, as mounts, or as rules of Landlock.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_PASSWD = b"root:x:0:0::/:/usr/sbin/nologin\nsandbox:x:1000:1000::/job:/bin/sh\n"
_GROUP = b"root:x:0:\nsandbox:x:1000:\n"
_HOSTS = b"127.0.0.1 localhost\n::1 localhost\n"
_MERGED = ("bin", "sbin", "lib", "lib64")
_SHOWN_IF_THERE = (
    "etc/ld.so.cache",
    "etc/alternatives",
    "etc/localtime",
    "etc/ssl/certs",
    "etc/ssl/openssl.cnf",
)
_SHOWN_PATTERNS = ("etc/java*",)


@dataclass(frozen=True, slots=True)
class FileView:
    """`binds` are (path outside, place inside), parents first; `links` are (target, place).

    `texts` are files that exist inside only.
    """

    binds: tuple[tuple[str, str], ...]
    links: tuple[tuple[str, str], ...]
    texts: Mapping[str, bytes]

    def folders(self) -> tuple[str, ...]:
        """Every folder that has to be there before the rest can be put into it, parents first."""
        found: dict[str, None] = {}
        for place in (*self.texts, *(place for _, place in self.binds)):
            for parent in reversed(Path(place).parents[:-1]):
                if not any(Path(parent).is_relative_to(bound) for _, bound in self.binds):
                    found[str(parent)] = None
        return tuple(found)


def file_view(shown: Sequence[Path], *, system: Path = Path("/")) -> FileView:
    """The system's programs, and each of `shown` at its own place; blocks on disk.

    `system` is the root folder that is looked at. A path that is not there is left out.
    """
    binds = [(str(system / "usr"), "/usr")]
    links: list[tuple[str, str]] = []
    for name in _MERGED:
        folder = system / name
        if folder.is_symlink():
            links.append((f"usr/{name}", f"/{name}"))
        elif folder.is_dir():
            binds.append((str(folder), f"/{name}"))
    found = [system / name for name in _SHOWN_IF_THERE]
    for pattern in _SHOWN_PATTERNS:
        found += sorted(system.glob(pattern))
    binds += [
        # A link would lead nowhere inside: what it leads to is shown in its place.
        (str(path.resolve()), f"/{path.relative_to(system)}")
        for path in found
        if path.exists()
    ]
    for path in sorted({path.resolve() for path in shown}):
        is_shown = any(path.is_relative_to(place) for _, place in binds)
        if path.exists() and not is_shown:
            binds.append((str(path), str(path)))
    texts = {"/etc/passwd": _PASSWD, "/etc/group": _GROUP, "/etc/hosts": _HOSTS}
    return FileView(tuple(binds), tuple(links), texts)
