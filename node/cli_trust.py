"""The commands of trust: who may come, who must go, and what this device itself is."""

from __future__ import annotations

import os
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import click

from kowalski.node import cli_render as render
from kowalski.node.cli_session import PROGRAM, Session, duration_option, given, with_session
from kowalski.node.control_client import NodeNotRunningError
from kowalski.protocol.errors import ConfigError

if TYPE_CHECKING:
    from kowalski.node.config import NodeConfig
    from kowalski.node.own_membership import Own

STOP_S = 15.0
LOOK_S = 0.05

QR_BORDER = 2
"""White modules around the code: ISO 18004 asks for 4, readers do with 2, and screens are small."""


# --- others -------------------------------------------------------------------------------------


@click.command()
@click.option("--roles", help="What the newcomer may do, by commas; all but admin otherwise.")
@duration_option("--ttl", "24h", "How long it is good.")
@click.option("--uses", type=click.IntRange(1, 1000), default=1, show_default=True)
@click.option("--qr", is_flag=True, help="Draw it as well, for the camera of the other device.")
@with_session
def invite(session: Session, roles: str | None, ttl: float, uses: int, qr: bool) -> None:
    """Print a line that lets another device join this mesh."""
    if qr and session.as_json:
        raise click.UsageError("--qr is for people, --json is for programs")
    chosen = None if roles is None else [role for role in roles.replace(",", " ").split() if role]
    done = session.ask_node("invite", given(roles=chosen, ttl_s=ttl, uses=uses))
    if session.as_json:
        session.print_json(done)
        return
    line = render.text(done.get("line") or done.get("invite"))
    session.result(line)
    if qr:
        # Past the cleaning of what peers wrote: the colours are ours, and only a terminal's.
        click.echo(qr_drawing(line), err=True)
    session.say(
        f"on the other device: {PROGRAM} start --join {line[:12]}...\n"
        f"it holds a secret; good for {uses} use{'s' if uses > 1 else ''}"
        f" within {render.duration(ttl)}"
    )


def qr_drawing(line: str) -> str:
    """A QR code for a terminal, two modules in each character, black on white whatever its colours.

    Raises:
        ConfigError: the line is too long for one.
    """
    import segno

    try:
        code = segno.make_qr(line, error="l")
    except segno.DataOverflowError as error:
        raise ConfigError(f"{len(line)} characters do not fit a QR code") from error
    rows = [[bool(module) for module in row] for row in code.matrix_iter(border=QR_BORDER)]
    if len(rows) % 2:
        rows.append([False] * len(rows[0]))
    blocks = {(False, False): " ", (True, False): "▀", (False, True): "▄", (True, True): "█"}
    lines = (
        "".join(blocks[pair] for pair in zip(upper, lower, strict=True))
        for upper, lower in zip(rows[::2], rows[1::2], strict=True)
    )
    return "\n".join(click.style(each, fg="black", bg="bright_white") for each in lines)


@click.command()
@click.argument("peer")
@click.option("--why", default="", help="Told to everybody, on one line.")
@with_session
def revoke(session: Session, peer: str, why: str) -> None:
    """Put a member out of the mesh, now and everywhere.

    PEER is its name, its id, or the end of its id.
    """
    done = session.ask_node("revoke", {"peer": peer, "why": why})
    if session.as_json:
        session.print_json(done)
        return
    shown = render.short_peer(done.get("peer"))
    session.say(
        f"{render.who(done)} ({shown}) is revoked; every member that is up knows within seconds.\n"
        f"To let it in again, give it a new invite."
    )


# --- joining and leaving ------------------------------------------------------------------------


@click.command()
@click.argument("line")
@with_session
def join(session: Session, line: str) -> None:
    """Become a member of a mesh, without starting a node yet.

    LINE is what `invite` printed on a device of the mesh; - reads it from stdin, which keeps it
    out of the history of your shell.
    """
    if line == "-":
        line = sys.stdin.read(1 << 16)
    config = _config(session)

    import trio

    from kowalski.mesh.membership_certificates import decode_certificate, load_membership
    from kowalski.node.joining import join_mesh
    from kowalski.node.own_membership import at_rest

    with at_rest(config.data_dir):
        before = load_membership(config.mesh_path)
        membership = trio.run(join_mesh, config, line)
    word = "already a member" if membership == before else "a member"
    certificate = decode_certificate(membership.certificate.frame)
    if session.as_json:
        facts = {"mesh": membership.mesh, "peer": certificate.peer}
        session.print_json({**facts, "roles": list(certificate.roles)})
        return
    session.say(
        f"{word} of mesh {membership.mesh}, with roles {', '.join(certificate.roles)}\n"
        f"now: {PROGRAM} start"
    )


@click.command()
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--force", is_flag=True, help="Even if the root key of the mesh is lost with it.")
@with_session
def leave(session: Session, yes: bool, force: bool) -> None:
    """Forget the mesh; stops the node if it runs. Tasks, settings and identity stay."""
    from kowalski.mesh.membership_certificates import load_membership
    from kowalski.node import own_membership

    config = _config(session)
    membership = load_membership(config.mesh_path)
    if membership is None:
        session.say("this device is in no mesh")
        if session.as_json:
            session.print_json({"mesh": None})
        return
    own_membership.check_may_leave(membership, force=force)
    _confirm(f"Leave mesh {membership.mesh}? Coming back takes a new invite.", yes=yes)
    _stop_node(session, config.data_dir)
    with own_membership.at_rest(config.data_dir):
        own_membership.leave(config, force=force)
    if session.as_json:
        session.print_json({"mesh": membership.mesh})
        return
    session.say(
        f"left mesh {membership.mesh}. Its members see this device as gone, not as put out:\n"
        f"if it changes hands, run `{PROGRAM} revoke` on one of them that may."
    )


