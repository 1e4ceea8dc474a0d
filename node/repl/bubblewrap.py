"""The tier `bubblewrap`: namespaces by bwrap(1), a seccomp filter, prlimit inside, sized tmpfs.

As an ordinary user everything happens in a user namespace. As root there is none, because the
payload would stay uid 0 for the kernel (and /proc/sys writable): mounts are made as root, and
setpriv(1) drops to a uid that nobody else has before the program starts.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from kowalski.node.repl.limits import SessionLimits
from kowalski.node.repl.sandbox import Folders, Launch, inside_environment, rlimit_command

_JOB, _INPUTS, _TMP = "/job", "/inputs", "/tmp"  # noqa: S108 - inside, on a tmpfs of its own
_PATH = "/usr/local/bin:/usr/bin:/bin"
_PASSWD = b"root:x:0:0::/:/usr/sbin/nologin\nsandbox:x:1000:1000::/job:/bin/sh\n"
_GROUP = b"root:x:0:\nsandbox:x:1000:\n"
_HOSTS = b"127.0.0.1 localhost\n::1 localhost\n"
_MERGED = ("/bin", "/sbin", "/lib", "/lib64")
_SHOWN_IF_THERE = (
    "/etc/ld.so.cache",
    "/etc/alternatives",
    "/etc/localtime",
    "/etc/ssl/certs",
    "/etc/ssl/openssl.cnf",
)


@dataclass(frozen=True, slots=True)
class BubblewrapSandbox:
    """`first_uid` and above, one per slot, are used when this process is root.

    RLIMIT_NPROC counts by uid, so no other process of the machine may have them.
    """

    bwrap: str
    interpreter: str
    prefix: Path
    as_root: bool
    first_uid: int
    system_call_filter: bytes
    tier: str = "bubblewrap"

    def launch(
        self,
        program: Sequence[str],
        *,
        limits: SessionLimits,
        folders: Folders,
        slot: int,
        passed_fds: Sequence[int] = (),
        read_only: Sequence[Path] = (),
    ) -> Launch:
        """See `sandbox.Sandbox.launch`."""
        memory_files: list[int] = []

        def data_fd(content: bytes) -> str:
            fd = os.memfd_create("kowalski", os.MFD_CLOEXEC)
            memory_files.append(fd)
            os.write(fd, content)
            os.lseek(fd, 0, os.SEEK_SET)
            return str(fd)

        try:
            options = [
                *self._isolation(),
                *self._environment(),
                *self._system(data_fd),
                *self._private(limits),
                *self._shown([self.prefix, *read_only]),
                *("--perms", "0755", "--dir", _INPUTS),
                *("--ro-bind", str(folders.inputs), _INPUTS),
                *("--chdir", _JOB, "--remount-ro", "/dev", "--remount-ro", "/"),
                *("--seccomp", data_fd(self.system_call_filter)),
            ]
            argv = [
                self.bwrap,
                # Out of sight: a command line can be read from inside, and names host paths.
                *("--args", data_fd(b"".join(word.encode() + b"\0" for word in options)), "--"),
                *self._drop(slot),
                *rlimit_command(limits),
                *program,
            ]
        except OSError:
            for fd in memory_files:
                os.close(fd)
            raise
        return Launch(
            argv=tuple(argv),
            environment={},
            working_folder="/",
            passes=(*memory_files, *passed_fds),
            closes_after=tuple(memory_files),
            inputs_at=_INPUTS,
            job_at=_JOB,
            owns_pids=True,
        )

    def _isolation(self) -> list[str]:
        if self.as_root:
            argv = ["--unshare-ipc", "--unshare-pid", "--unshare-net", "--unshare-uts"]
            argv += ["--unshare-cgroup-try", "--cap-drop", "ALL"]
            for capability in ("CAP_SETUID", "CAP_SETGID", "CAP_SETPCAP"):
                argv += ["--cap-add", capability]
        else:
            argv = ["--unshare-all", "--unshare-user", "--disable-userns", "--cap-drop", "ALL"]
            argv += ["--uid", "1000", "--gid", "1000"]
        return [*argv, "--die-with-parent", "--new-session", "--hostname", "sandbox", "--clearenv"]

    def _environment(self) -> list[str]:
        path = f"{Path(self.interpreter).parent}:{_PATH}"
        variables = inside_environment(home=_JOB, temporary=_TMP, path=path)
        return [word for item in variables.items() for word in ("--setenv", *item)]

    def _system(self, data_fd: Callable[[bytes], str]) -> list[str]:
        """The programs and libraries of the host, and just enough of /etc."""
        argv = ["--perms", "0755", "--dir", "/etc", "--ro-bind", "/usr", "/usr"]
        for folder in _MERGED:
            if os.path.islink(folder):  # noqa: PTH114
                argv += ["--symlink", f"usr{folder}", folder]
            elif os.path.isdir(folder):  # noqa: PTH112
                argv += ["--ro-bind", folder, folder]
        # bwrap makes missing parents 0700, which a dropped uid cannot pass.
        argv += ["--perms", "0755", "--dir", "/etc/ssl"]
        for path in _SHOWN_IF_THERE:
            argv += ["--ro-bind-try", path, path]
        for name, content in (("passwd", _PASSWD), ("group", _GROUP), ("hosts", _HOSTS)):
            argv += ["--perms", "0444", "--ro-bind-data", data_fd(content), f"/etc/{name}"]
        return argv

    def _private(self, limits: SessionLimits) -> list[str]:
        # bwrap leaves /proc/sys alone, and what is not uid 0 need not change it either.
        argv = ["--proc", "/proc", "--ro-bind", "/proc/sys", "/proc/sys", "--dev", "/dev"]
        for folder in ("/dev/shm", _TMP, _JOB):  # noqa: S108
            argv += ["--perms", "1777", "--size", str(limits.folder_bytes), "--tmpfs", folder]
        return argv

    def _shown(self, paths: Sequence[Path]) -> list[str]:
        argv: list[str] = []
        for path in paths:
            if path.is_relative_to("/usr"):
                continue
            for parent in reversed(path.parents[:-1]):
                argv += ["--perms", "0755", "--dir", str(parent)]
            argv += ["--ro-bind", str(path), str(path)]
        return argv

    def _drop(self, slot: int) -> list[str]:
        if not self.as_root:
            return []
        uid = str(self.first_uid + slot)
        return [
            "/usr/bin/setpriv",
            f"--reuid={uid}",
            f"--regid={uid}",
            "--clear-groups",
            "--no-new-privs",
            "--bounding-set=-all",
            "--inh-caps=-all",
            "--ambient-caps=-all",
            "--",
        ]
