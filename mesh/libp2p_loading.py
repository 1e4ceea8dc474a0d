"""Loads the libp2p transport without the parts of py-libp2p that a node never runs.

`import libp2p` brings QUIC, TLS and the ordering of certificates over HTTP along,
whatever is used of it: a third of its time and memory (docs/upstream.md, 31). While it is being
imported, stand-ins take their place. Afterwards these are gone again, so that whoever wants one of
the libraries for itself gets the real one.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Final

TRANSPORT: Final = "kowalski.mesh.libp2p_transport"

LEFT_OUT: Final = (
    "libp2p.transport.quic",
    "libp2p.security.tls",
    "aioquic",
    "httpx",
    "requests",
)
"""Packages. Our settings offer Noise over TCP alone."""

_loading = threading.Lock()


class _LeftOut(Exception):  # noqa: N818 py-libp2p catches some of these names
    """Stands for any class or function of a package that was left out."""

    def __init__(self, *_: object, **__: object) -> None:
        raise NotImplementedError(f"{type(self).__module__}.{type(self).__name__} was left out")


class _StandIn(ModuleType):
    def __getattr__(self, name: str) -> type[_LeftOut]:
        if name.startswith("__"):
            raise AttributeError(name)
        stand_in = type(name, (_LeftOut,), {"__module__": self.__name__})
        setattr(self, name, stand_in)
        return stand_in


class _StandIns(MetaPathFinder, Loader):
    """Finds a stand-in for every module below `LEFT_OUT`, for the thread that asks for it."""

    def __init__(self) -> None:
        self._thread = threading.get_ident()
        self.found: list[str] = []

    def find_spec(
        self, fullname: str, _path: Sequence[str] | None = None, _target: ModuleType | None = None
    ) -> ModuleSpec | None:
        is_left_out = any(f"{fullname}.".startswith(f"{package}.") for package in LEFT_OUT)
        if not is_left_out or threading.get_ident() != self._thread:
            return None
        self.found.append(fullname)
        return ModuleSpec(fullname, self, is_package=True)

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return _StandIn(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        """A stand-in is complete as it is made."""


def load_transport() -> None:
    """Import the libp2p transport; takes most of a second, so nodes do it in a thread.

    Where py-libp2p is loaded already, that one is used as it is.
    """
    with _loading:
        if "libp2p" in sys.modules:
            import_module(TRANSPORT)
            return
        stand_ins = _StandIns()
        sys.meta_path.insert(0, stand_ins)
        try:
            import_module(TRANSPORT)
        finally:
            sys.meta_path.remove(stand_ins)
            for name in stand_ins.found:
                sys.modules.pop(name, None)
