"""Writes docs/reference/ and the man page from the code: commands, settings, HTTP, metrics.

`python scripts/reference.py` writes them, `--check` says which are not as they should be.
"""

import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import click

from kowalski import __version__
from kowalski.node.cli import cli
from kowalski.node.config import FLAGS, FOREIGN_VARIABLES, NodeConfig
from kowalski.node.http.mesh_routes import VERB_ROUTES

ROOT = Path(__file__).resolve().parent.parent
REFERENCE = ROOT / "docs" / "reference"
COMMON = frozenset({"as_json", "config", "data_dir", "help"})
EXIT_CODES = (
    (0, "ok"),
    (1, "failed"),
    (2, "usage: a wrong argument, setting or file"),
    (3, "no node is running"),
    (4, "not allowed"),
    (5, "no capacity, or no peer that could"),
    (130, "interrupted"),
)
Command = tuple[str, click.Command]


def commands(group: click.Group = cli, prefix: str = "") -> Iterator[Command]:
    """Every command by its whole name, those of groups under them."""
    for name, command in sorted(group.commands.items()):
        if isinstance(command, click.Group):
            yield from commands(command, f"{prefix}{name} ")
        else:
            yield f"{prefix}{name}", command


def usage(command: click.Command) -> str:
    context = click.Context(command, info_name="x")
    return " ".join(command.collect_usage_pieces(context)).replace("[OPTIONS]", "").strip()


def options(command: click.Command) -> list[tuple[str, str]]:
    """Flags with what they take, and their help; the common ones are left out."""
    context = click.Context(command)
    records = [
        param.get_help_record(context)
        for param in command.params
        if isinstance(param, click.Option) and param.name not in COMMON
    ]
    return [record for record in records if record is not None]


def prose(command: click.Command) -> str:
    return textwrap.dedent(command.help or "").replace("\f", "").strip()


# --- Markdown -----------------------------------------------------------------------------------


def cli_page() -> str:
    parts = [
        "# Commands",
        "",
        "Written by `scripts/reference.py` from the program itself.",
        "",
        "Every command takes `--json` (print JSON, one object a line), `--config FILE` (settings",
        "in TOML) and `--data-dir DIR` (which node, if there are several). Results go to stdout,",
        "everything else to stderr.",
        "",
        "| exit code | |",
        "|---|---|",
        *(f"| {code} | {meaning} |" for code, meaning in EXIT_CODES),
    ]
    for name, command in commands():
        parts += ["", f"## {name}", "", f"    kowalski-node {name} {usage(command)}".rstrip()]
        parts += ["", prose(command)]
        rows = options(command)
        if rows:
            parts += ["", "| option | |", "|---|---|"]
            parts += [f"| `{flag}` | {_cell(text)} |" for flag, text in rows]
    return "\n".join(parts) + "\n"


def config_page() -> str:
    start = cli.commands["start"]
    told = {
        param.name: param.help or ""
        for param in start.params
        if isinstance(param, click.Option) and param.name
    }
    rows = []
    for key, field in NodeConfig.model_fields.items():
        flag = FLAGS.get(key, key).replace("_", "-")
        named = f"`--{flag}`" if key in told else ""
        also = FOREIGN_VARIABLES.get(key)
        variable = f"`KOWALSKI_{key.upper()}`" + (f", `{also}`" if also else "")
        help_ = _cell(told.get(key, ""))
        rows.append(f"| `{key}` | {_default(field)} | {named} | {variable} | {help_} |")
    parts = [
        "# Settings",
        "",
        "Written by `scripts/reference.py` from the program itself.",
        "",
        "A flag counts more than an environment variable, that more than the file, that more than",
        "the default. The file is `config.toml` in the configuration directory of your system (on",
        "Linux `~/.config/kowalski/`), or what `--config` or `KOWALSKI_CONFIG` names; its keys are",
        "those of the table. An unknown key is an error. `kowalski-node config show` tells each",
        "value and where it came from.",
        "",
        "| key | default | flag of `start` | variable | |",
        "|---|---|---|---|---|",
        *rows,
    ]
    return "\n".join(parts) + "\n"


