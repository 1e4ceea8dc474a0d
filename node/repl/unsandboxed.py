"""The tier `none`: a plain process in a group of its own, with rlimits and an empty environment.

It contains nothing: code reads what this user reads and talks to whom this user talks to. Only for
owners who ask for it by `--unsafe-repl`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from kowalski.node.repl.limits import SessionLimits
from kowalski.node.repl.sandbox import SYSTEM_PATH, Folders, Launch, Places, inside_environment


@dataclass(frozen=True, slots=True)
class Unsandboxed:
    """A `sandbox.SpawningSandbox`."""

    interpreter: str
    path: str = SYSTEM_PATH
    tier: str = "none"
    owns_pids: bool = False
    works_outside: bool = True
    walks_in: bool = False

    def places(self, folders: Folders) -> Places:
        """See `sandbox.SpawningSandbox.places`."""
        return Places(inputs=str(folders.inputs), job=str(folders.job))

    def rlimits(self, limits: SessionLimits) -> Mapping[str, tuple[int, int]]:
        """See `sandbox.SpawningSandbox.rlimits`."""
        # RLIMIT_NPROC would count every process of this user, not only ours.
        return {name: bound for name, bound in limits.rlimits().items() if name != "nproc"}

    def launch(
        self,
        program: Sequence[str],
        *,
        limits: SessionLimits,  # noqa: ARG002 - kept by the program
        folders: Folders,
        slot: int,  # noqa: ARG002 - nothing here is counted by slot
        passed_fds: Sequence[int] = (),
    ) -> Launch:
        """See `sandbox.SpawningSandbox.launch`."""
        job = str(folders.job)
        return Launch(
            argv=tuple(program),
            environment=inside_environment(
                home=job, temporary=str(folders.temporary), path=self.path
            ),
            working_folder=job,
            passes=tuple(passed_fds),
            closes_after=(),
            owns_pids=False,
        )
