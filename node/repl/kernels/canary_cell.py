# A cell that tries to get out. `NONCE` and `BAIT` stand in front. Prints the nonce, then one line for
# each thing that it could do and should not.

import ctypes
import json
import os
import socket
import sys

bait = json.loads(BAIT)
libc = ctypes.CDLL(None, use_errno=True)
found = []


def must_fail(what, attempt):
    try:
        attempt()
    except (OSError, ValueError, AttributeError):
        return  # it was refused, or there is no such call
    found.append(what)


def connect(family, address):
    with socket.socket(family, socket.SOCK_STREAM) as attempt:
        attempt.settimeout(2)
        attempt.connect(address)


def system_call(name, *arguments):
    if getattr(libc, name)(*arguments) < 0:
        raise OSError(ctypes.get_errno(), name)


def open_for_writing(path):
    os.close(os.open(path, os.O_WRONLY))


def create(path):
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    os.unlink(path)


def datagram(address):
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    ours.connect(address)
    ours.send(b"canary")


def prctl(question):
    return libc.prctl(question, 0, 0, 0, 0)


must_fail("reads files of the host", lambda: open(bait["secret"]).close())
must_fail("writes to files of the host", lambda: open_for_writing(bait["secret"]))
must_fail("truncates files of the host", lambda: os.truncate(bait["secret"], 0))
must_fail("removes files of the host", lambda: os.unlink(bait["secret"]))
must_fail("lists folders of the host", lambda: os.listdir(os.path.dirname(bait["secret"])))
must_fail("connects to loopback", lambda: connect(socket.AF_INET, ("127.0.0.1", bait["port"])))
must_fail("connects to a unix socket", lambda: connect(socket.AF_UNIX, bait["socket"]))
must_fail(
    "connects to an abstract socket", lambda: connect(socket.AF_UNIX, "\0" + bait["abstract"])
)
others = ("AF_NETLINK", "AF_PACKET", "AF_VSOCK")
for family in others if bait["proxy"] else ("AF_INET", "AF_INET6", *others):
    if hasattr(socket, family):
        must_fail(
            f"opens {family} sockets",
            lambda family=family: socket.socket(
                getattr(socket, family),
                socket.SOCK_RAW if family == "AF_PACKET" else socket.SOCK_DGRAM,
            ).close(),
        )
if bait["proxy"]:
    for host in ("127.0.0.1", "localhost", "[::1]", "[::ffff:127.0.0.1]", "0.0.0.0"):
        with socket.create_connection(("127.0.0.1", bait["proxy"]), 5) as asking:
            asking.sendall(f"CONNECT {host}:{bait['port']} HTTP/1.1\r\n\r\n".encode())
            if asking.recv(64).startswith(b"HTTP/1.1 2"):
                found.append(f"is led to {host} by the proxy")
must_fail(
    "opens core_pattern for writing", lambda: open_for_writing("/proc/sys/kernel/core_pattern")
)
must_fail("opens sysrq-trigger for writing", lambda: open_for_writing("/proc/sysrq-trigger"))
for folder in ("/", "/usr", "/etc", "/dev", "/inputs"):
    must_fail(f"writes to {folder}", lambda folder=folder: create(f"{folder}/kowalski-canary"))
must_fail("makes user namespaces", lambda: system_call("unshare", 0x10000000))
must_fail("makes mount namespaces", lambda: system_call("unshare", 0x00020000))
must_fail("makes memory files", lambda: os.close(os.memfd_create("canary")))
must_fail("traces processes", lambda: system_call("ptrace", 0, 0, 0, 0))

# What says that it worked is looked at from outside afterwards.
for attempt in (
    lambda: os.chmod(bait["secret"], 0o777),
    lambda: datagram(bait["datagrams"]),
):
    try:
        attempt()
    except OSError:
        pass

if bait["namespaces"]:
    for name, outside in bait["namespaces"].items():
        if os.readlink(f"/proc/self/ns/{name}") == outside:
            found.append(f"shares the {name} namespace")
else:
    # Whoever is outside has the same number in here.
    import resource

    pid = bait["pid"]
    must_fail("signals processes of the host", lambda: os.kill(pid, 0))
    must_fail("reads what the host's processes are", lambda: open(f"/proc/{pid}/environ").close())
    must_fail("changes limits", lambda: resource.prlimit(pid, resource.RLIMIT_CORE, (0, 0)))
    must_fail("changes priorities", lambda: os.setpriority(os.PRIO_PROCESS, pid, 19))
    must_fail("changes everybody's priorities", lambda: os.setpriority(os.PRIO_USER, 0, 19))
    must_fail("chooses processors", lambda: os.sched_setaffinity(pid, {0}))
    if sys.platform == "linux":
        must_fail("leaves its process group", os.setsid)
if 0 in (os.getuid(), os.geteuid(), os.getgid(), os.getegid()):
    found.append("runs as uid or gid 0")
if sys.platform == "linux":
    for what, question, wanted in (("no_new_privs", 39, 1), ("a filter", 21, 2)):
        if prctl(question) != wanted:
            found.append(f"has {prctl(question)} as {what}")
    capabilities = ctypes.create_string_buffer(24)
    system_call("capget", b"\x22\x05\x08\x20" + bytes(4), capabilities)
    if any(capabilities.raw):
        found.append("has capabilities")
for folder in {os.environ.get("TMPDIR", "/tmp"), os.environ.get("HOME", "/job")} | (
    {"/dev/shm"} if bait["namespaces"] else set()
):
    try:
        create(f"{folder}/kowalski-canary")
    except OSError as error:
        found.append(f"cannot work: {folder}: {error}")

print(NONCE)
for line in found:
    print(line)
