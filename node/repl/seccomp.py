"""A seccomp filter as BPF, for bubblewrap's `--seccomp` or prctl(2): deny what no cell needs.

Numbers are those of the kernel's headers (asm/unistd_64.h; asm-generic/unistd.h for aarch64),
the instruction format that of linux/bpf_common.h and seccomp(2). Pure: bytes out, nothing applied.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal

Machine = Literal["x86_64", "aarch64"]

_AUDIT_ARCH: Mapping[str, int] = MappingProxyType({"x86_64": 0xC000003E, "aarch64": 0xC00000B7})

# Above this number nobody has looked: answered as a kernel that has never heard of it.
_REVIEWED_BELOW = 470
_X32_BIT = 0x40000000

_LOAD, _JUMP_EQUAL, _JUMP_AT_LEAST, _JUMP_ANY_BIT, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_AND = 0x54
_AT_NUMBER, _AT_ARCH, _AT_FIRST_ARGUMENT, _AT_SECOND_ARGUMENT = 0, 4, 16, 24
_KILL, _ALLOW, _ERRNO = 0x80000000, 0x7FFF0000, 0x00050000
_EPERM, _ENOSYS, _EOPNOTSUPP, _EAFNOSUPPORT = 1, 38, 95, 97

_AF_UNIX, _AF_INET, _AF_INET6 = 1, 2, 10
_CLONE_NEW_ANY = 0x7E020000
_TIOCSTI, _TIOCLINUX = 0x5412, 0x541C
_SET_FLAGS, _SET_ATTRIBUTES = 0x40086602, 0x401C5820
_SOCKET_KIND_MASK, _SOCK_STREAM, _SOCK_SEQPACKET = 0xF, 1, 5
_PERSONALITIES = (0, 0xFFFFFFFF)

# name: (x86_64, aarch64); None where the machine has no such call.
Numbers = Mapping[str, tuple[int | None, int | None]]

DENIED: Numbers = MappingProxyType(
    {
        # Looking into, or acting through, other processes.
        "ptrace": (101, 117),
        "process_vm_readv": (310, 270),
        "process_vm_writev": (311, 271),
        "process_madvise": (440, 440),
        "kcmp": (312, 272),
        "pidfd_getfd": (438, 438),
        # Another view of the file system, or another namespace.
        "mount": (165, 40),
        "umount2": (166, 39),
        "pivot_root": (155, 41),
        "chroot": (161, 51),
        "move_mount": (429, 429),
        "open_tree": (428, 428),
        "open_tree_attr": (467, 467),
        "fsopen": (430, 430),
        "fsconfig": (431, 431),
        "fsmount": (432, 432),
        "fspick": (433, 433),
        "mount_setattr": (442, 442),
        "unshare": (272, 97),
        "setns": (308, 268),
        "open_by_handle_at": (304, 265),
        "name_to_handle_at": (303, 264),
        "fanotify_init": (300, 262),
        # Wide doors into the kernel.
        "keyctl": (250, 219),
        "add_key": (248, 217),
        "request_key": (249, 218),
        "bpf": (321, 280),
        "perf_event_open": (298, 241),
        "userfaultfd": (323, 282),
        "io_uring_setup": (425, 425),
        "io_uring_enter": (426, 426),
        "io_uring_register": (427, 427),
        "vmsplice": (278, 75),
        "lsm_set_self_attr": (460, 460),
        # Only for who runs the machine.
        "kexec_load": (246, 104),
        "kexec_file_load": (320, 294),
        "init_module": (175, 105),
        "finit_module": (313, 273),
        "delete_module": (176, 106),
        "swapon": (167, 224),
        "swapoff": (168, 225),
        "reboot": (169, 142),
        "acct": (163, 89),
        "quotactl": (179, 60),
        "quotactl_fd": (443, 443),
        "clock_settime": (227, 112),
        "clock_adjtime": (305, 266),
        "settimeofday": (164, 170),
        "adjtimex": (159, 171),
        "syslog": (103, 116),
        "vhangup": (153, 58),
        "sethostname": (170, 161),
        "setdomainname": (171, 162),
        "iopl": (172, None),
        "ioperm": (173, None),
        "modify_ldt": (154, None),
        # Memory placement, and memory that neither RLIMIT_DATA nor a sum of resident pages sees.
        "migrate_pages": (256, 238),
        "move_pages": (279, 239),
        "mbind": (237, 235),
        "set_mempolicy": (238, 237),
        "set_mempolicy_home_node": (450, 450),
        "memfd_create": (319, 279),
        "memfd_secret": (447, 447),
        "shmget": (29, 194),
        "msgget": (68, 186),
        "semget": (64, 190),
    }
)

DENIED_IN_COMPANY: Numbers = MappingProxyType(
    {
        # Out of the process group by which a session is killed.
        "setsid": (112, 157),
        "setpgid": (109, 154),
        # To others on the machine, by a name that no Landlock rule covers.
        "bind": (49, 200),
        "connect": (42, 203),
        "mq_open": (240, 180),
        "mq_unlink": (241, 181),
        "inotify_init": (253, None),
        "inotify_init1": (294, 26),
        "inotify_add_watch": (254, 27),
    }
)
"""Where a session shares processes and names with its host."""

ONLY_ONESELF: Numbers = MappingProxyType(
    {
        "prlimit64": (302, 261),
        "sched_setaffinity": (203, 122),
        "sched_setscheduler": (144, 119),
        "sched_setparam": (142, 118),
        "sched_setattr": (314, 274),
    }
)
"""Where processes of the same user are in reach: allowed for process 0, the caller."""

PRETENDED: Numbers = MappingProxyType(
    {
        "chmod": (90, None),
        "fchmod": (91, 52),
        "fchmodat": (268, 53),
        "fchmodat2": (452, 452),
        "chown": (92, None),
        "lchown": (94, None),
        "fchown": (93, 55),
        "fchownat": (260, 54),
        "utime": (132, None),
        "utimes": (235, None),
        "futimesat": (261, None),
        "utimensat": (280, 88),
    }
)
"""Where the owner's files are the session's for the kernel: Landlock does not cover these calls.

