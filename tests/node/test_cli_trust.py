"""invite, revoke, join, leave and identity, as their owner types them."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from kowalski.mesh.identity import load_or_create_identity
from kowalski.mesh.membership_certificates import (
    Membership,
    MeshRoot,
    found_mesh,
    save_membership,
)
from kowalski.node import control
from kowalski.node.cli import cli
from kowalski.node.cli_trust import qr_drawing
from kowalski.protocol.errors import ConfigError, RequestRefusedError
from kowalski.protocol.ids import PeerId
from tests.node.scripted_node import Script, scripted_node

NOW = 1_795_000_000
LINE = "kw1:" + "aB3-_" * 60


def invoke(tmp_path: Path, *args: str, stdin: str | None = None) -> Result:
    return CliRunner().invoke(cli, [*args, "--data-dir", str(tmp_path)], input=stdin)


def become_founder(data_dir: Path) -> PeerId:
    identity = load_or_create_identity(data_dir / "identity.key")
    save_membership(data_dir / "mesh.json", found_mesh(identity.peer, now_unix_s=NOW))
    return identity.peer


def become_member(data_dir: Path) -> PeerId:
    identity = load_or_create_identity(data_dir / "identity.key")
    root = MeshRoot(bytes(32))
    signed = root.certify(identity.peer, ("repl",), now_unix_s=NOW)
    save_membership(data_dir / "mesh.json", Membership(root.mesh, signed, None))
    return identity.peer


# --- invite -------------------------------------------------------------------------------------


def test_invite_prints_the_line_alone_on_stdout(tmp_path: Path) -> None:
    with scripted_node(tmp_path, {"invite": Script({"line": "kw1:abc"})}) as node:
        args = ["invite", "--ttl", "2h", "--uses", "3", "--roles", "repl,infer"]
        ended = CliRunner().invoke(cli, [*args, "--data-dir", str(tmp_path)])
    assert (ended.exit_code, ended.stdout) == (0, "kw1:abc\n")
    assert node.heard == [("invite", {"roles": ["repl", "infer"], "ttl_s": 7200.0, "uses": 3})]


def test_an_unknown_role_in_an_invite_is_a_usage_error(tmp_path: Path) -> None:
    with scripted_node(tmp_path, {"invite": Script()}):
        ended = invoke(tmp_path, "invite", "--roles", "cook")
    assert ended.exit_code == 2
    assert "roles.0" in ended.stderr


def test_an_invite_may_make_admins(tmp_path: Path) -> None:
    with scripted_node(tmp_path, {"invite": Script({"line": "kw1:abc"})}) as node:
        assert invoke(tmp_path, "invite", "--roles", "repl,admin").exit_code == 0
    assert node.heard[0][1]["roles"] == ["repl", "admin"]


def test_who_may_not_invite_ends_with_4_and_learns_who_may(tmp_path: Path) -> None:
    error = RequestRefusedError("not_allowed", "only the founding node invites (here: desk)")
    with scripted_node(tmp_path, {"invite": Script(error=error)}):
        ended = invoke(tmp_path, "invite")
    assert ended.exit_code == 4
    assert "desk" in ended.stderr


def test_the_qr_code_goes_beside_the_line_that_stays_alone_on_stdout(tmp_path: Path) -> None:
    with scripted_node(tmp_path, {"invite": Script({"line": LINE})}):
        plain = invoke(tmp_path, "invite")
        drawn = invoke(tmp_path, "invite", "--qr")
        assert invoke(tmp_path, "invite", "--qr", "--json").exit_code == 2
    assert plain.stdout == drawn.stdout == LINE + "\n"
    assert "█" in drawn.stderr
    assert "█" not in plain.stderr


def test_a_qr_code_is_square_with_its_three_corners() -> None:
    drawing = re.sub(r"\x1b\[[0-9;]*m", "", qr_drawing(LINE))
    modules = [
        row
        for line in drawing.splitlines()
        for row in ([c in "█▀" for c in line], [c in "█▄" for c in line])
    ]
    width = len(modules[0])
    assert width <= len(modules) <= width + 1
    corner = [
        [x in {0, 6} or y in {0, 6} or {x, y} <= {2, 3, 4} for x in range(7)] for y in range(7)
    ]
    far = width - 2 - 7
    for left, top in ((2, 2), (far, 2), (2, far)):
        assert [row[left : left + 7] for row in modules[top : top + 7]] == corner


def test_a_line_too_long_for_a_qr_code_says_so() -> None:
    with pytest.raises(ConfigError, match="do not fit"):
        qr_drawing("x" * 4000)


# --- revoke -------------------------------------------------------------------------------------


def test_revoke_names_whom_it_put_out(tmp_path: Path) -> None:
    done = {"peer": "12D3KooWAQs8dDvsdQAZ", "name": "lap", "roster_version": 1}
    with scripted_node(tmp_path, {"revoke": Script(done)}) as node:
        ended = invoke(tmp_path, "revoke", "lap", "--why", "sold")
        in_json = invoke(tmp_path, "revoke", "lap", "--json")
    assert ended.exit_code == 0
    assert ended.stderr.startswith("lap (..dDvsdQAZ) is revoked")
    assert json.loads(in_json.stdout) == done
    assert node.heard[0] == ("revoke", {"peer": "lap", "why": "sold"})


# --- join ---------------------------------------------------------------------------------------


def test_a_line_that_is_none_is_refused_before_anything_is_opened(tmp_path: Path) -> None:
    for args, stdin in ((["kw1:nonsense"], None), (["-"], "kw1:nonsense\n")):
        ended = invoke(tmp_path / "data", "join", *args, stdin=stdin)
        assert ended.exit_code == 2, ended.output
        assert "nonsense" not in ended.output
        assert not (tmp_path / "data" / "mesh.json").exists()


def test_join_is_refused_while_a_node_runs_and_says_what_to_do(tmp_path: Path) -> None:
    with control.claim_data_dir(tmp_path):
        ended = invoke(tmp_path, "join", LINE)
    assert ended.exit_code == 2
    assert "stop it first" in ended.stderr


# --- leave --------------------------------------------------------------------------------------


def test_who_is_in_no_mesh_has_nothing_to_leave(tmp_path: Path) -> None:
    ended = invoke(tmp_path, "leave")
    assert (ended.exit_code, ended.stderr) == (0, "this device is in no mesh\n")


def test_leaving_asks_and_without_anybody_to_ask_wants_yes(tmp_path: Path) -> None:
    become_member(tmp_path)
    ended = invoke(tmp_path, "leave", stdin="y\n")
    assert ended.exit_code == 2
    assert "--yes" in ended.stderr
    assert (tmp_path / "mesh.json").exists()
    assert invoke(tmp_path, "leave", "--yes").exit_code == 0
    assert not (tmp_path / "mesh.json").exists()


def test_the_founder_is_told_to_back_its_root_key_up(tmp_path: Path) -> None:
    become_founder(tmp_path)
    ended = invoke(tmp_path, "leave", "--yes")
    assert ended.exit_code == 2
    assert "export-root" in ended.stderr
    assert (tmp_path / "mesh.json").exists()
    assert invoke(tmp_path, "leave", "--yes", "--force").exit_code == 0


# --- identity -----------------------------------------------------------------------------------


def test_identity_show_tells_who_we_are_and_no_secret(tmp_path: Path) -> None:
    peer = become_founder(tmp_path)
    shown, in_json = (
        invoke(tmp_path, "identity", "show"),
        invoke(tmp_path, "identity", "show", "--json"),
    )
    assert shown.exit_code == 0
    facts = json.loads(in_json.stdout)
    assert facts["peer"] == peer
    assert (facts["holds_root_key"], facts["is_admin"]) == (True, True)
    assert facts["identity_path"] == str(tmp_path / "identity.key")
    key = (tmp_path / "identity.key").read_text().splitlines()[-1]
    root = json.loads((tmp_path / "mesh.json").read_text())["root_private_key"]
    for output in (shown.output, in_json.output):
        assert key not in output
        assert root not in output


def test_identity_show_of_nobody_makes_nobody(tmp_path: Path) -> None:
    ended = invoke(tmp_path, "identity", "show")
    assert ended.exit_code == 2
    assert list(tmp_path.iterdir()) == []


def test_a_member_that_rotates_is_told_to_join_again(tmp_path: Path) -> None:
    old = become_member(tmp_path)
    assert invoke(tmp_path, "identity", "rotate").exit_code == 2
    ended = invoke(tmp_path, "identity", "rotate", "--yes")
    assert ended.exit_code == 0, ended.output
    assert "start --join" in ended.stderr
    assert f"revoke {old}" in ended.stderr
    shown = json.loads(invoke(tmp_path, "identity", "show", "--json").stdout)
    assert shown["peer"] != old
    assert shown["mesh"] is None


def test_the_root_key_is_written_and_taken_in(tmp_path: Path) -> None:
    become_founder(tmp_path / "a")
    backup = str(tmp_path / "root.key")
    assert invoke(tmp_path / "a", "identity", "export-root", backup).exit_code == 0
    assert invoke(tmp_path / "a", "identity", "export-root", backup).exit_code == 2
    ended = invoke(tmp_path / "b", "identity", "import-root", backup)
    assert ended.exit_code == 0, ended.output
    shown = json.loads(invoke(tmp_path / "b", "identity", "show", "--json").stdout)
    assert shown["holds_root_key"]


@pytest.mark.parametrize("command", [["rotate", "--yes"], ["import-root", "root.key"]], ids=str)
def test_the_key_of_a_running_node_is_left_alone(tmp_path: Path, command: list[str]) -> None:
    become_founder(tmp_path)
    before = (tmp_path / "identity.key").read_bytes()
    with control.claim_data_dir(tmp_path):
        ended = invoke(tmp_path, "identity", *command)
    assert ended.exit_code == 2
    assert "stop it first" in ended.stderr
    assert (tmp_path / "identity.key").read_bytes() == before
