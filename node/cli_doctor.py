"""The command doctor: asks the running node, or examines the machine where none runs."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import click

from kowalski.node import cli_render as render
from kowalski.node.cli_session import PROGRAM, Session, with_session
from kowalski.node.control_client import NodeNotRunningError
from kowalski.node.control_line import ExitCode

if TYPE_CHECKING:
    from kowalski.node.config import NodeConfig

EXAMINATION_S_MAX = 60.0


@click.command()
@with_session
def doctor(session: Session) -> None:
    """Find out what keeps this machine from being a good node."""
    try:
        done = session.ask_node("doctor", {}, silence_s=EXAMINATION_S_MAX)
    except NodeNotRunningError:
        session.say(f"no node is running here; examining the machine alone ({PROGRAM} start)")
        done = _examine_alone(session)
    if session.as_json:
        session.print_json(done)
    else:
        session.table(render.checks(done))
    if any(check.get("verdict") == "fail" for check in render.rows_of(done.get("checks"))):
        raise click.exceptions.Exit(ExitCode.FAILED)


def _examine_alone(session: Session) -> dict[str, object]:
    import trio

    from kowalski.node.config import load_config

    config, _ = load_config({"data_dir": session.data_dir}, os.environ, session.config)
    return trio.run(_examine, config)


async def _examine(config: NodeConfig) -> dict[str, object]:
    from kowalski.node import doctor as examination
    from kowalski.node.backends.http import open_http
    from kowalski.node.backends.model_files import is_model_file, parse_model_file
    from kowalski.node.backends.probing import candidates, probe
    from kowalski.node.core.checks import as_reply
    from kowalski.node.repl.detection import detect_sandbox
    from kowalski.rlm.tokens import estimate_tokens

    key = config.api_key
    files = [parse_model_file(text).path for text in config.backends if is_model_file(text)]
    places = candidates(
        [text for text in config.backends if not is_model_file(text)],
        ollama_host=config.ollama_host,
        openai_base_url=config.openai_base_url,
        openai_api_key=None if key is None else key.get_secret_value(),
    )
    async with open_http() as http:
        findings = await probe(places, http=http, estimate_tokens=estimate_tokens)
    verdict = await detect_sandbox(allow_none=config.unsafe_repl, network=config.repl_network)
    checks = await examination.examine(
        data_dir=config.data_dir,
        p2p_host=config.listen_host,
        p2p_port=config.p2p_port,
        is_node_running=False,
        sandbox=examination.sandbox_found(verdict, is_offered="repl" in config.roles),
        backends=(
            *examination.backends_found(findings),
            *(examination.file_found(path) for path in files),
        ),
    )
    return as_reply(checks)
