"""Invites that this node has given out: one-time secrets that let a newcomer in."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, get_args

from kowalski.mesh.private_files import write_private
from kowalski.protocol.errors import ConfigError
from kowalski.protocol.messages.trust import Role

INVITES_MAX = 100


@dataclass(frozen=True, slots=True)
class Invite:
    """`secret` and `id` in hexadecimal."""

    id: str
    secret: str = field(repr=False)
    roles: tuple[Role, ...]
    not_after_unix_s: int
    uses_left: int


class InviteBook:
    """Survives a restart: the file is written before an invite is shown, and before it is spent."""

    def __init__(self, path: Path, unix_clock: Callable[[], float]) -> None:
        self._path = path
        self._clock = unix_clock
        self._invites = _load(path)

    def issue(self, roles: tuple[Role, ...], *, ttl_s: int, uses: int) -> Invite:
        """A new invite.

        Raises:
            ConfigError: too many are open, or the file cannot be written.
        """
        invite = Invite(
            id=secrets.token_hex(16),
            secret=secrets.token_hex(16),
            roles=roles,
            not_after_unix_s=int(self._clock()) + ttl_s,
            uses_left=uses,
        )
        open_now = self._open()
        if len(open_now) >= INVITES_MAX:
            raise ConfigError(f"{INVITES_MAX} invites are open; let some expire first")
        self._keep({**open_now, invite.id: invite})
        return invite

    def find(self, invite_id: str) -> Invite | None:
        """The invite, if it is known, not expired and not spent."""
        return self._open().get(invite_id)

    def spend(self, invite_id: str) -> None:
        """Use one up that `find` has just found.

        Raises:
            ConfigError: the file cannot be written; then it is not spent.
        """
        open_now = self._open()
        invite = open_now[invite_id]
        self._keep({**open_now, invite_id: replace(invite, uses_left=invite.uses_left - 1)})

    def _open(self) -> dict[str, Invite]:
        now = self._clock()
        return {
            name: invite
            for name, invite in self._invites.items()
            if invite.uses_left > 0 and now <= invite.not_after_unix_s
        }

    def _keep(self, invites: dict[str, Invite]) -> None:
        text = json.dumps([asdict(invite) for invite in invites.values()], indent=1)
        write_private(self._path, text.encode())
        self._invites = invites


def _load(path: Path) -> dict[str, Invite]:
    try:
        rows = json.loads(path.read_bytes())
        invites = [_invite(row) for row in rows]
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"invite file {path} is damaged ({error}); delete it") from error
    return {invite.id: invite for invite in invites}


def _invite(row: dict[str, Any]) -> Invite:
    """Raises ValueError, KeyError or TypeError where the row is none of ours."""
    secret = str(row["secret"])
    bytes.fromhex(secret)
    return Invite(
        id=str(row["id"]),
        secret=secret,
        roles=_roles(row["roles"]),
        not_after_unix_s=int(row["not_after_unix_s"]),
        uses_left=int(row["uses_left"]),
    )


def _roles(names: list[str]) -> tuple[Role, ...]:
    known: tuple[Role, ...] = get_args(Role)
    return tuple(role for role in known if role in names)
