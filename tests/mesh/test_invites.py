import json
import stat
from pathlib import Path

import pytest

from kowalski.mesh.invites import INVITES_MAX, InviteBook
from kowalski.protocol.errors import ConfigError


class WallClock:
    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> WallClock:
    return WallClock()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "invites.json"


def test_an_invite_is_found_until_it_is_spent(path: Path, clock: WallClock) -> None:
    book = InviteBook(path, clock)
    invite = book.issue(("submit", "repl"), ttl_s=60, uses=2)
    assert book.find(invite.id) == invite
    book.spend(invite.id)
    left = book.find(invite.id)
    assert left is not None
    assert left.uses_left == 1
    book.spend(invite.id)
    assert book.find(invite.id) is None


def test_an_invite_ends_with_its_time(path: Path, clock: WallClock) -> None:
    book = InviteBook(path, clock)
    invite = book.issue(("submit",), ttl_s=60, uses=1)
    clock.now += 60
    assert book.find(invite.id) is not None
    clock.now += 1
    assert book.find(invite.id) is None


def test_an_unknown_invite_is_not_found(path: Path, clock: WallClock) -> None:
    assert InviteBook(path, clock).find("00" * 16) is None


def test_invites_and_what_was_spent_survive_a_restart(path: Path, clock: WallClock) -> None:
    book = InviteBook(path, clock)
    kept = book.issue(("repl", "infer"), ttl_s=60, uses=3)
    spent = book.issue(("submit",), ttl_s=60, uses=1)
    book.spend(kept.id)
    book.spend(spent.id)
    again = InviteBook(path, clock)
    assert again.find(spent.id) is None
    found = again.find(kept.id)
    assert found is not None
    assert (found.uses_left, found.secret, found.roles) == (2, kept.secret, ("repl", "infer"))


def test_secrets_are_new_each_time_and_for_nobody_else_to_read(
    path: Path, clock: WallClock
) -> None:
    book = InviteBook(path, clock)
    one, two = (book.issue(("submit",), ttl_s=60, uses=1) for _ in range(2))
    assert len({one.secret, two.secret, one.id, two.id}) == 4
    assert len(bytes.fromhex(one.secret)) == len(bytes.fromhex(one.id)) == 16
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert one.secret not in repr(one)


def test_only_so_many_are_open_and_expired_ones_make_room(path: Path, clock: WallClock) -> None:
    book = InviteBook(path, clock)
    for _ in range(INVITES_MAX):
        book.issue(("submit",), ttl_s=60, uses=1)
    with pytest.raises(ConfigError, match="100 invites are open"):
        book.issue(("submit",), ttl_s=60, uses=1)
    clock.now += 61
    book.issue(("submit",), ttl_s=60, uses=1)
    assert len(json.loads(path.read_bytes())) == 1


def test_an_invite_that_cannot_be_written_is_neither_given_nor_spent(
    path: Path, clock: WallClock
) -> None:
    book = InviteBook(path, clock)
    invite = book.issue(("submit",), ttl_s=60, uses=1)
    path.unlink()
    path.mkdir()
    with pytest.raises(ConfigError):
        book.issue(("submit",), ttl_s=60, uses=1)
    with pytest.raises(ConfigError):
        book.spend(invite.id)
    assert book.find(invite.id) == invite


GOOD = {
    "id": "aa",
    "secret": "bb",
    "roles": ["submit"],
    "not_after_unix_s": 2_000_000,
    "uses_left": 1,
}


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{}}",
        "5",
        '["x"]',
        json.dumps([{**GOOD, "secret": "not hex"}]),
        json.dumps([{**GOOD, "uses_left": "many"}]),
        json.dumps([{**GOOD, "roles": None}]),
        json.dumps([{"id": "aa"}]),
    ],
)
def test_a_damaged_file_is_the_owners_to_look_at(
    path: Path, clock: WallClock, content: str
) -> None:
    path.write_text(content)
    with pytest.raises(ConfigError, match="damaged"):
        InviteBook(path, clock)


def test_roles_that_this_version_does_not_know_are_left_out(path: Path, clock: WallClock) -> None:
    path.write_text(json.dumps([{**GOOD, "roles": ["fly", "submit"]}]))
    found = InviteBook(path, clock).find("aa")
    assert found is not None
    assert found.roles == ("submit",)
