# A cell that tries to get out. `NONCE` and `BAIT` stand in front. Prints the nonce, then one line for
# each thing that it could do and should not.

import ctypes
import json
import os
import socket

bait = json.loads(BAIT)
libc = ctypes.CDLL(None, use_errno=True)
found = []


def must_fail(what, attempt):
    try:
        attempt()
    except (OSError, ValueError):
        return
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


must_fail("reads files of the host", lambda: open(bait["secret"]).close())
must_fail("connects to loopback", lambda: connect(socket.AF_INET, ("127.0.0.1", bait["port"])))
must_fail("connects to a unix socket", lambda: connect(socket.AF_UNIX, bait["socket"]))
must_fail(
    "connects to an abstract socket", lambda: connect(socket.AF_UNIX, "\0" + bait["abstract"])
)
for family in ("AF_INET", "AF_INET6", "AF_NETLINK", "AF_PACKET", "AF_VSOCK"):
    if hasattr(socket, family):
        must_fail(
            f"opens {family} sockets",
            lambda family=family: socket.socket(
                getattr(socket, family),
                socket.SOCK_RAW if family == "AF_PACKET" else socket.SOCK_DGRAM,
            ).close(),
        )
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

for name, outside in bait["namespaces"].items():
    if os.readlink(f"/proc/self/ns/{name}") == outside:
        found.append(f"shares the {name} namespace")
if 0 in (os.getuid(), os.geteuid(), os.getgid(), os.getegid()):
    found.append("runs as uid or gid 0")
with open("/proc/self/status") as file:
    status = dict(line.rstrip("\n").split(":\t", 1) for line in file if ":\t" in line)
for field, wanted in (("NoNewPrivs", "1"), ("Seccomp", "2"), ("CapEff", "0" * 16)):
    if status.get(field, "").strip() != wanted:
        found.append(f"has {field} {status.get(field)}")
for folder in ("/tmp", "/job", "/dev/shm"):
    try:
        create(f"{folder}/kowalski-canary")
    except OSError as error:
        found.append(f"cannot work: {folder}: {error}")

print(NONCE)
for line in found:
    print(line)
