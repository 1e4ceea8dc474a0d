# The tier `namespaces`: what bubblewrap does for the fork server elsewhere, done by itself. `channel.py`,
# `limiting.py` and `confinement.py` stand in front, `namespaced.py` and `fork_server.py` behind.
#
# A root folder on a tmpfs of its own that shows what it was told to and nothing else, read-only; own
# processes, network, messages and names; death when the node dies.

import marshal
import signal

SHOWN_RECURSIVELY, SET_ATTRIBUTES = 0x8000, 442
ATTRIBUTE_READ_ONLY, ATTRIBUTE_NO_SUID = 1, 2
DEVICES = ("null", "zero", "full", "random", "urandom", "tty")


def enter_outer_namespaces(settings):
    if not settings["is_root"]:
        become_user(0, (os.geteuid(), os.getegid()))
    system("unshare", NEW_MOUNTS | NEW_PIDS | NEW_IPC | NEW_NET | NEW_UTS | NEW_CGROUPS)
    system("prctl", SET_DEATH_SIGNAL, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != settings["parent"]:
        os._exit(1)
    pid = os.fork()
    if pid == 0:
        # When the parent is gone before it is said, the end of the control socket says it, too.
        system("prctl", SET_DEATH_SIGNAL, signal.SIGKILL, 0, 0, 0)
        return
    os.closerange(0, os.sysconf("SC_OPEN_MAX"))
    _, status = os.waitpid(pid, 0)
    os._exit(shell_code(status))


def make_root(view):
    """`view`: what `file_view.FileView` says, as lists and dicts."""
    mount(None, "/", None, RECURSIVE | PRIVATE)
    mount("tmpfs", "/tmp", "tmpfs", NO_SUID | NO_DEV, "size=1m,mode=0755")
    os.mkdir("/tmp/host", 0o700)
    os.chdir("/tmp")
    system("syscall", PIVOT_ROOT[os.uname().machine], ".", "host")
    os.chdir("/")
    for place in ("/proc", "/dev", "/tmp", "/job", "/inputs"):
        os.makedirs(place, mode=0o755)
    for source, place in view["binds"]:
        show(f"/host{source}", place)
    for target, place in view["links"]:
        os.symlink(target, place)
    for place, text in view["texts"].items():
        os.makedirs(os.path.dirname(place), mode=0o755, exist_ok=True)
        with open(place, "wb") as file:
            file.write(text)
    mount("proc", "/proc", "proc", NO_SUID | NO_DEV | NO_EXEC)
    make_devices()
    system("umount2", "/host", DETACH)
    os.rmdir("/host")
    mount(None, "/dev", None, BIND | REMOUNT | READ_ONLY | NO_SUID)
    mount(None, "/", None, BIND | REMOUNT | READ_ONLY | NO_SUID | NO_DEV)
    system("sethostname", "sandbox", 7)


PIVOT_ROOT = {"x86_64": 155, "aarch64": 41}


def show(source, place):
    """Bind `source` to `place` read-only, with everything mounted below it."""
    if os.path.isdir(source):
        os.makedirs(place, mode=0o755, exist_ok=True)
    else:
        os.makedirs(os.path.dirname(place), mode=0o755, exist_ok=True)
        open(place, "w").close()
    mount(source, place, None, BIND | RECURSIVE)
    attributes = struct.pack("=QQQQ", ATTRIBUTE_READ_ONLY | ATTRIBUTE_NO_SUID, 0, 0, 0)
    # mount_setattr(2), since Linux 5.12.
    system("syscall", SET_ATTRIBUTES, -100, place, SHOWN_RECURSIVELY, attributes, len(attributes))


def make_devices():
    mount("tmpfs", "/dev", "tmpfs", NO_SUID, "size=64k,mode=0755")
    for name in DEVICES:
        open(f"/dev/{name}", "w").close()
        mount(f"/host/dev/{name}", f"/dev/{name}", None, BIND)
    for name in ("shm", "pts"):
        os.mkdir(f"/dev/{name}")
    for target, name in (
        ("/proc/self/fd", "fd"),
        ("/proc/self/fd/0", "stdin"),
        ("/proc/self/fd/1", "stdout"),
        ("/proc/self/fd/2", "stderr"),
        ("pts/ptmx", "ptmx"),
    ):
        os.symlink(target, f"/dev/{name}")


def build_outer_root():
    with open(int(sys.argv[2]), "rb", closefd=False) as file:
        settings = marshal.load(file)
    os.lseek(int(sys.argv[2]), 0, os.SEEK_SET)
    os.umask(0o022)
    enter_outer_namespaces(settings)
    make_root(settings["view"])
    if settings["is_root"]:
        further = (NETWORK_ADMIN,) if settings["proxy_port"] else ()
        keep_capabilities((*CAPABILITIES, *further))


build_outer_root()
