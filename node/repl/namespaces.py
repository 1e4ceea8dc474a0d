"""The tier `namespaces`: what bubblewrap does, done by our own fork server where it is missing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from kowalski.node.repl.bubblewrap import INPUTS, JOB, SCRATCH, SERVER_PARTS, NamespacedSessions
from kowalski.node.repl.egress import Network
from kowalski.node.repl.file_view import FileView
from kowalski.node.repl.limits import SessionLimits
from kowalski.node.repl.sandbox import Folders, Launch, Places, ServerPlan, inside_environment

PARTS = (*SERVER_PARTS[:3], "outer_root.py", *SERVER_PARTS[3:])


@dataclass(frozen=True, slots=True)
class NamespacesSandbox:
    """A `sandbox.ForkingSandbox`. Needs Linux 5.12 for read-only mounts with all below them."""

    interpreter: str
    view: FileView
    sessions: NamespacedSessions
    tier: str = "namespaces"
    owns_pids: bool = True
    works_outside: bool = False
    walks_in: bool = False

    @property
    def path(self) -> str:
        return self.sessions.path

    @property
    def network(self) -> Network:
        return self.sessions.network

    def plan(self, scratch: Path) -> ServerPlan:
        """See `sandbox.ForkingSandbox.plan`."""
        view = {
            "binds": [*self.view.binds, (str(scratch.resolve()), SCRATCH)],
            "links": list(self.view.links),
            "texts": dict(self.view.texts),
        }
        settings = {"is_root": self.sessions.as_root, "view": view, **self.sessions.settings()}
        return ServerPlan(PARTS, settings)

    def launch_server(
        self,
        program: Sequence[str],
        *,
        scratch: Path,  # noqa: ARG002 - in the plan
        passed_fds: Sequence[int],
    ) -> Launch:
        """See `sandbox.ForkingSandbox.launch_server`."""
        return Launch(
            argv=tuple(program),
            environment=inside_environment(home="/", temporary="/", path=self.path),
            working_folder="/",
            passes=tuple(passed_fds),
            closes_after=(),
            owns_pids=True,
        )

    def places(self, folders: Folders) -> Places:  # noqa: ARG002 - the same for all
        """See `sandbox.ForkingSandbox.places`."""
        return Places(inputs=INPUTS, job=JOB)

    def order(
        self, *, limits: SessionLimits, folders: Folders, scratch: Path, slot: int
    ) -> dict[str, object]:
        """See `sandbox.ForkingSandbox.order`."""
        return self.sessions.order(limits=limits, folders=folders, scratch=scratch, slot=slot)