def _confirm(question: str, *, yes: bool) -> None:
    if yes:
        return
    if not sys.stdin.isatty():
        raise click.UsageError("nobody to ask here; say --yes")
    click.confirm(question, abort=True, err=True)


def _stop_node(session: Session, data_dir: Path) -> None:
    """End the node of this data directory, if one runs, and wait until it has let go of it."""
    from kowalski.node import control

    try:
        pid = session.ask_node("status", {}).get("pid")
    except NodeNotRunningError:
        return
    if not isinstance(pid, int):
        return
    session.say("stopping the node")
    os.kill(pid, signal.SIGTERM)
    give_up_at = time.monotonic() + STOP_S
    while time.monotonic() < give_up_at:
        with suppress(control.NodeRunningError), control.claim_data_dir(data_dir):
            return
        time.sleep(LOOK_S)
    raise ConfigError(f"the node (pid {pid}) does not stop")


# --- ourselves ----------------------------------------------------------------------------------


@click.group()
def identity() -> None:
    """The key of this device, and what it may do with it."""


@identity.command("show")
@with_session
def show(session: Session) -> None:
    """Which peer this device is, and of which mesh. Never shows a secret."""
    from kowalski.node.own_membership import own

    config = _config(session)
    facts = _facts(config, own(config, time.time()))
    if session.as_json:
        session.print_json(facts)
    else:
        session.result(render.fields(facts))


def _facts(config: NodeConfig, found: Own) -> dict[str, object]:
    membership = found.membership
    return {
        "peer": found.identity.peer,
        "name": config.name,
        "mesh": membership.mesh if membership else None,
        "roles": list(found.roles),
        "certificate_ends_in_s": found.ends_in_s,
        "holds_root_key": membership is not None and membership.root is not None,
        "is_admin": "admin" in found.roles,
        "problem": found.problem,
        "identity_path": str(config.identity_path),
        "mesh_path": str(config.mesh_path),
    }


@identity.command("rotate")
@click.option("--yes", is_flag=True, help="Do not ask.")
@with_session
def rotate(session: Session, yes: bool) -> None:
    """Become another peer, with a new key; the old one is kept beside it.

    For a data directory that was copied (on the copy), or a key that others have seen. A device
    with the root key lets itself in again; others need a new invite.
    """
    from kowalski.node import own_membership

    config = _config(session)
    with own_membership.at_rest(config.data_dir):
        before = own_membership.own(config, time.time())
        must_join = before.membership is not None and before.membership.root is None
        after = " It must join its mesh again, with a new invite." if must_join else ""
        _confirm(f"Make a new key for this device?{after}", yes=yes)
        rotated = own_membership.rotate(config, time.time())
    if session.as_json:
        facts = {"peer": rotated.new.peer, "old_peer": rotated.old.peer}
        kept = {"old_identity_path": str(rotated.kept_path), "must_join": rotated.must_join}
        session.print_json({**facts, **kept})
        return
    session.say(
        f"this device is {rotated.new.peer} now; the old key is kept in {rotated.kept_path}"
    )
    if rotated.must_join:
        session.say(f"now: {PROGRAM} start --join LINE, with a line from `{PROGRAM} invite`")
    elif before.membership is not None:
        session.say(f"it let itself in by the root key; now: {PROGRAM} start")
    if before.membership is not None:
        session.say(
            "if nobody goes on as the old peer, or its key was seen by others: "
            f"{PROGRAM} revoke {rotated.old.peer}"
        )


@identity.command("export-root")
@click.argument("file", type=click.Path(path_type=Path))
@with_session
def export_root(session: Session, file: Path) -> None:
    """Write the root key of the mesh to a new FILE, as a backup."""
    from kowalski.node import own_membership

    membership = own_membership.export_root(_config(session), file)
    if session.as_json:
        session.print_json({"mesh": membership.mesh, "path": str(file)})
        return
    session.say(
        f"the root key of mesh {membership.mesh} is in {file}. Whoever has it can let anybody in:\n"
        "keep it off this device, where only you can read it."
    )


@identity.command("import-root")
@click.argument("file", type=click.Path(path_type=Path))
@with_session
def import_root(session: Session, file: Path) -> None:
    """Take the root key of the mesh from FILE; this device can then do what the founder could."""
    from kowalski.node import own_membership

    config = _config(session)
    with own_membership.at_rest(config.data_dir):
        membership = own_membership.import_root(config, file, time.time())
    if session.as_json:
        session.print_json({"mesh": membership.mesh})
        return
    session.say(
        f"this device holds the root key of mesh {membership.mesh} now, and every role\n"
        f"now: {PROGRAM} start"
    )


def _config(session: Session) -> NodeConfig:
    """The settings, with quiet logs: what a command says is for a person."""
    from kowalski.node.config import load_config
    from kowalski.node.logs import configure_logging

    config, _ = load_config({"data_dir": session.data_dir}, os.environ, session.config)
    configure_logging("warning", config.log_format)
    return config
