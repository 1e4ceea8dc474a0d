"""The kernels as code objects, made of the files of `kernels/`."""

from __future__ import annotations

import importlib.util
import marshal
import os
import tempfile
from collections.abc import Iterable, Mapping
from importlib import resources
from types import CodeType

PYTHON_OPTIONS = ("-s", "-P")
"""No user site, no script folder on the path. Not `-I`: it would ignore PYTHONHASHSEED, and the
environment inside is ours anyhow."""


def text_of(parts: Iterable[str]) -> str:
    """These files, one after the other."""
    folder = resources.files("kowalski.node.repl") / "kernels"
    return "".join((folder / name).read_text("utf-8") for name in parts)


def code_of(parts: Iterable[str]) -> CodeType:
    """The same as one program, named by the last."""
    names = tuple(parts)
    return compile(text_of(names), f"<{names[-1]}>", "exec", dont_inherit=True)


def codes_of(kernels: Iterable[tuple[str, ...]]) -> Mapping[str, CodeType]:
    """Each kernel by its name, the last of its parts."""
    return {parts[-1]: code_of(parts) for parts in kernels}


def program_of(code: CodeType) -> bytes:
    """What the interpreter of this process runs from a file."""
    # The header of a .pyc file (PEP 552): magic number, flags, and an origin that nobody checks.
    return importlib.util.MAGIC_NUMBER + bytes(12) + marshal.dumps(code)


def memory_file(content: bytes) -> int:
    """A descriptor to read `content` from, by whoever it is passed to; the caller closes it."""
    if hasattr(os, "memfd_create"):
        fd = os.memfd_create("kowalski", os.MFD_CLOEXEC)
        os.write(fd, content)
        # A program under another uid opens it by its place in /proc/self/fd.
        os.fchmod(fd, 0o444)
        os.lseek(fd, 0, os.SEEK_SET)
        return fd
    with tempfile.TemporaryFile() as file:
        file.write(content)
        file.seek(0)
        return os.dup(file.fileno())
