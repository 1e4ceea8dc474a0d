"""How a node comes to be a member. Joining itself is tested with admission, and with real nodes."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from kowalski.mesh.identity import load_or_create_identity, new_identity
from kowalski.mesh.membership_certificates import (
    CERTIFICATE_LIFE_S,
    Membership,
    found_mesh,
    save_membership,
)
from kowalski.node.config import NodeConfig, load_config
from kowalski.node.joining import known_membership
from kowalski.protocol.errors import ConfigError
from kowalski.protocol.ids import MeshId
from kowalski.protocol.join_line import JoinLine

NOW = int(time.time())


@pytest.fixture
def config(tmp_path: Path) -> NodeConfig:
    return load_config({"data_dir": tmp_path}, {})[0]


def line(mesh: MeshId, *, ends_in_s: int = 3600) -> JoinLine:
    return JoinLine(
        mesh=mesh,
        inviter=new_identity().peer,
        addresses=(),
        invite=bytes(16),
        secret=bytes(16),
        not_after_unix_s=NOW + ends_in_s,
        roles=("submit",),
    )


def known(config: NodeConfig, joining: JoinLine | None = None) -> Membership | None:
    return known_membership(config, load_or_create_identity(config.identity_path), joining)


def founded(config: NodeConfig, *, now_unix_s: int = NOW) -> Membership:
    identity = load_or_create_identity(config.identity_path)
    membership = found_mesh(identity.peer, now_unix_s=now_unix_s)
    save_membership(config.mesh_path, membership)
    return membership


def test_a_new_node_is_no_member_yet(config: NodeConfig) -> None:
    assert known(config) is None
    assert known(config, line(founded(config).mesh)) is not None


def test_a_line_that_has_expired_is_told_before_anything_takes_time(config: NodeConfig) -> None:
    other = found_mesh(new_identity().peer, now_unix_s=NOW).mesh
    with pytest.raises(ConfigError, match="expired"):
        known(config, line(other, ends_in_s=-1))


def test_a_member_keeps_its_membership_and_is_of_one_mesh(config: NodeConfig) -> None:
    ours = founded(config)
    assert known(config) == ours
    assert known(config, line(ours.mesh)) == ours
    other = found_mesh(new_identity().peer, now_unix_s=NOW).mesh
    with pytest.raises(ConfigError, match="leave it first"):
        known(config, line(other))


def test_a_certificate_that_has_ended_still_counts_here(config: NodeConfig) -> None:
    ours = founded(config, now_unix_s=NOW - CERTIFICATE_LIFE_S - 3600)
    assert known(config) == ours


def test_a_membership_of_somebody_else_is_not_taken_and_the_cure_fits(config: NodeConfig) -> None:
    load_or_create_identity(config.identity_path)
    theirs = found_mesh(new_identity().peer, now_unix_s=NOW)
    save_membership(config.mesh_path, theirs)
    with pytest.raises(ConfigError, match="identity rotate"):
        known(config)
    save_membership(config.mesh_path, Membership(theirs.mesh, theirs.certificate, None))
    with pytest.raises(ConfigError, match="kowalski-node leave"):
        known(config)
