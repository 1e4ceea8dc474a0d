"""How the system starts a node by itself: a systemd unit or a launchd agent, as text. Pure.

After systemd.service(5), sd_notify(3) and launchd.plist(5). The unit has no sandboxing of its own:
bubblewrap makes namespaces inside of it, which most of systemd's settings would forbid.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from xml.sax.saxutils import escape

UNIT = "kowalski-node.service"
LABEL = "org.kowalski.node"
RESTART_S = 2
STOP_S = 30
"""How long a node may hand over what it does before it is killed."""

WATCHDOG_S = 30


def systemd_unit(command: Sequence[str], environment: Mapping[str, str], *, for_user: bool) -> str:
    """A unit for one user, or for the system with a user of its own."""
    target = "default.target" if for_user else "multi-user.target"
    own_user = (
        ()
        if for_user
        else ("DynamicUser=yes", "StateDirectory=kowalski", "StateDirectoryMode=0700")
    )
    settings = [f"Environment={_quoted(f'{name}={value}')}" for name, value in environment.items()]
    lines = (
        "[Unit]",
        "Description=Kowalski: a node of the agent mesh on this user's devices",
        "Documentation=man:kowalski-node(1)",
        "Wants=network-online.target",
        "After=network-online.target",
        "StartLimitIntervalSec=60",
        "StartLimitBurst=10",
        "",
        "[Service]",
        "Type=notify",
        f"ExecStart={' '.join(_quoted(word) for word in command)}",
        *settings,
        *(() if for_user else own_user),
        "Restart=on-failure",
        f"RestartSec={RESTART_S}",
        # What the operator has to mend is not mended by starting again.
        "RestartPreventExitStatus=2",
        f"TimeoutStopSec={STOP_S}",
        f"WatchdogSec={WATCHDOG_S}",
        "KillMode=mixed",
        "",
        "[Install]",
        f"WantedBy={target}",
        "",
    )
    return "\n".join(lines)


def launchd_agent(command: Sequence[str], environment: Mapping[str, str], log_path: str) -> str:
    """An agent of launchd, for one user of macOS. Untested: written to its documentation."""
    words = "".join(f"    <string>{escape(word)}</string>\n" for word in command)
    pairs = "".join(
        f"    <key>{escape(name)}</key><string>{escape(value)}</string>\n"
        for name, value in environment.items()
    )
    return f"""<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE plist PUBLIC "-//Apple//DTD PLIST 1.0//EN" "http://www.apple.com/DTDs/PropertyList-1.0.dtd">
<plist version="1.0">
<dict>
  <key>Label</key><string>{LABEL}</string>
  <key>ProgramArguments</key>
  <array>
{words}  </array>
  <key>EnvironmentVariables</key>
  <dict>
{pairs}  </dict>
  <key>RunAtLoad</key><true/>
  <key>KeepAlive</key><dict><key>SuccessfulExit</key><false/></dict>
  <key>ThrottleInterval</key><integer>{RESTART_S}</integer>
  <key>ExitTimeOut</key><integer>{STOP_S}</integer>
  <key>StandardErrorPath</key><string>{escape(log_path)}</string>
</dict>
</plist>
"""


def _quoted(word: str) -> str:
    """A word as systemd reads it: its `%` and `$` stand for themselves."""
    plain = word.replace("%", "%%").replace("$", "$$")
    if shlex.quote(word) == word:
        return plain
    escaped = plain.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
