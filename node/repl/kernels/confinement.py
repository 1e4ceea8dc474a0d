# What a forked session gives up before it runs anybody's code, by system calls of Linux. `channel.py`
# and `limiting.py` stand in front, `fork_server.py` behind.
#
# Sources: namespaces(7), user_namespaces(7), mount_namespaces(7), capabilities(7), seccomp(2),
# landlock(7), and the numbers of the kernel's headers. Everything here raises OSError when the kernel
# says no, and whoever calls it then ends the process: nothing runs half confined.

import ctypes
import fcntl
import socket
import struct

LIBC = ctypes.CDLL(None, use_errno=True)

NEW_MOUNTS, NEW_CGROUPS, NEW_UTS, NEW_IPC = 0x00020000, 0x02000000, 0x04000000, 0x08000000
NEW_USERS, NEW_PIDS, NEW_NET = 0x10000000, 0x20000000, 0x40000000
READ_ONLY, NO_SUID, NO_DEV, NO_EXEC, REMOUNT, BIND, RECURSIVE = 1, 2, 4, 8, 32, 4096, 16384
PRIVATE = 1 << 18
DETACH = 2
SET_DEATH_SIGNAL, SET_DUMPABLE, SET_SECCOMP, DROP_BOUND, SET_SUBREAPER = 1, 4, 22, 24, 36
SET_NO_NEW_PRIVILEGES, AMBIENT, AMBIENT_CLEAR_ALL = 38, 47, 4
SECCOMP_FILTER = 2
CAPABILITIES_VERSION = 0x20080522
# What the fork server needs when it is root: kill, set uid and gid, limit itself, mount and unshare.
CAPABILITIES = (5, 6, 7, 8, 21)
# And to bring up the loopback of a network of its own.
NETWORK_ADMIN = 12
SET_INTERFACE_FLAGS, IS_UP = 0x8914, 1
LANDLOCK_CREATE, LANDLOCK_ADD, LANDLOCK_RESTRICT = 444, 445, 446
O_PATH = 0o10000000


def system(name, *arguments):
    """A call of the C library; text becomes a C string, None a null pointer."""
    words = [
        argument.encode() + b"\0" if isinstance(argument, str) else argument
        for argument in arguments
    ]
    values = [ctypes.c_long(word) if isinstance(word, int) else word for word in words]
    function = getattr(LIBC, name)
    function.restype = ctypes.c_long
    result = function(*values)
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{name}: {os.strerror(code)}")
    return result


def mount(source, place, kind=None, flags=0, options=None):
    system("mount", source, place, kind, flags, options)


def become_user(inside, outside):
    """A user namespace of our own, in which we are `inside`, and `outside` for everybody else."""
    system("unshare", NEW_USERS)
    for name, text in (
        ("setgroups", "deny"),
        ("gid_map", f"{inside} {outside[1]} 1"),
        ("uid_map", f"{inside} {outside[0]} 1"),
    ):
        with open(f"/proc/self/{name}", "w") as file:
            file.write(text)


def enter_namespaces(order):
    """Mounts, network, messages and names of our own; the process is the first of its pid namespace.

    Called with the privileges that this takes, in a root that shows `order["scratch"]`.
    """
    system("unshare", NEW_MOUNTS | NEW_IPC | NEW_NET)
    # Nothing mounted here may be seen elsewhere.
    mount(None, "/", None, RECURSIVE | PRIVATE)
    mount("proc", "/proc", "proc", NO_SUID | NO_DEV | NO_EXEC)
    mount("/proc/sys", "/proc/sys", None, BIND)
    mount(None, "/proc/sys", None, BIND | REMOUNT | READ_ONLY | NO_SUID | NO_DEV | NO_EXEC)
    mount("devpts", "/dev/pts", "devpts", NO_SUID | NO_EXEC, "newinstance,ptmxmode=0666,mode=620")
    size = f"size={order['folder_bytes']},nr_inodes={order['inodes']},mode=1777"
    for folder in ("/dev/shm", "/tmp", "/job"):
        mount("tmpfs", folder, "tmpfs", NO_SUID | NO_DEV, size)
    # It is read-only already, and so is what is bound from it.
    mount(f"{order['scratch']}/{order['inputs']}", "/inputs", None, BIND)
    # Other sessions' inputs are in there too.
    system("umount2", order["scratch"], DETACH)


def make_way_out(fd, port):
    """The network of our own gets its loopback and one listener, which goes out by `fd`."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        # struct ifreq: a name, and flags.
        fcntl.ioctl(any_socket, SET_INTERFACE_FLAGS, struct.pack("@16sH22x", b"lo", IS_UP))
    with socket.socket(fileno=fd) as way, socket.create_server(("127.0.0.1", port)) as listener:
        socket.send_fds(way, [b"l"], [listener.fileno()])


def drop_privileges(uid):
    """None: what we are is nobody outside. Else become `uid`, for which nobody else may be used."""
    if uid is None:
        become_user(1000, (0, 0))
    else:
        os.setgroups([])
    system("prctl", AMBIENT, AMBIENT_CLEAR_ALL, 0, 0, 0)
    limit_capabilities(0)
    if uid is not None:
        os.setresgid(uid, uid, uid)
        os.setresuid(uid, uid, uid)
        # The change of user took /proc/self away from us.
        system("prctl", SET_DUMPABLE, 1, 0, 0, 0)
    set_capabilities(0)
    system("prctl", SET_NO_NEW_PRIVILEGES, 1, 0, 0, 0)


def keep_capabilities(numbers):
    """Of those that we have; the rest is gone for good."""
    bits = sum(1 << number for number in numbers)
    limit_capabilities(bits)
    set_capabilities(bits)


def limit_capabilities(bits):
    """What no program started from here can have, whatever its file says."""
    for capability in range(64):
        if not bits >> capability & 1:
            try:
                system("prctl", DROP_BOUND, capability, 0, 0, 0)
            except OSError:
                break  # there are no more


def set_capabilities(bits):
    low, high = bits & 0xFFFFFFFF, bits >> 32
    header = struct.pack("=Ii", CAPABILITIES_VERSION, 0)
    system("capset", header, struct.pack("=IIIIII", low, low, 0, high, high, 0))


def filter_system_calls(program):
    buffer = ctypes.create_string_buffer(program, len(program))
    # struct sock_fprog: how many instructions of 8 bytes, and where.
    header = struct.pack("@HP", len(program) // 8, ctypes.addressof(buffer))
    system("prctl", SET_SECCOMP, SECCOMP_FILTER, header, 0, 0)


def shell_code(status):
    code = os.waitstatus_to_exitcode(status)
    return 128 - code if code < 0 else code


def reap_until(child):
    """Never returns: ends as `child` does, and meanwhile buries what nobody else will."""
    os.closerange(0, 4)
    # It has nothing that a cell could want, and stays out of a cell's reach all the same.
    system("prctl", SET_DUMPABLE, 0, 0, 0, 0)
    while True:
        pid, status = os.waitpid(-1, 0)
        if pid == child:
            os._exit(shell_code(status))


def check_confined():
    """Raises where a privilege is left after all: the last look before somebody else's code."""
    with open("/proc/self/status") as file:
        status = dict(line.rstrip("\n").split(":\t", 1) for line in file if ":\t" in line)
    for field, wanted in (("NoNewPrivs", 1), ("Seccomp", 2), ("CapPrm", 0), ("CapBnd", 0)):
        if int(status[field], 16) != wanted:
            raise PermissionError(f"{field} is {status[field]}")
    if 0 in (*os.getresuid(), *os.getresgid()):
        raise PermissionError("still root")