def http_page() -> str:
    rows = [f"| `{one.method} {one.path}` | {one.summary} |" for one in VERB_ROUTES]
    parts = [
        "# HTTP",
        "",
        "Written by `scripts/reference.py`. A running node tells all of it at `/docs` and, for",
        "programs, at `/openapi.json`: besides what is below, the interfaces of OpenAI",
        "(`/v1/...`), Anthropic (`/v1/messages`) and Ollama (`/api/...`), MCP at `/mcp`, A2A at",
        "`/a2a`.",
        "",
        "What a verb says on its way comes as server-sent events to those who send",
        "`accept: text/event-stream`. `GET /events` tells rows of the mesh as they change: whole",
        "at first, then `ready`, and a `tick` every few seconds. A stream whose node stops ends in",
        "an `error` event. `HEAD` is answered wherever `GET` is, without a body.",
        "",
        "| request | |",
        "|---|---|",
        *rows,
    ]
    return "\n".join(parts) + "\n"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _default(field: object) -> str:
    from pydantic_core import PydanticUndefined  # noqa: PLC0415

    value = getattr(field, "default", PydanticUndefined)
    if value is PydanticUndefined:
        return "by the machine"
    if value is None:
        return ""
    if isinstance(value, tuple):
        return ", ".join(f"`{one}`" for one in value)
    return f"`{value}`"


# --- the man page -------------------------------------------------------------------------------


def man_page() -> str:
    lines = [
        f'.TH KOWALSKI\\-NODE 1 "" "kowalski\\-node {__version__}" "User Commands"',
        ".SH NAME",
        "kowalski\\-node \\- an agent mesh on the devices you own",
        ".SH SYNOPSIS",
        ".B kowalski\\-node",
        ".I COMMAND",
        "[\\fIOPTIONS\\fR]...",
        ".SH DESCRIPTION",
        "Start one node on each device; they find each other and carry tasks, programs and model",
        "calls to the peer best placed for them. Every command takes \\fB\\-\\-json\\fR,",
        "\\fB\\-\\-config\\fR \\fIFILE\\fR and \\fB\\-\\-data\\-dir\\fR \\fIDIR\\fR.",
        ".SH COMMANDS",
    ]
    for name, command in commands():
        lines += [".TP", f".B {_roff(name)} \\fR{_roff(usage(command))}".rstrip()]
        lines += [_roff(line) for line in prose(command).splitlines() if line.strip()]
        for flag, text in options(command):
            lines += [".RS", ".TP", f".B {_roff(flag)}", _roff(_cell(text)) or "\\&", ".RE"]
    lines.append(".SH EXIT STATUS")
    for code, meaning in EXIT_CODES:
        lines += [".TP", f".B {code}", _roff(meaning)]
    lines += [
        ".SH ENVIRONMENT",
        "\\fBKOWALSKI_\\fR\\fISETTING\\fR sets what \\fBconfig show\\fR lists; \\fBNO_COLOR\\fR is",
        "honoured.",
    ]
    return "\n".join(lines) + "\n"


def _roff(text: str) -> str:
    escaped = text.replace("\\", "\\e").replace("-", "\\-")
    return f"\\&{escaped}" if escaped[:1] in {".", "'"} else escaped


def files() -> dict[Path, str]:
    """Every file that is made here, and what is in it."""
    return {
        REFERENCE / "commands.md": cli_page(),
        REFERENCE / "settings.md": config_page(),
        REFERENCE / "http.md": http_page(),
        REFERENCE / "kowalski-node.1": man_page(),
    }


def main(*arguments: str) -> int:
    made = files()
    stale = [path for path in made if not path.exists() or path.read_text() != made[path]]
    if arguments == ("--check",):
        for path in stale:
            print(f"{path.relative_to(ROOT)} is not what {Path(__file__).name} would write")
        return 1 if stale else 0
    for path in stale:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(made[path], encoding="utf-8")
        print(path.relative_to(ROOT))
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
