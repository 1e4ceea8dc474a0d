"""What the owner does with the files of a node: leave, rotate, back the root key up."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from kowalski.mesh.certificate_book import CertificateBook
from kowalski.mesh.identity import Identity, load_or_create_identity, new_identity
from kowalski.mesh.membership_certificates import (
    Membership,
    MeshRoot,
    decode_certificate,
    found_mesh,
    load_membership,
    revoke,
    save_membership,
    verify,
)
from kowalski.node import control, own_membership
from kowalski.node.config import NodeConfig, load_config
from kowalski.protocol.errors import ConfigError
from kowalski.protocol.messages.trust import ROLES, Roster

NOW = 1_795_000_000
DAY_S = 24 * 3600


def config_at(path: Path) -> NodeConfig:
    path.mkdir(mode=0o700, exist_ok=True)
    return load_config({"data_dir": path}, {})[0]


@pytest.fixture
def founder(tmp_path: Path) -> NodeConfig:
    config = config_at(tmp_path / "founder")
    identity = load_or_create_identity(config.identity_path)
    save_membership(config.mesh_path, found_mesh(identity.peer, now_unix_s=NOW))
    return config


@pytest.fixture
def member(tmp_path: Path, founder: NodeConfig) -> NodeConfig:
    config = config_at(tmp_path / "member")
    identity = load_or_create_identity(config.identity_path)
    root = root_of(founder)
    signed = root.certify(identity.peer, ("repl",), now_unix_s=NOW)
    save_membership(config.mesh_path, Membership(root.mesh, signed, None))
    return config


def root_of(config: NodeConfig) -> MeshRoot:
    membership = load_membership(config.mesh_path)
    assert membership is not None
    assert membership.root is not None
    return membership.root


def must_hold(config: NodeConfig, identity: Identity) -> Membership:
    membership = load_membership(config.mesh_path)
    assert membership is not None
    verify(membership.certificate, mesh=membership.mesh, peer=identity.peer, now_unix_s=NOW)
    return membership


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


# --- who we are ---------------------------------------------------------------------------------


def test_a_device_that_never_was_a_node_has_no_identity_and_gets_none(tmp_path: Path) -> None:
    config = config_at(tmp_path / "new")
    with pytest.raises(ConfigError, match="no identity yet"):
        own_membership.own(config, NOW)
    assert not config.identity_path.exists()


def test_the_founder_holds_the_root_key_and_a_member_does_not(
    founder: NodeConfig, member: NodeConfig
) -> None:
    ours, theirs = own_membership.own(founder, NOW), own_membership.own(member, NOW)
    assert ours.membership is not None
    assert theirs.membership is not None
    assert (ours.membership.root is None, theirs.membership.root is None) == (False, True)
    assert (ours.roles, theirs.roles) == (ROLES, ("repl",))
    assert ours.problem == theirs.problem == ""


def test_a_certificate_that_ended_or_was_revoked_is_told_as_a_problem(
    founder: NodeConfig, member: NodeConfig
) -> None:
    assert "has ended" in own_membership.own(member, NOW + 400 * DAY_S).problem
    identity = load_or_create_identity(member.identity_path)
    root = root_of(founder)
    book = CertificateBook(identity.peer, root.mesh, lambda: NOW, member.roster_path)
    book.hear_roster(
        Roster(revocations=(revoke(root, identity.peer, epoch=0, now_unix_s=NOW, why=""),))
    )
    assert "revoked" in own_membership.own(member, NOW).problem


# --- leaving ------------------------------------------------------------------------------------


def test_who_leaves_forgets_the_mesh_and_keeps_its_identity(member: NodeConfig) -> None:
    before = load_or_create_identity(member.identity_path)
    for path in (member.invites_path, member.roster_path, member.peers_path):
        path.write_text("[]")
    own_membership.leave(member, force=False)
    left = {path.name for path in member.data_dir.iterdir()}
    assert left == {"identity.key"}
    assert load_or_create_identity(member.identity_path) == before


def test_the_founder_does_not_leave_without_force(founder: NodeConfig) -> None:
    with pytest.raises(ConfigError, match="identity export-root"):
        own_membership.leave(founder, force=False)
    assert founder.mesh_path.exists()
    own_membership.leave(founder, force=True)
    assert not founder.mesh_path.exists()


# --- another key --------------------------------------------------------------------------------


def test_a_founder_with_a_new_key_is_a_member_of_its_mesh_still(founder: NodeConfig) -> None:
    root = root_of(founder)
    rotated = own_membership.rotate(founder, NOW)
    new = load_or_create_identity(founder.identity_path)
    assert (new.peer, new.peer != rotated.old.peer) == (rotated.new.peer, True)
    assert must_hold(founder, new).root == root
    assert not rotated.must_join
    assert load_or_create_identity(rotated.kept_path) == rotated.old


def test_a_member_with_a_new_key_has_to_join_again(member: NodeConfig) -> None:
    member.invites_path.write_text("[]")
    rotated = own_membership.rotate(member, NOW)
    assert rotated.must_join
    assert load_membership(member.mesh_path) is None
    assert not member.invites_path.exists()


def test_each_old_key_is_kept_under_a_name_of_its_own(founder: NodeConfig) -> None:
    kept = [own_membership.rotate(founder, NOW).kept_path for _ in range(3)]
    assert len(set(kept)) == 3
    assert kept[0].name == "identity.key.old-20261118"
    for path in (*kept, founder.identity_path, founder.mesh_path):
        assert mode_of(path) == 0o600


def test_rotating_mends_a_membership_of_another_key(founder: NodeConfig) -> None:
    """As after a crash between the two files."""
    founder.identity_path.unlink()
    load_or_create_identity(founder.identity_path)
    assert own_membership.own(founder, NOW).problem
    own_membership.rotate(founder, NOW)
    assert own_membership.own(founder, NOW).problem == ""


# --- the root key -------------------------------------------------------------------------------


def test_the_root_key_goes_through_a_file_to_another_member(
    tmp_path: Path, founder: NodeConfig, member: NodeConfig
) -> None:
    backup = tmp_path / "root.key"
    own_membership.export_root(founder, backup)
    assert mode_of(backup) == 0o600
    own_membership.import_root(member, backup, NOW)
    membership = must_hold(member, load_or_create_identity(member.identity_path))
    assert membership.root == root_of(founder)
    assert decode_certificate(membership.certificate.frame).roles == ROLES


def test_a_device_that_was_in_no_mesh_recovers_the_mesh_from_the_root_key(
    tmp_path: Path, founder: NodeConfig
) -> None:
    backup = tmp_path / "root.key"
    own_membership.export_root(founder, backup)
    config = config_at(tmp_path / "new")
    own_membership.import_root(config, backup, NOW)
    membership = must_hold(config, load_or_create_identity(config.identity_path))
    assert membership.mesh == root_of(founder).mesh


def test_who_was_revoked_is_above_that_once_it_has_the_root_key(
    tmp_path: Path, founder: NodeConfig, member: NodeConfig
) -> None:
    backup = tmp_path / "root.key"
    root = own_membership.export_root(founder, backup).root
    assert root is not None
    identity = load_or_create_identity(member.identity_path)
    book = CertificateBook(identity.peer, root.mesh, lambda: NOW, member.roster_path)
    book.hear_roster(
        Roster(revocations=(revoke(root, identity.peer, epoch=3, now_unix_s=NOW, why=""),))
    )
    own_membership.import_root(member, backup, NOW)
    assert own_membership.own(member, NOW).problem == ""


def test_a_backup_never_replaces_a_file(tmp_path: Path, founder: NodeConfig) -> None:
    backup = tmp_path / "root.key"
    backup.write_text("my thesis")
    with pytest.raises(ConfigError, match="is there already"):
        own_membership.export_root(founder, backup)
    assert backup.read_text() == "my thesis"


def test_a_member_has_no_root_key_to_give(tmp_path: Path, member: NodeConfig) -> None:
    with pytest.raises(ConfigError, match="not on this device"):
        own_membership.export_root(member, tmp_path / "root.key")
    assert not (tmp_path / "root.key").exists()


def test_the_root_key_of_another_mesh_is_refused(tmp_path: Path, member: NodeConfig) -> None:
    stranger = config_at(tmp_path / "stranger")
    mesh = found_mesh(new_identity().peer, now_unix_s=NOW)
    save_membership(stranger.mesh_path, mesh)
    own_membership.export_root(stranger, tmp_path / "root.key")
    before = load_membership(member.mesh_path)
    with pytest.raises(ConfigError, match=mesh.mesh):
        own_membership.import_root(member, tmp_path / "root.key", NOW)
    assert load_membership(member.mesh_path) == before


@pytest.mark.parametrize(
    "content",
    ["", "my thesis", "kowalski-node mesh root key 1\nabc\n00", "\n\n", "ü\n\n"],
)
def test_a_file_that_holds_no_root_key_is_refused(
    tmp_path: Path, member: NodeConfig, content: str
) -> None:
    file = tmp_path / "root.key"
    file.write_text(content)
    with pytest.raises(ConfigError, match="no root key"):
        own_membership.import_root(member, file, NOW)


def test_a_root_key_whose_mesh_was_edited_is_refused(tmp_path: Path, founder: NodeConfig) -> None:
    file = tmp_path / "root.key"
    mesh = own_membership.export_root(founder, file).mesh
    other = found_mesh(new_identity().peer, now_unix_s=NOW).mesh
    file.write_text(file.read_text().replace(mesh, other))
    with pytest.raises(ConfigError, match="damaged"):
        own_membership.import_root(founder, file, NOW)


# --- while a node runs --------------------------------------------------------------------------


def test_nothing_is_changed_under_a_running_node(founder: NodeConfig) -> None:
    with (
        control.claim_data_dir(founder.data_dir),
        pytest.raises(ConfigError, match="stop it first"),
        own_membership.at_rest(founder.data_dir),
    ):
        pytest.fail("two have claimed it")
