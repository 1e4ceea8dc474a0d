"""service: the node started by the system, for this user, at every login or boot."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import click

from kowalski.node.cli_session import Session, given, with_session
from kowalski.protocol.errors import ConfigError

COMMAND_S = 30
PASSED_ON = ("PATH", "XDG_DATA_HOME", "XDG_CONFIG_HOME", "OLLAMA_HOST", "OPENAI_BASE_URL")
"""Of the environment; KOWALSKI_* as well. Secrets are not: they belong into the configuration."""

SECRETS = frozenset({"KOWALSKI_JOIN", "KOWALSKI_API_KEY"})


@click.group()
def service() -> None:
    """Have the system start this node by itself.

    Through systemd on Linux, launchd on macOS.
    """


@service.command()
@click.option("--print", "only_prints", is_flag=True, help="Show the file, and install nothing.")
@with_session
def install(session: Session, only_prints: bool) -> None:
    """Install and start it for this user; again after an update."""
    place = _place(session)
    if only_prints:
        session.result(place.text, newline=False)
        return
    place.path.parent.mkdir(parents=True, exist_ok=True)
    place.path.write_text(place.text, encoding="utf-8")
    for command in place.start:
        _run(command)
    facts = {"installed": str(place.path), "manager": place.manager}
    if session.as_json:
        session.print_json(facts)
        return
    session.say(f"installed {place.path}; the node runs, and starts with your session")
    if place.manager == "systemd":
        session.say("to have it run without a login: loginctl enable-linger")


@service.command()
@with_session
def uninstall(session: Session) -> None:
    """Stop it, and take it out again; the node's data stays."""
    place = _place(session)
    was_there = place.path.exists()
    if was_there:
        for command in place.stop:
            _run(command, may_fail=True)
        place.path.unlink()
        for command in place.forget:
            _run(command, may_fail=True)
    if session.as_json:
        session.print_json({"uninstalled": str(place.path) if was_there else None})
    else:
        session.say(f"removed {place.path}" if was_there else "there was none")


@service.command()
@with_session
def status(session: Session) -> None:
    """Whether it is installed, and whether it runs."""
    place = _place(session)
    is_running = place.path.exists() and _run(place.look, may_fail=True) == 0
    facts = given(
        manager=place.manager,
        path=str(place.path),
        installed=place.path.exists(),
        running=is_running,
    )
    if session.as_json:
        session.print_json(facts)
    else:
        state = "runs" if is_running else "does not run"
        there = f"installed as {place.path}, {state}" if place.path.exists() else "not installed"
        session.result(there)
    raise click.exceptions.Exit(0 if is_running else 3)


@dataclass(frozen=True, slots=True)
class _Place:
    """Where the file goes, what is in it, and the commands that make it count."""

    manager: str
    path: Path
    text: str
    start: tuple[tuple[str, ...], ...]
    stop: tuple[tuple[str, ...], ...]
    forget: tuple[tuple[str, ...], ...]
    look: tuple[str, ...]


def _place(session: Session) -> _Place:
    """Raises ConfigError: this system has neither."""
    from kowalski.node import service_units as units

    system, home = platform.system(), Path.home()
    command = [*_program(), "start"]
    for flag, value in (("--data-dir", session.data_dir), ("--config", session.config)):
        if value is not None:
            command += [flag, str(value.resolve())]
    environment = {
        name: value
        for name, value in sorted(os.environ.items())
        if (name in PASSED_ON or name.startswith("KOWALSKI_")) and name not in SECRETS
    }
    if system == "Linux" and shutil.which("systemctl"):
        config = Path(os.environ.get("XDG_CONFIG_HOME") or home / ".config")
        control = ("systemctl", "--user")
        return _Place(
            "systemd",
            config / "systemd" / "user" / units.UNIT,
            units.systemd_unit(command, environment, for_user=True),
            start=(
                (*control, "daemon-reload"),
                (*control, "enable", units.UNIT),
                (*control, "restart", units.UNIT),
            ),
            stop=((*control, "disable", "--now", units.UNIT),),
            forget=((*control, "daemon-reload"),),
            look=(*control, "--quiet", "is-active", units.UNIT),
        )
    if system == "Darwin":
        path = home / "Library" / "LaunchAgents" / f"{units.LABEL}.plist"
        domain = f"gui/{os.getuid()}"
        return _Place(
            "launchd",
            path,
            units.launchd_agent(command, environment, str(home / "Library/Logs/kowalski.log")),
            start=(("launchctl", "bootstrap", domain, str(path)),),
            stop=(("launchctl", "bootout", f"{domain}/{units.LABEL}"),),
            forget=(),
            look=("launchctl", "print", f"{domain}/{units.LABEL}"),
        )
    raise ConfigError(
        f"{system} has neither systemd nor launchd; run `kowalski-node start` by its own means"
    )


def _program() -> list[str]:
    """The installed command, or this interpreter where there is none beside it."""
    beside = Path(sys.executable).with_name("kowalski-node")
    return [str(beside)] if beside.exists() else [sys.executable, "-m", "kowalski.node"]


def _run(command: tuple[str, ...], *, may_fail: bool = False) -> int:
    """Raises ConfigError: it failed, with what it said."""
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=COMMAND_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ConfigError(f"{' '.join(command)}: {error}") from error
    if done.returncode and not may_fail:
        said = " ".join((done.stderr or done.stdout).split())
        raise ConfigError(f"{' '.join(command)} ended with {done.returncode}: {said}")
    return done.returncode
