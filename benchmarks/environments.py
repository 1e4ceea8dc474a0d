"""What a user would pick instead, installed: each peer in an environment of its own under a cache.

PyPI packages go into a venv each, npm packages into a folder each; of Debian packages a program on
the path is taken, or else the package is unpacked, not installed. What cannot be had is told with
its reason. Nothing is installed twice: a stamp says what is there.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

INSTALL_S_MAX = 600.0
REASON_CHARS = 200
CACHE = "KOWALSKI_BENCHMARK_CACHE"
STAMP = "installed.json"


@dataclass(frozen=True, slots=True)
class Debian:
    """A program, and the packages that hold it and the libraries that it may lack."""

    program: str
    packages: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Peer:
    """`requirements` of PyPI, first the one whose version is told; or `npm`, NAME@VERSION."""

    name: str
    about: str
    requirements: tuple[str, ...] = ()
    npm: str | None = None
    npm_program: str = ""
    debian: tuple[Debian, ...] = ()


PEERS: tuple[Peer, ...] = (
    Peer("litellm", "LiteLLM's proxy, a gateway to model servers", ("litellm[proxy]==1.106.2",)),
    Peer("ollama-herd", "a router of Ollamas that find each other", ("ollama-herd==0.11.4",)),
    Peer("sglang-router", "a gateway to model servers, in Rust", ("sglang-router==0.3.2",)),
    Peer(
        "portkey",
        "Portkey's gateway to model servers, in TypeScript",
        npm="@portkey-ai/gateway@1.15.2",
        npm_program="build/start-server.js",
    ),
    Peer("ipykernel", "kernels of Jupyter", ("ipykernel==7.4.0", "jupyter-client")),
    Peer("dask", "Dask's distributed scheduler", ("distributed==2026.8.0",)),
    Peer("ray", "Ray's core", ("ray==2.60.0",)),
    Peer(
        "celery",
        "Celery's task queue, on redis",
        ("celery==5.7.0", "redis", "packaging"),
        debian=(
            Debian("redis-server", ("redis-server", "redis-tools", "liblzf1", "libjemalloc2")),
        ),
    ),
    Peer(
        "nats",
        "requests and replies over NATS",
        ("nats-py==2.16.0",),
        debian=(Debian("nats-server", ("nats-server",)),),
    ),
    Peer("serf", "HashiCorp's membership by gossip", debian=(Debian("serf", ("serf",)),)),
    Peer("rlms", "the reference implementation of recursive language models", ("rlms==0.1.3",)),
    Peer("dspy", "DSPy's RLM on its LocalInterpreter", ("dspy==3.4.1",)),
    Peer("smolagents", "Hugging Face's CodeAgent", ("smolagents[openai]==1.26.0",)),
)
BY_NAME: Mapping[str, Peer] = {peer.name: peer for peer in PEERS}


@dataclass(frozen=True, slots=True)
class Installed:
    """`program` is what it is started with: an interpreter that has it, a script, a binary."""

    peer: Peer
    version: str
    program: Path
    programs: Mapping[str, Path] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Absent:
    peer: Peer
    reason: str


class _CannotInstallError(Exception):
    """The reason, in one line."""


def cache_folder() -> Path:
    """Where environments are kept between runs: the cache of this user, or what `CACHE` says."""
    if given := os.environ.get(CACHE):
        return Path(given)
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(home) / "kowalski-benchmarks"


def install(peer: Peer, cache: Path) -> Installed | Absent:
    """What can be had of a peer, installed now if it was not before."""
    folder = cache / peer.name
    wanted = {"requirements": list(peer.requirements), "npm": peer.npm}
    stamp = folder / STAMP
    try:
        if not stamp.exists() or json.loads(stamp.read_text())["wanted"] != wanted:
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            version = _install(peer, folder)
            stamp.write_text(json.dumps({"wanted": wanted, "version": version}))
        programs = {one.program: _debian(one, cache / "debian") for one in peer.debian}
        version = json.loads(stamp.read_text())["version"] or _debian_version(peer)
    except _CannotInstallError as why:
        return Absent(peer, str(why))
    return Installed(peer, version, _program(peer, folder, programs), programs)


def _program(peer: Peer, folder: Path, programs: Mapping[str, Path]) -> Path:
    if peer.requirements:
        return folder / "venv" / "bin" / "python"
    if peer.npm is not None:
        return folder / "node_modules" / peer.npm.rpartition("@")[0] / peer.npm_program
    return next(iter(programs.values()))


def _install(peer: Peer, folder: Path) -> str:
    """Its version; empty for what Debian has."""
    if peer.requirements:
        uv = str(Path(sys.executable).parent / "uv")
        python = folder / "venv" / "bin" / "python"
        _run(uv, "venv", "--quiet", "--python", sys.executable, str(folder / "venv"))
        _run(uv, "pip", "install", "--quiet", "--python", str(python), *peer.requirements)
        name = peer.requirements[0].partition("==")[0].partition("[")[0]
        told = f"from importlib.metadata import version; print(version({name!r}))"
        return _run(str(python), "-c", told).strip()
    if peer.npm is not None:
        if shutil.which("npm") is None:
            raise _CannotInstallError("no npm on the path")
        where = ("--prefix", str(folder), "--no-fund", "--no-audit", "--ignore-scripts")
        _run("npm", "install", "--silent", *where, peer.npm)
        return peer.npm.rpartition("@")[2]
    return ""


def _debian(wanted: Debian, folder: Path) -> Path:
    """The program on the path, or one unpacked from Debian's packages."""
    if found := shutil.which(wanted.program) or shutil.which(f"/usr/sbin/{wanted.program}"):
        return Path(found)
    root = folder / wanted.program
    launcher = root / "bin" / wanted.program
    if not launcher.exists():
        if shutil.which("apt-get") is None:
            raise _CannotInstallError(f"no {wanted.program} on the path, and no apt-get")
        shutil.rmtree(root, ignore_errors=True)
        root.mkdir(parents=True)
        _run("apt-get", "download", "--quiet", *wanted.packages, cwd=root)
        for package in root.glob("*.deb"):
            _run("dpkg", "-x", str(package), str(root))
        binary = next(
            (
                root / at / wanted.program
                for at in ("usr/bin", "usr/sbin")
                if (root / at / wanted.program).exists()
            ),
            None,
        )
        if binary is None:
            raise _CannotInstallError(f"no {wanted.program} in {', '.join(wanted.packages)}")
        libraries = sorted({str(path.parent) for path in root.rglob("*.so*")})
        lines = ["#!/bin/sh", f"LD_LIBRARY_PATH={':'.join(libraries)}", "export LD_LIBRARY_PATH"]
        launcher.parent.mkdir()
        launcher.write_text("\n".join([*lines, f'exec {binary} "$@"', ""]))
        launcher.chmod(0o755)
    return launcher


