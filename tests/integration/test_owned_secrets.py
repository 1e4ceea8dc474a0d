"""What must never leave its file: keys, invites, join lines. And who may read those files."""

from __future__ import annotations

import json
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from kowalski.mesh.identity import load_or_create_identity
from kowalski.node import places
from kowalski.protocol import join_line
from tests.integration.cluster import START_S, Cluster, open_cluster

pytestmark = pytest.mark.real

OPTIONS = ("--no-mdns", "--no-repl", "--log-level", "debug")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Two nodes at their most talkative; one has joined the other, a third was put out."""
    with open_cluster(tmp_path_factory.mktemp("secrets")) as cluster:
        home = cluster.start("home", *OPTIONS, "--log-format", "json")
        home.wait_until_up(START_S)
        line = home.invite(uses=1)
        (cluster.folder / "line").write_text(line)
        cluster.start("guest", *OPTIONS, "--join", line)
        cluster.wait_until_met(START_S)
        where = ("--data-dir", str(cluster.folder / "thief"))
        joined = cluster.cli(None, "join", home.invite(uses=2), *where)
        assert joined.exit_code == 0, joined.stderr
        refused = cluster.cli(None, "join", line, "--data-dir", str(cluster.folder / "late"))
        assert "ask for a new one" in refused.stderr
        yield cluster


def secrets_of(cluster: Cluster) -> dict[str, str]:
    """Each secret in each form in which it could be written, by what it is."""
    raw: dict[str, bytes] = {}
    for name in ("home", "guest", "thief", "late"):
        folder = cluster.folder / name
        key = load_or_create_identity(folder / "identity.key").private_key_bytes
        raw[f"identity key of {name}"] = key
    home = cluster.folder / "home"
    root = json.loads((home / "mesh.json").read_text())["root_private_key"]
    raw["root key"] = bytes.fromhex(root)
    for number, invite in enumerate(json.loads((home / "invites.json").read_text())):
        raw[f"secret of invite {number}"] = bytes.fromhex(invite["secret"])
    line = (cluster.folder / "line").read_text()
    raw["secret of the line"] = join_line.parse(line).secret
    found = {"join line": line}
    for what, secret in raw.items():
        # Python's way to show bytes is how a careless log line would.
        found |= {what: secret.hex(), f"{what} as bytes": repr(secret)[2:-1]}
    return found


def outputs_of(cluster: Cluster) -> Iterator[tuple[str, str]]:
    for name in ("home", "guest"):
        node = cluster.named(name)
        yield f"log of {name}", (node.data_dir / "node.log").read_text()
        for command in (["status"], ["peers"], ["doctor"]):
            for form in ([], ["--json"]):
                yield f"{command} of {name}", cluster.cli(node, *command, *form).stdout
        where = ("--data-dir", str(node.data_dir))
        for form in ([], ["--json"]):
            yield "config", cluster.cli(None, "config", "show", *form, *where).stdout
            yield "identity", cluster.cli(None, "identity", "show", *form, *where).stdout


def test_no_secret_is_in_any_log_or_any_answer(cluster: Cluster) -> None:
    secrets = secrets_of(cluster)
    assert len(secrets) >= 14
    for where, text in outputs_of(cluster):
        assert len(text) > 50, where
        for what, secret in secrets.items():
            assert secret not in text, f"{what} in {where}"


def test_telemetry_of_the_other_node_holds_no_secret(cluster: Cluster) -> None:
    """What `guest` has heard of `home`, to the last field."""
    heard = json.dumps(cluster.named("guest").ask("peers"))
    assert cluster.named("home").peer in heard
    assert not [what for what, secret in secrets_of(cluster).items() if secret in heard]


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_only_the_owner_reads_what_a_node_keeps_of_trust(cluster: Cluster) -> None:
    home = cluster.named("home")
    thief = load_or_create_identity(cluster.folder / "thief" / "identity.key").peer
    assert cluster.cli(home, "revoke", thief).exit_code == 0
    assert mode_of(home.data_dir) == 0o700
    for name in ("identity.key", "mesh.json", "invites.json", "roster.json", "node.lock"):
        assert mode_of(home.data_dir / name) == 0o600, name
    control = places.control_path(home.data_dir)
    assert mode_of(control) == 0o600
    assert mode_of(control.parent) == 0o700


def test_an_open_umask_opens_nothing(cluster: Cluster) -> None:
    careless = cluster.start(
        "careless",
        *OPTIONS,
        *("--p2p-port", "0", "--listen-host", "127.0.0.1"),
        prefix=["sh", "-c", 'umask 000; exec "$@"', "sh"],
    )
    careless.wait_until_up(START_S)
    careless.invite(uses=1)
    for name in ("identity.key", "mesh.json", "invites.json", "node.lock"):
        assert mode_of(careless.data_dir / name) == 0o600, name
    control = places.control_path(careless.data_dir)
    assert (mode_of(control), mode_of(control.parent)) == (0o600, 0o700)
