"""The filter is run here by a small interpreter of BPF, its numbers held against headers."""

from __future__ import annotations

import re
import struct
from pathlib import Path

import pytest

from kowalski.node.repl.seccomp import (
    DENIED,
    DENIED_IN_COMPANY,
    ONLY_ONESELF,
    PRETENDED,
    UNSUPPORTED,
    Machine,
    filter_program,
)

ARCH: dict[Machine, int] = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
ALLOW, KILL = 0x7FFF0000, 0x80000000
EPERM, ENOSYS, EAFNOSUPPORT = 0x50001, 0x50026, 0x50061
EOPNOTSUPP, PRETENCE = 0x5005F, 0x50000
HEADERS: dict[Machine, str] = {
    "x86_64": "/usr/include/x86_64-linux-gnu/asm/unistd_64.h",
    "aarch64": "/usr/include/asm-generic/unistd.h",
}


def judge(
    machine: Machine,
    number: int,
    *arguments: int,
    arch: int | None = None,
    in_company: bool = False,
    as_owner: bool = False,
    with_network: bool = False,
) -> int:
    call = struct.pack(
        "=iIQ6Q", number, arch or ARCH[machine], 0, *arguments, *[0] * (6 - len(arguments))
    )
    code = filter_program(
        machine, in_company=in_company, as_owner=as_owner, with_network=with_network
    )
    program = list(struct.iter_unpack("=HBBI", code))
    at, loaded = 0, 0
    while True:
        operation, if_true, if_false, value = program[at]
        at += 1
        match operation:
            case 0x20:
                (loaded,) = struct.unpack_from("=I", call, value)
            case 0x15:
                at += if_true if loaded == value else if_false
            case 0x35:
                at += if_true if loaded >= value else if_false
            case 0x45:
                at += if_true if loaded & value else if_false
            case 0x54:
                loaded &= value
            case 0x06:
                return value
            case _:
                pytest.fail(f"unknown operation {operation:#x}")


def test_everyday_calls_are_allowed() -> None:
    for number in (0, 1, 2, 9, 57, 59, 60, 231, 257):
        assert judge("x86_64", number) == ALLOW
    for number in (56, 63, 64, 93, 221, 222):
        assert judge("aarch64", number) == ALLOW


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_every_call_on_the_list_is_denied(machine: Machine) -> None:
    for numbers in DENIED.values():
        number = numbers[0 if machine == "x86_64" else 1]
        assert number is None or judge(machine, number) == EPERM


def test_only_unix_sockets_can_be_made() -> None:
    for machine, number in (("x86_64", 41), ("aarch64", 198)):
        assert judge(machine, number, 1, 1, 0) == ALLOW
        for family in (0, 2, 10, 16, 17, 40):
            assert judge(machine, number, family, 1, 0) == EAFNOSUPPORT


def test_processes_and_threads_can_be_made_but_no_namespaces() -> None:
    threads, new_user = 0x003D0F00, 0x10000000
    for machine, number in (("x86_64", 56), ("aarch64", 220)):
        assert judge(machine, number, 0x11) == ALLOW
        assert judge(machine, number, threads) == ALLOW
        assert judge(machine, number, new_user | 0x11) == EPERM
        assert judge(machine, 435) == ENOSYS


def test_typing_into_the_terminal_is_denied_and_other_ioctls_are_not() -> None:
    for machine, number in (("x86_64", 16), ("aarch64", 29)):
        assert judge(machine, number, 0, 0x5412) == EPERM
        assert judge(machine, number, 0, 0x541C) == EPERM
        assert judge(machine, number, 0, 0x5401) == ALLOW


