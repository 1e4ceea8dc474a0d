"""The tier `none`: a plain process in a group of its own, with rlimits and an empty environment.

It contains nothing: code reads what this user reads and talks to whom this user talks to. Only for
owners who ask for it by `--unsafe-repl`.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from kowalski.node.repl.limits import SessionLimits
from kowalski.node.repl.sandbox import Folders, Launch, inside_environment, rlimit_command

_PATH = "/usr/local/bin:/usr/bin:/bin"


@dataclass(frozen=True, slots=True)
class Unsandboxed:
    interpreter: str
    tier: str = "none"

    def launch(
        self,
        program: Sequence[str],
        *,
        limits: SessionLimits,
        folders: Folders,
        slot: int,  # noqa: ARG002 - nothing here is counted by slot
        passed_fds: Sequence[int] = (),
        read_only: Sequence[Path] = (),  # noqa: ARG002 - everything is visible
    ) -> Launch:
        """See `sandbox.Sandbox.launch`."""
        # RLIMIT_NPROC would count every process of this user, not only ours.
        rlimits = [word for word in rlimit_command(limits) if not word.startswith("--nproc")]
        if not sys.platform.startswith("linux"):
            rlimits = []
        job = str(folders.job)
        path = f"{Path(self.interpreter).parent}:{_PATH}"
        return Launch(
            argv=(*rlimits, *program),
            environment=inside_environment(home=job, temporary=job, path=path),
            working_folder=job,
            passes=tuple(passed_fds),
            closes_after=(),
            inputs_at=str(folders.inputs),
            job_at=job,
            owns_pids=False,
        )
