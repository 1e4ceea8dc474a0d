# Sessions confined by Landlock and a system call filter, where no namespaces can be had: each has a
# process group that nobody leaves, a folder to work in, and no socket. `confinement.py` stands in
# front, `fork_server.py` behind.
#
# Landlock (landlock(7), linux/landlock.h) decides which files can be opened or changed, and from its
# sixth version on whom a session may signal. What it does not see (modes and owners of files,
# priorities and limits of processes, names of sockets) is the filter's business.

import signal

EXECUTE, WRITE_FILE, READ_FILE, READ_DIR = 1, 2, 4, 8
MAKE_CHAR, MAKE_BLOCK = 1 << 6, 1 << 11
TRUNCATE, IOCTL = 1 << 14, 1 << 15
FILE_RIGHTS = EXECUTE | WRITE_FILE | READ_FILE | TRUNCATE | IOCTL
# How many rights to files each version of the interface knows, from the first.
RIGHTS_KNOWN = (13, 14, 15, 15, 16)
SCOPE_ALL = 3
RULE_PATH = 1
ASK_VERSION = 1
GET_SECCOMP, GET_NO_NEW_PRIVILEGES = 21, 39
DEVICES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom")


def landlock_version():
    return system("syscall", LANDLOCK_CREATE, None, 0, ASK_VERSION)


class Rules:
    def __init__(self, version):
        self._rights = (1 << RIGHTS_KNOWN[min(version, len(RIGHTS_KNOWN)) - 1]) - 1
        # Files, then network (TCP, from version 4), then scope (from 6): as much as is known.
        attributes = struct.pack("=QQQ", self._rights, 3, SCOPE_ALL)
        size = 24 if version >= 6 else 16 if version >= 4 else 8
        self._fd = system("syscall", LANDLOCK_CREATE, attributes, size, 0)

    def allow(self, path, rights):
        """Below `path`, which may be missing."""
        try:
            fd = os.open(path, O_PATH | os.O_CLOEXEC)
        except OSError:
            return
        try:
            if not os.path.isdir(path):
                rights &= FILE_RIGHTS
            rule = struct.pack("=Qi", rights & self._rights, fd)
            system("syscall", LANDLOCK_ADD, self._fd, RULE_PATH, rule, 0)
        finally:
            os.close(fd)

    def enter(self):
        system("syscall", LANDLOCK_RESTRICT, self._fd, 0)
        os.close(self._fd)


# Threads that the user's other programs, other sessions among them, may start while a session lives.
# Without this room they would take what is the session's: a bash that cannot fork, a node that waits
# forever for threads of its own.
OTHERS_LATER = 200


def threads_of_user():
    count = 0
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                if os.stat(f"/proc/{name}").st_uid == os.getuid():
                    count += len(os.listdir(f"/proc/{name}/task"))
            except OSError:
                pass  # it has just ended
    return count


class Confinement:
    def __init__(self, settings):
        self._filter = settings["filter"]
        self._readable = settings["readable"]
        self._version = landlock_version()
        if self._version < settings["version_min"]:
            raise SystemExit(
                f"this system's Landlock has version {self._version},"
                f" and {settings['version_min']} is needed"
            )
        self._pid = os.getpid()
        # What a session leaves behind becomes our child when its first process dies.
        system("prctl", SET_SUBREAPER, 1, 0, 0, 0)

    def fork(self):
        return os.fork()

    def enter(self, order, _way_out):
        os.setsid()
        system("prctl", SET_SUBREAPER, 1, 0, 0, 0)
        if order["uid"] is not None:
            for path in order["work"]:
                os.chown(path, order["uid"], order["uid"])
        rules = Rules(self._version)
        for path in (*self._readable, order["inputs"]):
            rules.allow(path, EXECUTE | READ_FILE | READ_DIR)
        for path in order["work"]:
            rules.allow(path, ~(MAKE_CHAR | MAKE_BLOCK))
        for path in DEVICES:
            rules.allow(path, READ_FILE | WRITE_FILE)
        os.chdir(order["work"][0])
        self._drop(order["uid"])
        system("prctl", SET_DEATH_SIGNAL, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != self._pid:
            os._exit(1)
        limits = dict(order["rlimits"])
        if order["uid"] is None:
            # It counts all that the user runs, not only ours, and they may start more of it.
            others = threads_of_user() + OTHERS_LATER
            limits["nproc"] = [bound + others for bound in limits["nproc"]]
        limit_self(limits)
        rules.enter()
        filter_system_calls(self._filter)
        self._check()

    def _drop(self, uid):
        if uid is not None:
            os.setgroups([])
            limit_capabilities(0)
            os.setresgid(uid, uid, uid)
            os.setresuid(uid, uid, uid)
            system("prctl", SET_DUMPABLE, 1, 0, 0, 0)
            set_capabilities(0)
        system("prctl", SET_NO_NEW_PRIVILEGES, 1, 0, 0, 0)

    def _check(self):
        """/proc is out of reach by now."""
        if 0 in (*os.getresuid(), *os.getresgid()):
            raise PermissionError("still root")
        for question, wanted in ((GET_NO_NEW_PRIVILEGES, 1), (GET_SECCOMP, 2)):
            if system("prctl", question, 0, 0, 0, 0) != wanted:
                raise PermissionError(f"prctl {question} is not {wanted}")

    def lead(self):
        """The first process reaps and takes no part in interrupts; the kernel is the second."""
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        child = os.fork()
        if child:
            reap_until(child)
        signal.signal(signal.SIGINT, signal.default_int_handler)

    def bury(self, pid):
        """Its first process is dead: kill those that it has left, and wait until all are gone."""
        # While it is not reaped, its number means no other group.
        self.kill(pid)
        found = 0
        while True:
            try:
                buried, status = os.waitpid(-pid, 0)
            except ChildProcessError:
                return found
            if buried == pid:
                found = status

    def kill(self, pid):
        """All of the group: nobody could leave it."""
        for kill in (os.killpg, os.kill):
            try:
                kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