def test_the_flags_of_files_are_not_to_be_changed() -> None:
    for machine, number in (("x86_64", 16), ("aarch64", 29)):
        assert judge(machine, number, 0, 0x40086602) == EPERM
        assert judge(machine, number, 0, 0x401C5820) == EPERM


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_in_company_nobody_else_is_in_reach(machine: Machine) -> None:
    column = 0 if machine == "x86_64" else 1
    for numbers in DENIED_IN_COMPANY.values():
        number = numbers[column]
        if number is not None:
            assert judge(machine, number, in_company=True) == EPERM
            assert judge(machine, number) == ALLOW
    for numbers in ONLY_ONESELF.values():
        number = numbers[column]
        assert number is not None
        assert judge(machine, number, 0, in_company=True) == ALLOW
        assert judge(machine, number, 4711, in_company=True) == EPERM


def test_with_a_network_sockets_of_ip_can_be_made_and_no_others() -> None:
    for machine, number in (("x86_64", 41), ("aarch64", 198)):
        for family in (1, 2, 10):
            assert judge(machine, number, family, with_network=True) == ALLOW
        for family in (0, 3, 16, 17, 38, 40):
            assert judge(machine, number, family, with_network=True) == EAFNOSUPPORT


def test_in_company_only_connected_pairs_of_sockets_can_be_made() -> None:
    for machine, socket, pair in (("x86_64", 41, 53), ("aarch64", 198, 199)):
        assert judge(machine, socket, 1, 1, in_company=True) == EAFNOSUPPORT
        for kind, verdict in ((1, ALLOW), (0x80801, ALLOW), (5, ALLOW), (2, None), (3, None)):
            found = judge(machine, pair, 1, kind, in_company=True)
            assert found == (verdict or EAFNOSUPPORT)
        assert judge(machine, pair, 1, 2) == ALLOW


def test_in_company_a_process_can_only_give_way_itself() -> None:
    for machine, priority, disk in (("x86_64", 141, 251), ("aarch64", 140, 30)):
        for number, process in ((priority, 0), (disk, 1)):
            assert judge(machine, number, process, 0, in_company=True) == ALLOW
            assert judge(machine, number, process, 4711, in_company=True) == EPERM
            assert judge(machine, number, process + 2, 0, in_company=True) == EPERM


def test_the_owners_files_keep_their_modes_owners_times_and_attributes() -> None:
    for column, machine in enumerate(ARCH):
        for numbers in PRETENDED.values():
            if (number := numbers[column]) is not None:
                assert judge(machine, number, as_owner=True) == PRETENCE
                assert judge(machine, number) == ALLOW
        for numbers in UNSUPPORTED.values():
            if (number := numbers[column]) is not None:
                assert judge(machine, number, as_owner=True) == EOPNOTSUPP


def test_only_the_plain_personality_can_be_had() -> None:
    for machine, number in (("x86_64", 135), ("aarch64", 92)):
        assert judge(machine, number, 0) == ALLOW
        assert judge(machine, number, 0xFFFFFFFF) == ALLOW
        assert judge(machine, number, 0x0040000) == EPERM


def test_what_nobody_reviewed_does_not_exist() -> None:
    assert judge("x86_64", 470) == ENOSYS
    assert judge("aarch64", 1000) == ENOSYS
    assert judge("x86_64", 0x40000000 | 1) == ENOSYS


def test_another_architectures_calls_kill() -> None:
    assert judge("x86_64", 1, arch=0x40000003) == KILL
    assert judge("aarch64", 1, arch=ARCH["x86_64"]) == KILL


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_the_numbers_are_those_of_the_kernels_headers(machine: Machine) -> None:
    header = Path(HEADERS[machine])
    if not header.exists():
        pytest.skip(f"no {header} here")
    found = re.findall(r"#define __NR(?:3264)?_(\w+)\s+(\d+)", header.read_text())
    known = {name: int(number) for name, number in found}
    column = 0 if machine == "x86_64" else 1
    compared = 0
    lists = {**DENIED, **DENIED_IN_COMPANY, **ONLY_ONESELF, **PRETENDED, **UNSUPPORTED}
    for name, numbers in lists.items():
        if name in known:
            assert numbers[column] == known[name], name
            compared += 1
    assert compared > 75