def _debian_version(peer: Peer) -> str:
    package = peer.debian[0].packages[0]
    try:
        told = _run("apt-cache", "policy", package).splitlines()
    except _CannotInstallError:
        return "of this machine"
    versions = [line.split(":", 1)[1].strip() for line in told if "nstalled:" in line]
    found = [one for one in versions if one and one != "(none)"]
    return found[0] if found else "of this machine"


def _run(*command: str, cwd: Path | None = None) -> str:
    """What it printed.

    Raises:
        _CannotInstallError: it cannot be run, failed, or takes too long.
    """
    what = f"{Path(command[0]).name} {command[1] if len(command) > 1 else ''}".strip()
    try:
        ended = subprocess.run(
            command, cwd=cwd, capture_output=True, text=True, check=False, timeout=INSTALL_S_MAX
        )
    except OSError as error:
        raise _CannotInstallError(f"{what}: {error.strerror or error}") from error
    except subprocess.TimeoutExpired as error:
        raise _CannotInstallError(f"{what}: not done within {INSTALL_S_MAX:.0f} s") from error
    if ended.returncode:
        lines = [line.strip() for line in ended.stderr.splitlines() if line.strip()]
        said = " ".join(lines)[-REASON_CHARS:] or f"ended with {ended.returncode}"
        raise _CannotInstallError(f"{what}: {said}")
    return ended.stdout