They do nothing and say that they did, because copying and unpacking would fail otherwise.
"""

UNSUPPORTED: Numbers = MappingProxyType(
    {
        "setxattr": (188, 5),
        "lsetxattr": (189, 6),
        "fsetxattr": (190, 7),
        "setxattrat": (463, 463),
        "removexattr": (197, 14),
        "lremovexattr": (198, 15),
        "fremovexattr": (199, 16),
        "removexattrat": (466, 466),
        "file_setattr": (469, 469),
    }
)
"""The same, answered as by a file system without them."""

_CLONE: Mapping[str, int] = MappingProxyType({"x86_64": 56, "aarch64": 220})
_SOCKET: Mapping[str, int] = MappingProxyType({"x86_64": 41, "aarch64": 198})
_IOCTL: Mapping[str, int] = MappingProxyType({"x86_64": 16, "aarch64": 29})
_PERSONALITY: Mapping[str, int] = MappingProxyType({"x86_64": 135, "aarch64": 92})
_SOCKETPAIR: Mapping[str, int] = MappingProxyType({"x86_64": 53, "aarch64": 199})
_SETPRIORITY: Mapping[str, int] = MappingProxyType({"x86_64": 141, "aarch64": 140})
_IOPRIO_SET: Mapping[str, int] = MappingProxyType({"x86_64": 251, "aarch64": 30})
_CLONE3 = 435


def filter_program(
    machine: Machine,
    *,
    in_company: bool = False,
    as_owner: bool = False,
    with_network: bool = False,
) -> bytes:
    """The program for `machine`, ready for `--seccomp`.

    Sockets: AF_UNIX only (a network namespace does not cover AF_VSOCK). `clone3` is answered with
    ENOSYS because its flags are behind a pointer; the C library then falls back to `clone`.

    `in_company`: there are no namespaces, so that processes, sockets and queues of the host are in
    reach. `as_owner`: the session has the uid of the node's owner, and the owner's files with it.
    `with_network`: sockets of IP too, for sessions whose network has nothing in it but a proxy.
    """
    column = 0 if machine == "x86_64" else 1
    program = [
        *_load(_AT_ARCH),
        _jump(_JUMP_EQUAL, _AUDIT_ARCH[machine], 1, 0),
        _return(_KILL),
        *_load(_AT_NUMBER),
    ]
    if machine == "x86_64":
        program += [_jump(_JUMP_AT_LEAST, _X32_BIT, 0, 1), _return(_ERRNO | _ENOSYS)]
    program += [_jump(_JUMP_AT_LEAST, _REVIEWED_BELOW, 0, 1), _return(_ERRNO | _ENOSYS)]
    program += [_jump(_JUMP_EQUAL, _CLONE3, 0, 1), _return(_ERRNO | _ENOSYS)]
    program += _answer(DENIED, column, _EPERM)
    if in_company:
        program += _answer(DENIED_IN_COMPANY, column, _EPERM)
        program += _in_company(machine, column)
    else:
        program += _when(
            _SOCKET[machine],
            *_load(_AT_FIRST_ARGUMENT),
            *_one_of(_AF_UNIX, *((_AF_INET, _AF_INET6) if with_network else ())),
            _return(_ERRNO | _EAFNOSUPPORT),
            _return(_ALLOW),
        )
    if as_owner:
        program += _answer(PRETENDED, column, 0)
        program += _answer(UNSUPPORTED, column, _EOPNOTSUPP)
    program += _when(
        _CLONE[machine],
        *_load(_AT_FIRST_ARGUMENT),
        _jump(_JUMP_ANY_BIT, _CLONE_NEW_ANY, 0, 1),
        _return(_ERRNO | _EPERM),
        _return(_ALLOW),
    )
    program += _when(
        _IOCTL[machine],
        *_load(_AT_SECOND_ARGUMENT),
        _jump(_JUMP_EQUAL, _TIOCSTI, 3, 0),
        _jump(_JUMP_EQUAL, _TIOCLINUX, 2, 0),
        _jump(_JUMP_EQUAL, _SET_FLAGS, 1, 0),
        _jump(_JUMP_EQUAL, _SET_ATTRIBUTES, 0, 1),
        _return(_ERRNO | _EPERM),
        _return(_ALLOW),
    )
    program += _when(
        _PERSONALITY[machine],
        *_load(_AT_FIRST_ARGUMENT),
        _jump(_JUMP_EQUAL, _PERSONALITIES[0], 2, 0),
        _jump(_JUMP_EQUAL, _PERSONALITIES[1], 1, 0),
        _return(_ERRNO | _EPERM),
        _return(_ALLOW),
    )
    program.append(_return(_ALLOW))
    return b"".join(program)


def _answer(calls: Numbers, column: int, errno: int) -> list[bytes]:
    program: list[bytes] = []
    for numbers in calls.values():
        number = numbers[column]
        if number is not None:
            program += [_jump(_JUMP_EQUAL, number, 0, 1), _return(_ERRNO | errno)]
    return program


def _in_company(machine: Machine, column: int) -> list[bytes]:
    # A stream pair is connected for good. A datagram pair could be connected anew, to any socket
    # that has a name (unix(7)).
    program = [
        _jump(_JUMP_EQUAL, _SOCKET[machine], 0, 1),
        _return(_ERRNO | _EAFNOSUPPORT),
        *_when(
            _SOCKETPAIR[machine],
            *_load(_AT_SECOND_ARGUMENT),
            struct.pack("=HBBI", _AND, 0, 0, _SOCKET_KIND_MASK),
            _jump(_JUMP_EQUAL, _SOCK_STREAM, 2, 0),
            _jump(_JUMP_EQUAL, _SOCK_SEQPACKET, 1, 0),
            _return(_ERRNO | _EAFNOSUPPORT),
            _return(_ALLOW),
        ),
    ]
    for numbers in ONLY_ONESELF.values():
        number = numbers[column]
        assert number is not None, "both machines have these"
        program += _when(
            number,
            *_load(_AT_FIRST_ARGUMENT),
            _jump(_JUMP_EQUAL, 0, 1, 0),
            _return(_ERRNO | _EPERM),
            _return(_ALLOW),
        )
    # Which (a process, a group, a user), and who: 0 is the caller, or all of the caller's.
    for number, process in ((_SETPRIORITY[machine], 0), (_IOPRIO_SET[machine], 1)):
        program += _when(
            number,
            *_load(_AT_FIRST_ARGUMENT),
            _jump(_JUMP_EQUAL, process, 0, 2),
            *_load(_AT_SECOND_ARGUMENT),
            _jump(_JUMP_EQUAL, 0, 1, 0),
            _return(_ERRNO | _EPERM),
            _return(_ALLOW),
        )
    return program


def _when(number: int, *body: bytes) -> list[bytes]:
    """`body`, which must return on every way, for one system call."""
    return [_jump(_JUMP_EQUAL, number, 0, len(body)), *body]


def _one_of(*values: int) -> list[bytes]:
    """Past the next instruction for each of `values`."""
    return [_jump(_JUMP_EQUAL, value, left, 0) for left, value in _countdown(values)]


def _countdown(values: tuple[int, ...]) -> list[tuple[int, int]]:
    return [(len(values) - at, value) for at, value in enumerate(values)]


def _load(offset: int) -> tuple[bytes]:
    return (struct.pack("=HBBI", _LOAD, 0, 0, offset),)


def _jump(operation: int, value: int, if_true: int, if_false: int) -> bytes:
    return struct.pack("=HBBI", operation, if_true, if_false, value)


def _return(action: int) -> bytes:
    return struct.pack("=HBBI", _RETURN, 0, 0, action)
