"""Loads the libp2p transport without the parts of py-libp2p that a node never runs.

`import libp2p` brings QUIC, TLS, WebSockets, a DHT, Bitswap, relays and the ordering of
certificates over HTTP along, whatever is used of it: half of its time and memory (docs/upstream.md,
31). While it is being imported, stand-ins take their place. Afterwards these are gone again, so
that whoever wants one of the libraries for itself gets the real one. Should py-libp2p not load
beside stand-ins, as another version of it might not, all of it is loaded.
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

import structlog

TRANSPORT: Final = "kowalski.mesh.libp2p_transport"

LEFT_OUT: Final = (
    "libp2p.bitswap",
    "libp2p.crypto.ecc",
    "libp2p.crypto.rsa",
    "libp2p.crypto.secp256k1",
    "libp2p.discovery",
    "libp2p.host.routed_host",
    "libp2p.kad_dht",
    "libp2p.peer.persistent",
    "libp2p.records",
    "libp2p.relay",
    "libp2p.security.secio",
    "libp2p.security.tls",
    "libp2p.stream_muxer.mplex",
    "libp2p.transport.quic",
    "libp2p.transport.websocket",
    "aioquic",
    "httpx",
    "requests",
)
"""Packages and modules. Our settings offer Noise and Yamux over TCP alone, peers find each other by
ways of our own, and identities are Ed25519: whoever proves itself with another key is no member."""

KEYS: Final = "libp2p.crypto.serialization"

ODD: Final = (ImportError, AttributeError, TypeError, NotImplementedError)
"""What another version of the library might make of stand-ins."""

_loading = threading.Lock()


log = structlog.get_logger(__name__)


class _Kind(type):
    def __getattr__(cls, name: str) -> type[_LeftOut]:
        """What a class has, such as another way to make it, stands for itself as well."""
        if name.startswith("__"):
            raise AttributeError(name)
        return _LeftOut


class _LeftOut(Exception, metaclass=_Kind):  # noqa: N818 py-libp2p catches some of these names
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
    """Import the libp2p transport; takes half a second, so nodes do it in a thread.

    Where py-libp2p is loaded already, that one is used as it is.
    """
    with _loading:
        if "libp2p" not in sys.modules:
            try:
                _load_beside(_StandIns())
            except ODD as odd:
                log.warning("libp2p-loaded-whole", error=repr(odd))
        import_module(TRANSPORT)


def _load_beside(stand_ins: _StandIns) -> None:
    before = frozenset(sys.modules)
    sys.meta_path.insert(0, stand_ins)
    try:
        import_module(TRANSPORT)
        _refuse_other_keys()
    except BaseException:
        for name in sys.modules.keys() - before:
            if name.startswith(("libp2p.", f"{TRANSPORT.rpartition('.')[0]}.libp2p_")):
                del sys.modules[name]
        sys.modules.pop("libp2p", None)
        raise
    finally:
        sys.meta_path.remove(stand_ins)
        for name in stand_ins.found:
            sys.modules.pop(name, None)


def _refuse_other_keys() -> None:
    """Have py-libp2p say that it does not know the kinds of keys that were left out."""
    keys = import_module(KEYS)
    for table in (
        keys.key_type_to_public_key_deserializer,
        keys.key_type_to_private_key_deserializer,
    ):
        for kind in [kind for kind, read in table.items() if read is _LeftOut]:
            del table[kind]
