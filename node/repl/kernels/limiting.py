# How a kernel begins, and the bounds that the system keeps: every process of a session has them.
# `channel.py` stands in front, all kernels behind.

import resource
import shutil

# By the names that `limits.rlimits` uses; a system without one of them lacks that bound.
RLIMITS = {
    "data": "RLIMIT_DATA",
    "cpu": "RLIMIT_CPU",
    "fsize": "RLIMIT_FSIZE",
    "nofile": "RLIMIT_NOFILE",
    "nproc": "RLIMIT_NPROC",
    "core": "RLIMIT_CORE",
    "memlock": "RLIMIT_MEMLOCK",
    "msgqueue": "RLIMIT_MSGQUEUE",
    "sigpending": "RLIMIT_SIGPENDING",
}


def limit_self(limits):
    """`limits`: name to soft and hard bound. Never raises one above what we have."""
    for name, (soft, hard) in limits.items():
        number = getattr(resource, RLIMITS[name], None)
        if number is None:
            continue
        _, ours = resource.getrlimit(number)
        if ours != resource.RLIM_INFINITY:
            soft, hard = min(soft, ours), min(hard, ours)
        try:
            resource.setrlimit(number, (soft, hard))
        except ValueError:
            # macOS has some of them in name only.
            if sys.platform == "linux":
                raise


def lead_group():
    """Whether we lead a process group, so that an interrupt reaches us and our children alone."""
    try:
        os.setpgid(0, 0)
    except OSError:
        # Landlock's sessions stay in the group by which they are killed.
        return os.getpgrp() == os.getpid()
    return True


def place_files(files):
    """`files`: where each is read from, by its name below the working folder; they may be changed."""
    for name, path in files.items():
        os.makedirs(os.path.dirname(name) or ".", exist_ok=True)
        shutil.copyfile(path, name)
        if not os.access(name, os.W_OK):
            os.chmod(name, 0o644)


def begin():
    """The channel to the host; no other descriptor, and no more than our share of the machine."""
    channel = Channel(int(sys.argv[1]))
    close_all_but(channel.fd)
    if len(sys.argv) > 2:
        # A fork server sees to that before it forks.
        limit_self(json.loads(sys.argv[2]))
        go_first()
        run_last()
    return channel
