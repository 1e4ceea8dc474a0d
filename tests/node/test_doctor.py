"""What the doctor finds, and the cure it names. All traffic stays on loopback."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import trio

from kowalski.node import doctor
from kowalski.node.backends.probing import Finding
from kowalski.node.core.checks import Check
from kowalski.node.doctor import BackendFound, Interface, SandboxFound
from kowalski.node.repl.sandbox import WORKS, SandboxVerdict
from kowalski.node.repl.unsandboxed import Unsandboxed
from tests.tiny_gguf import make_tiny_gguf

LOOPBACK = (Interface("lo", ("127.0.0.1",)),)
LAN = Interface("eth0", ("192.168.1.7",))


def verdicts(checks: tuple[Check, ...]) -> dict[str, str]:
    return {check.name: check.verdict for check in checks}


@pytest.mark.trio
async def test_a_machine_without_a_node_is_examined_as_far_as_it_goes(tmp_path: Path) -> None:
    checks = await doctor.examine(
        data_dir=tmp_path, p2p_port=0, is_node_running=False, interfaces=LOOPBACK
    )
    found = verdicts(checks)
    assert {"platform", "data directory", "clock", "multicast", "p2p port"} <= set(found)
    assert "fail" not in found.values()
    assert "sandbox" not in found
    assert all(check.cure for check in checks if check.verdict != "ok")


@pytest.mark.trio
async def test_multicast_comes_back_on_loopback() -> None:
    (check,) = await doctor.check_multicast(LOOPBACK, timeout_s=2.0)
    assert check == Check("multicast", "ok", "sent and received by 127.0.0.1")


@pytest.mark.trio
async def test_multicast_by_an_address_that_is_not_ours_is_a_warning() -> None:
    (check,) = await doctor.check_multicast((Interface("x", ("192.0.2.1",)),), timeout_s=0.1)
    assert check.verdict == "warn"
    assert "192.0.2.1" in check.found


@pytest.mark.trio
async def test_a_running_node_must_answer_at_its_port() -> None:
    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    port = listener.socket.getsockname()[1]
    async with listener:
        up = await doctor.check_port("127.0.0.1", port, is_node_running=True, timeout_s=2)
        taken = await doctor.check_port("127.0.0.1", port, is_node_running=False, timeout_s=2)
    down = await doctor.check_port("127.0.0.1", port, is_node_running=True, timeout_s=2)
    free = await doctor.check_port("127.0.0.1", port, is_node_running=False, timeout_s=2)
    assert [check.verdict for check in (up, taken, down, free)] == ["ok", "fail", "fail", "ok"]
    assert "--p2p-port" in taken.cure


def test_a_vpn_is_pointed_out_and_no_lan() -> None:
    checks = doctor.check_interfaces((*LOOPBACK, LAN, Interface("wg0", ("10.0.0.2",))))
    assert [(check.name, check.verdict) for check in checks] == [
        ("interfaces", "ok"),
        ("vpn", "warn"),
    ]
    assert checks[0].found == "eth0 192.168.1.7"
    (check,) = doctor.check_interfaces((*LOOPBACK, Interface("docker0", ("172.17.0.1",))))
    assert (check.name, check.verdict) == ("interfaces", "warn")


def test_addresses_of_ipv6_are_shown_beside_those_of_ipv4() -> None:
    both = Interface("eth0", ("192.168.1.7",), ("fd00::7", "fe80::7"))
    local = Interface("eth1", (), ("fe80::8",))
    (check,) = doctor.check_interfaces((both, local))
    assert (check.verdict, check.found) == ("ok", "eth0 192.168.1.7 fd00::7, eth1 fe80::8")


def test_a_clock_that_was_never_set_fails_and_one_behind_our_files_warns(tmp_path: Path) -> None:
    assert doctor.check_clock(tmp_path, 1000.0).verdict == "fail"
    now = float(doctor.EARLIEST_UNIX_S + 10_000)
    (tmp_path / "identity.key").write_text("")
    os.utime(tmp_path / "identity.key", (now, now))
    assert doctor.check_clock(tmp_path, now - 299).verdict == "ok"
    assert doctor.check_clock(tmp_path, now - 301).verdict == "warn"


def test_the_data_directory_need_not_exist_but_its_parent_must_be_writable(tmp_path: Path) -> None:
    assert doctor.check_data_dir(tmp_path / "a" / "b").verdict == "ok"
    (tmp_path / "file").write_text("")
    assert doctor.check_data_dir(tmp_path / "file" / "b").verdict == "fail"


def test_a_data_directory_that_others_may_write_is_a_warning(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    assert doctor.check_data_dir(tmp_path).verdict == "warn"


def test_without_a_sandbox_the_cure_is_named() -> None:
    missing = doctor.check_sandbox(SandboxFound(None, "bwrap is not installed"))
    assert missing.verdict == "warn"
    assert "bwrap" in missing.found
    assert doctor.check_sandbox(SandboxFound("bubblewrap", "works")).verdict == "ok"
    assert doctor.check_sandbox(SandboxFound("none", "not contained")).verdict == "warn"
    assert doctor.check_sandbox(SandboxFound(None, "", is_offered=False)).verdict == "ok"


def test_what_the_rooms_found_is_taken_over() -> None:
    verdict = SandboxVerdict(None, "none", "bwrap is not installed")
    assert doctor.sandbox_found(verdict, is_offered=True).tier is None
    findings = [
        Finding("http://usual", is_explicit=False, why_not="refused"),
        Finding("http://named", is_explicit=True, why_not="refused"),
    ]
    (backend,) = doctor.backends_found(findings)
    assert (backend.url, backend.problem) == ("http://named", "refused")


def test_a_sandbox_that_is_second_best_says_why_it_is_no_better() -> None:
    details = {"bubblewrap": "bubblewrap is not installed", "landlock": WORKS}
    verdict = SandboxVerdict(Unsandboxed("python"), "landlock", "landlock: contained", details)
    found = doctor.sandbox_found(verdict, is_offered=True)
    told = "landlock: contained; better ones are not to be had: bubblewrap is not installed"
    assert doctor.check_sandbox(found) == Check("sandbox", "ok", told)


def test_model_servers_are_listed_and_none_is_fine() -> None:
    checks = doctor.check_backends(
        [BackendFound("http://a", "ollama", 3), BackendFound("http://b", "", problem="refused")]
    )
    assert [check.verdict for check in checks] == ["ok", "warn"]
    assert [check.verdict for check in doctor.check_backends([])] == ["ok"]


def test_a_model_file_is_looked_into(tmp_path: Path) -> None:
    path = tmp_path / "tiny.gguf"
    make_tiny_gguf(path)
    (check,) = doctor.check_backends([doctor.file_found(path, served_by="json")])
    assert check.verdict == "ok"
    assert check.found.startswith("llama.cpp, llama of 0.0 GiB, at ")
    (check,) = doctor.check_backends([doctor.file_found(path, served_by="not_installed")])
    assert (check.verdict, "kowalski-node[llama]" in check.found) == ("warn", True)


@pytest.mark.trio
async def test_a_blocked_event_loop_is_seen() -> None:
    assert (await doctor.check_event_loop(naps=1, nap_s=-0.6)).verdict == "fail"
    assert (await doctor.check_event_loop(naps=1, nap_s=-0.1)).verdict == "warn"


def test_the_interfaces_of_this_machine_have_a_loopback() -> None:
    assert any("127.0.0.1" in each.addresses for each in doctor.local_interfaces())


DAY_S = 24 * 3600.0


@pytest.mark.parametrize(
    ("ends_in_s", "is_revoked", "verdict", "found"),
    [
        (100 * DAY_S, False, "ok", "ends in 100 days"),
        (14 * DAY_S, False, "ok", "14 days"),
        (14 * DAY_S - 1, False, "warn", "14 days"),
        (-3 * DAY_S, False, "warn", "ended 3 days ago"),
        (100 * DAY_S, True, "fail", "revoked"),
    ],
)
def test_a_membership_that_ends_is_warned_of_in_time(
    ends_in_s: float, is_revoked: bool, verdict: str, found: str
) -> None:
    (check,) = doctor.check_membership(ends_in_s, is_revoked=is_revoked, warnings=())
    assert check.verdict == verdict
    assert found in check.found
    assert bool(check.cure) == (verdict != "ok")


def test_what_the_mesh_warns_of_is_warned_of() -> None:
    checks = doctor.check_membership(DAY_S, is_revoked=False, warnings=["two machines use it"])
    assert checks[-1] == Check("identity", "warn", "two machines use it")
