"""What the owner of a device allows others to do with its models."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Final, Literal

from kowalski.node.core.model_catalogue import Eviction

WhoMayChange = Literal["nobody", "owner", "members"]
"""Who may have models fetched, loaded and unloaded through the mesh: nobody; who sits at this
device, or is an admin; or every member, also by asking for a model that nobody has."""

WHO_MAY_CHANGE: Final[tuple[WhoMayChange, ...]] = ("nobody", "owner", "members")


@dataclass(frozen=True, slots=True)
class ModelRules:
    """`bytes_max` bounds what the models on the disks of this device's servers may take."""

    who: WhoMayChange = "owner"
    bytes_max: int | None = None
    evict: Eviction = "never"

    def why_not(self, *, is_self: bool, roles: Collection[str], is_on_demand: bool = False) -> str:
        """Why somebody may not change the models here; empty if he may.

        `is_on_demand`: it is not he who wants it, but a call of a model that nobody has.
        """
        if is_on_demand and self.who != "members":
            return "the owner has no models fetched on demand"
        match self.who:
            case "nobody":
                return "the owner lets nobody change models through the mesh"
            case "owner" if not is_self and "admin" not in roles:
                return "the owner lets only himself and admins change models"
            case _:
                return ""
