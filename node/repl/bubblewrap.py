"""The tier `bubblewrap`: a root folder and namespaces made by bwrap(1).

As an ordinary user everything happens in a user namespace. As root there is none, because the
payload would stay uid 0 for the kernel (and /proc/sys writable): mounts are made as root, and a uid
that nobody else has is taken before the program starts.

`BubblewrapSandbox` puts a fork server inside, which keeps the privileges to make namespaces within
for each session; `PlainBubblewrap` starts a bwrap for each session, which is ten times slower and
works where the system lets bwrap, and nothing inside of it, make namespaces (Ubuntu's AppArmor).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from kowalski.node.repl.egress import PROXY_PORT, Network, environment
from kowalski.node.repl.file_view import FileView
from kowalski.node.repl.limits import SessionLimits
from kowalski.node.repl.sandbox import Folders, Launch, Places, ServerPlan, inside_environment

JOB, INPUTS, TMP, SCRATCH = "/job", "/inputs", "/tmp", "/sessions"  # noqa: S108 - inside
SERVER_PARTS = ("channel.py", "limiting.py", "confinement.py", "namespaced.py", "fork_server.py")
# What the fork server needs to confine sessions when it is root, as in `kernels/confinement.py`.
_SERVER_CAPABILITIES = ("CAP_KILL", "CAP_SETGID", "CAP_SETUID", "CAP_SETPCAP", "CAP_SYS_ADMIN")
_DROP_CAPABILITIES = ("CAP_SETUID", "CAP_SETGID", "CAP_SETPCAP")

DataFd = Callable[[bytes], str]


@dataclass(frozen=True, slots=True)
class NamespacedSessions:
    """How sessions are told apart by a fork server with namespaces, whoever made its root folder.

    `first_uid` and above, one per slot, are used when this process is root. RLIMIT_NPROC counts by
    uid, so no other process of the machine may have them.
    """

    path: str
    as_root: bool
    first_uid: int
    system_call_filter: bytes
    network: Network = "none"

    def settings(self) -> dict[str, object]:
        proxy_port = 0 if self.network == "none" else PROXY_PORT
        return {
            "filter": self.system_call_filter,
            "scratch": SCRATCH,
            "proxy_port": proxy_port,
        }

    def order(
        self, *, limits: SessionLimits, folders: Folders, scratch: Path, slot: int
    ) -> dict[str, object]:
        """See `sandbox.ForkingSandbox.order`."""
        return {
            "uid": self.first_uid + slot if self.as_root else None,
            "inputs": str(folders.inputs.relative_to(scratch)),
            "environment": {
                **inside_environment(home=JOB, temporary=TMP, path=self.path),
                **(environment() if self.network != "none" else {}),
            },
            "rlimits": limits.rlimits(),
            "folder_bytes": limits.folder_bytes,
            "inodes": limits.inodes,
        }


@dataclass(frozen=True, slots=True)
class BubblewrapSandbox:
    """A `sandbox.ForkingSandbox`."""

    bwrap: str
    interpreter: str
    view: FileView
    sessions: NamespacedSessions
    tier: str = "bubblewrap"
    owns_pids: bool = True
    works_outside: bool = False
    walks_in: bool = False

    @property
    def path(self) -> str:
        return self.sessions.path

    @property
    def network(self) -> Network:
        return self.sessions.network

    def plan(self, scratch: Path) -> ServerPlan:  # noqa: ARG002 - it is shown at a fixed place
        """See `sandbox.ForkingSandbox.plan`."""
        return ServerPlan(SERVER_PARTS, self.sessions.settings())

    def launch_server(
        self, program: Sequence[str], *, scratch: Path, passed_fds: Sequence[int]
    ) -> Launch:
        """See `sandbox.ForkingSandbox.launch_server`."""
        as_root = self.sessions.as_root
        if as_root:
            isolation = [*_UNSHARE_AS_ROOT, "--cap-drop", "ALL"]
            further = () if self.network == "none" else ("CAP_NET_ADMIN",)
            for capability in (*_SERVER_CAPABILITIES, *further):
                isolation += ["--cap-add", capability]
        else:
            # Root of a namespace of its own, whose mounts it may add to for each session.
            isolation = ["--unshare-all", "--unshare-user", "--uid", "0", "--gid", "0"]
            isolation += ["--cap-add", "ALL"]

        def options(data_fd: DataFd) -> list[str]:
            return [
                *(*isolation, *_ALWAYS, *_environment(self.path), *_system(self.view, data_fd)),
                *("--proc", "/proc", "--dev", "/dev"),
                *(word for place in (JOB, INPUTS, TMP, "/dev/shm") for word in _folder(place)),  # noqa: S108
                *("--ro-bind", str(scratch), SCRATCH),
                *("--chdir", "/", "--remount-ro", "/dev", "--remount-ro", "/"),
            ]

        return _launch(self.bwrap, options, program, passed_fds)

    def places(self, folders: Folders) -> Places:  # noqa: ARG002 - the same for all
        """See `sandbox.ForkingSandbox.places`."""
        return Places(inputs=INPUTS, job=JOB)

    def order(
        self, *, limits: SessionLimits, folders: Folders, scratch: Path, slot: int
    ) -> dict[str, object]:
        """See `sandbox.ForkingSandbox.order`."""
        return self.sessions.order(limits=limits, folders=folders, scratch=scratch, slot=slot)


@dataclass(frozen=True, slots=True)
class PlainBubblewrap:
    """A `sandbox.SpawningSandbox`."""

    bwrap: str
    interpreter: str
    view: FileView
    sessions: NamespacedSessions
    tier: str = "bubblewrap"
    owns_pids: bool = True
    works_outside: bool = False
    walks_in: bool = False

    @property
    def path(self) -> str:
        return self.sessions.path

    def places(self, folders: Folders) -> Places:  # noqa: ARG002 - the same for all
        """See `sandbox.SpawningSandbox.places`."""
        return Places(inputs=INPUTS, job=JOB)

    def rlimits(self, limits: SessionLimits) -> Mapping[str, tuple[int, int]]:
        """See `sandbox.SpawningSandbox.rlimits`."""
        return limits.rlimits()

    def launch(
        self,
        program: Sequence[str],
        *,
        limits: SessionLimits,
        folders: Folders,
        slot: int,
        passed_fds: Sequence[int] = (),
    ) -> Launch:
        """See `sandbox.SpawningSandbox.launch`."""
        as_root = self.sessions.as_root
        if as_root:
            isolation = [*_UNSHARE_AS_ROOT, "--cap-drop", "ALL"]
            for capability in _DROP_CAPABILITIES:
                isolation += ["--cap-add", capability]
        else:
            isolation = ["--unshare-all", "--unshare-user", "--disable-userns"]
            isolation += ["--cap-drop", "ALL", "--uid", "1000", "--gid", "1000"]

        def options(data_fd: DataFd) -> list[str]:
            return [
                *(*isolation, *_ALWAYS, *_environment(self.path), *_system(self.view, data_fd)),
                # bwrap leaves /proc/sys alone, and what is not uid 0 need not change it either.
                *("--proc", "/proc", "--ro-bind", "/proc/sys", "/proc/sys", "--dev", "/dev"),
                *_private(limits),
                *(*_folder(INPUTS), "--ro-bind", str(folders.inputs), INPUTS),
                *("--chdir", JOB, "--remount-ro", "/dev", "--remount-ro", "/"),
                *("--seccomp", data_fd(self.sessions.system_call_filter)),
            ]

        drop = _drop(self.sessions.first_uid + slot) if as_root else ()
        return _launch(self.bwrap, options, (*drop, *program), passed_fds)


_UNSHARE_AS_ROOT = (
    *("--unshare-ipc", "--unshare-pid", "--unshare-net", "--unshare-uts"),
    "--unshare-cgroup-try",
)
_ALWAYS = ("--die-with-parent", "--new-session", "--hostname", "sandbox", "--clearenv")


def _launch(
    bwrap: str,
    options: Callable[[DataFd], list[str]],
    program: Sequence[str],
    passed_fds: Sequence[int],
) -> Launch:
    memory_files: list[int] = []

    def data_fd(content: bytes) -> str:
        fd = os.memfd_create("kowalski", os.MFD_CLOEXEC)
        memory_files.append(fd)
        os.write(fd, content)
        os.lseek(fd, 0, os.SEEK_SET)
        return str(fd)

    try:
        # Out of sight: a command line can be read from inside, and names host paths.
        words = b"".join(word.encode() + b"\0" for word in options(data_fd))
        argv = (bwrap, "--args", data_fd(words), "--", *program)
    except OSError:
        for fd in memory_files:
            os.close(fd)
        raise
    return Launch(
        argv=argv,
        environment={},
        working_folder="/",
        passes=(*memory_files, *passed_fds),
        closes_after=tuple(memory_files),
        owns_pids=True,
    )


def _folder(place: str) -> tuple[str, ...]:
    # bwrap makes missing parents 0700, which a dropped uid cannot pass.
    return ("--perms", "0755", "--dir", place)


def _environment(path: str) -> list[str]:
    variables = inside_environment(home=JOB, temporary=TMP, path=path)
    return [word for item in variables.items() for word in ("--setenv", *item)]


def _system(view: FileView, data_fd: DataFd) -> list[str]:
    argv = [word for place in view.folders() for word in _folder(place)]
    for source, place in view.binds:
        argv += ["--ro-bind", source, place]
    for target, place in view.links:
        argv += ["--symlink", target, place]
    for place, content in view.texts.items():
        argv += ["--perms", "0444", "--ro-bind-data", data_fd(content), place]
    return argv


def _private(limits: SessionLimits) -> list[str]:
    argv: list[str] = []
    for folder in ("/dev/shm", TMP, JOB):  # noqa: S108
        argv += ["--perms", "1777", "--size", str(limits.folder_bytes), "--tmpfs", folder]
    return argv


def _drop(uid: int) -> tuple[str, ...]:
    return (
        *("/usr/bin/setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups"),
        *("--no-new-privs", "--bounding-set=-all", "--inh-caps=-all", "--ambient-caps=-all"),
        "--",
    )
