"""What this device has for jobs: which it can do, in how many slots, how fast."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from kowalski.mesh.core import model_names
from kowalski.node.backends.catalogue import Catalogue
from kowalski.node.core import model_catalogue
from kowalski.node.core.job import Job, Speeds
from kowalski.node.core.model_catalogue import Listing
from kowalski.node.repl.seam import SessionsHost
from kowalski.protocol.messages.trust import Role

COUNTING_SLOTS: Final = 2
"""Counts of tokens at a time: one may wait for a server while the other keeps a core busy."""


@dataclass(frozen=True, slots=True)
class OwnCapacity:
    """`roles` are those that the node offers; without a `host` it runs no code."""

    roles: frozenset[Role]
    host: SessionsHost | None
    catalogue: Catalogue
    code_slots: int
    folding_slots: int

    def why_not(self, job: Job) -> str:
        """Why a job cannot be done here at all; empty if it can."""
        match job.kind:
            case "code":
                known = self.host.languages if self.host and "repl" in self.roles else {}
                return "" if job.language in known else f"no {job.language} here"
            case "inference" | "counting":
                able = "infer" in self.roles and self._listings(job.model)
                return "" if able else f"no model {job.model} here"
            case "folding":
                return "" if "fold" in self.roles else "nothing is folded here"

    def slots(self, job: Job) -> int:
        """Pieces of such work at a time."""
        match job.kind:
            case "code":
                return min(self.code_slots, self.host.slots) if self.host else 0
            case "inference":
                return max(1, model_catalogue.slots(self._listings(job.model)))
            case "folding":
                return self.folding_slots
            case "counting":
                return COUNTING_SLOTS

    def speeds(self, model: str) -> Speeds:
        listings = self._listings(model)
        load_s = model_catalogue.load_s(listings)
        for one in listings:
            if one.tokens_per_s is not None:
                return Speeds(one.tokens_per_s, one.prompt_tokens_per_s, load_s)
        return Speeds(load_s=load_s)

    def _listings(self, model: str | None) -> tuple[Listing, ...]:
        listings = self.catalogue.listings()
        if model in (None, "", model_names.ANY_MODEL):
            return listings
        assert model is not None
        names = model_names.resolve(model, {one.model.name for one in listings})
        return tuple(one for one in listings if one.model.name in names)
