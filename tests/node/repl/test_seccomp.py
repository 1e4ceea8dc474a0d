"""The filter is run here by a small interpreter of BPF, its numbers held against headers."""

from __future__ import annotations

import re
import struct
from pathlib import Path

import pytest

from kowalski.node.repl.seccomp import DENIED, Machine, filter_program

ARCH: dict[Machine, int] = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
ALLOW, KILL = 0x7FFF0000, 0x80000000
EPERM, ENOSYS, EAFNOSUPPORT = 0x50001, 0x50026, 0x50061
HEADERS: dict[Machine, str] = {
    "x86_64": "/usr/include/x86_64-linux-gnu/asm/unistd_64.h",
    "aarch64": "/usr/include/asm-generic/unistd.h",
}


def judge(machine: Machine, number: int, *arguments: int, arch: int | None = None) -> int:
    call = struct.pack(
        "=iIQ6Q", number, arch or ARCH[machine], 0, *arguments, *[0] * (6 - len(arguments))
    )
    program = list(struct.iter_unpack("=HBBI", filter_program(machine)))
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
    for name, numbers in DENIED.items():
        if name in known:
            assert numbers[column] == known[name], name
            compared += 1
    assert compared > 50
