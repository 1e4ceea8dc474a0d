"""Cells that try to get out, to stay, or to take more than their share.

Each says what must come of it: the statuses that it may end with, and, where its last expression
says so itself, that nothing worked (`'contained'`). `hostile_run` runs them all in one tier.
"""

from __future__ import annotations

from dataclasses import dataclass

OK = ("ok",)
KILLED = ("memory", "inodes", "output_flood", "timeout", "died")

PRELUDE = """
import stat
def forge(data):
    'Says something in the name of the kernel.'
    for fd in range(3, 60):
        try:
            if stat.S_ISSOCK(os.fstat(fd).st_mode): os.write(fd, data)
        except OSError: pass
import ctypes, os, resource, signal, socket, subprocess, sys, threading, time
libc = ctypes.CDLL(None, use_errno=True)
def attempt(what, *arguments):
    try:
        found = what(*arguments)
    except (OSError, ValueError, RuntimeError, MemoryError) as error:
        return 'contained'
    return f'got {found!r}'
def call(name, *arguments):
    result = getattr(libc, name)(*arguments)
    return 'contained' if result == -1 else f'{name} gave {result}'
def all_of(*found):
    return next((each for each in found if each != 'contained'), 'contained')
"""


@dataclass(frozen=True, slots=True)
class Hostile:
    """`must_say`: the last expression must be `'contained'`.

    `{secret}`, `{folder}`, `{socket}`, `{datagrams}`, `{abstract}`, `{port}` and `{pid}` are bait
    outside: a file that anybody may read, where it lies, listening sockets, and a process.
    """

    name: str
    code: str
    ends: tuple[str, ...] = OK
    must_say: bool = True
    language: str = "python"
    timeout_s: float = 60.0
    crowds: bool = False
    """Takes as many processes as it gets, which are everybody's where there are no namespaces."""


def _bomb(name: str, code: str, *ends: str, timeout_s: float = 5.0) -> Hostile:
    """Its time may be over before any other limit is met, on a busy machine."""
    ends = (*ends, "timeout") if ends else KILLED
    return Hostile(name, code, ends, must_say=False, timeout_s=timeout_s)


FILES = (
    Hostile("reads a file of the host", "attempt(open, '{secret}')"),
    Hostile("overwrites a file of the host", "attempt(open, '{secret}', 'r+')"),
    Hostile("truncates a file of the host", "attempt(os.truncate, '{secret}', 0)"),
    Hostile("removes a file of the host", "attempt(os.unlink, '{secret}')"),
    Hostile("renames a file of the host", "attempt(os.rename, '{secret}', '{secret}.old')"),
    Hostile(
        "changes a file's mode, owner and times",  # looked at afterwards: it may pretend
        "for change in (lambda: os.chmod('{secret}', 0o777), lambda: os.utime('{secret}', (0, 0)),"
        " lambda: os.chown('{secret}', 1, 1)): attempt(change)\n'contained'",
    ),
    Hostile("links to a file of the host", "attempt(os.link, '{secret}', os.path.abspath('x'))"),
    Hostile("lists a folder of the host", "attempt(os.listdir, '{folder}')"),
    Hostile(
        "lists homes",
        "all_of(*(attempt(os.listdir, f) for f in ('/home', '/root', '/var', '/run', '/sys')))"
        " if not os.path.isdir('/root/.pyenv') or os.getenv('HOME') != '/job' else 'contained'",
    ),
    Hostile(
        "reads what only the system should know",
        "all_of(*(attempt(open, f) for f in ('/etc/shadow', '/etc/machine-id', '/etc/ssh')))",
    ),
    Hostile(
        "looks into a process of the host",
        "all_of(*(attempt(open, f'/proc/{pid}/' + name) for name in"
        " ('environ', 'mem', 'maps', 'cmdline')), attempt(os.listdir, '/proc/{pid}/root'),"
        " attempt(os.listdir, '/proc/{pid}/fd'))",
    ),
    Hostile(
        "writes where programs are",
        "def write(f): os.close(os.open(f + '/new', os.O_CREAT | os.O_WRONLY))\n"
        "all_of(*(attempt(write, f) for f in"
        " ('/', '/usr', '/usr/bin', '/etc', '/dev', '/var/tmp', '/inputs', sys.prefix)))",
    ),
    Hostile("makes a device", "attempt(os.mknod, os.path.abspath('disk'), 0o60666, 0x700)"),
    Hostile(
        "opens devices",
        "all_of(*(attempt(os.open, f'/dev/{d}', os.O_RDONLY) for d in"
        " ('mem', 'kmem', 'kvm', 'vda', 'sda', 'fuse', 'net/tun', 'vsock', 'vhost-net')))",
    ),
    Hostile(
        "writes to the kernel's settings",
        "all_of(*(attempt(os.open, f, os.O_WRONLY) for f in ('/proc/sys/kernel/core_pattern',"
        " '/proc/sys/vm/overcommit_memory', '/proc/sysrq-trigger', '/proc/sys/kernel/hostname')))",
    ),
    Hostile(
        "becomes root",
        "all_of(attempt(os.setuid, 0), attempt(os.setgid, 0), attempt(os.setgroups, [0]),"
        " 'contained' if subprocess.run(['su', '-c', 'true'], stdin=subprocess.DEVNULL,"
        " capture_output=True).returncode else 'su')",
    ),
    Hostile(
        "leaves a link for whoever collects its files",
        "os.symlink('{secret}', 'link'); os.mkfifo('pipe'); os.symlink('/', 'folder');"
        " open('file', 'w').write('mine'); 'contained'",
    ),
)

NETWORK = (
    Hostile("connects to loopback", "attempt(socket.create_connection, ('127.0.0.1', {port}), 1)"),
    Hostile("connects by IPv6", "attempt(socket.create_connection, ('::1', {port}), 1)"),
    Hostile("connects to the world", "attempt(socket.create_connection, ('1.1.1.1', 53), 1)"),
    Hostile(
        "sends to a name server",
        "def ask(): socket.socket(socket.AF_INET, socket.SOCK_DGRAM).sendto(b'x', ('1.1.1.1', 53))"
        "\nattempt(ask)",
    ),
    Hostile(
        "connects to a socket by its path",
        "def connect(): socket.socket(socket.AF_UNIX).connect('{socket}')\nattempt(connect)",
    ),
    Hostile(
        "connects one of a pair of sockets anew",
        "def connect():\n    a, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)\n"
        "    a.connect('{datagrams}'); a.send(b'x')\n"
        "def send():\n    a, b = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)\n"
        "    a.sendto(b'x', '{datagrams}')\n"
        "all_of(attempt(connect), attempt(send))",
    ),
    Hostile(
        "connects to a socket by its abstract name",
        "def connect(): socket.socket(socket.AF_UNIX).connect('\\0{abstract}')\nattempt(connect)",
    ),
    Hostile(
        "opens sockets of other families",
        "all_of(*(attempt(socket.socket, family, kind) for family, kind in"
        " ((16, socket.SOCK_RAW), (17, socket.SOCK_RAW), (40, socket.SOCK_STREAM),"
        " (38, socket.SOCK_SEQPACKET), (2, socket.SOCK_STREAM), (10, socket.SOCK_DGRAM))))"
        " if not hasattr(socket, 'never') else ''",
    ),
)

PROXY_PRELUDE = """
def ask(head, size=64):
    with socket.create_connection(('127.0.0.1', 3128), 30) as proxy:
        proxy.sendall(head)
        return proxy.recv(size)
def is_refused(*heads):
    told = [ask(head) for head in heads]
    return 'contained' if all(each.startswith(b'HTTP/1.1 4') for each in told) else told
"""

# For sessions with a way out; the others have no proxy to ask.
PROXY = (
    Hostile(
        "asks the proxy for what is the host's own",
        PROXY_PRELUDE
        + "is_refused(*(f'CONNECT {host}:{port} HTTP/1.1\\r\\n\\r\\n'.encode() for host in"
        " ('127.0.0.1', 'localhost', '[::1]', '0.0.0.0', '[::]', '127.1', '2130706433', '0x7f.1',"
        " '[::ffff:127.0.0.1]', '[::ffff:7f00:1]', '[fe80::1]', '169.254.169.254', '224.0.0.1')))",
    ),
    Hostile(
        "asks the proxy for what is on the owner's networks",
        PROXY_PRELUDE
        + "is_refused(*(f'GET http://{host}/ HTTP/1.1\\r\\n\\r\\n'.encode() for host in"
        " ('10.255.255.1', '172.31.255.1', '192.168.255.1', '100.64.0.1', '[fd00::1]')))",
    ),
    Hostile(
        "tells the proxy nonsense",
        PROXY_PRELUDE + "is_refused(b'\\r\\n\\r\\n', b'\\0' * 99 + b'\\r\\n\\r\\n',"
        " b'GET / HTTP/1.1\\r\\n\\r\\n', b'CONNECT :1 HTTP/1.1\\r\\n\\r\\n',"
        " b'GET file:///etc/passwd HTTP/1.1\\r\\n\\r\\n')",
    ),
    Hostile(
        "holds every connection that it gets",
        "kept = []\n"
        "try:\n"
        "    while len(kept) < 500:\n"
        "        kept.append(socket.create_connection(('127.0.0.1', 3128), 1))\n"
        "        kept[-1].send(b'CONNECT ')\n"
        "except OSError: pass\n"
        "'contained'",
    ),
    Hostile(
        "never stops asking",
        "asking = socket.create_connection(('127.0.0.1', 3128), 5)\n"
        "try:\n"
        "    for _ in range(2000): asking.sendall(b'x' * 10_000)\n"
        "    found = 'it listens'\n"
        "except OSError: found = 'contained'\n"
        "found",
    ),
)

PROCESSES = (
    Hostile("signals a process of the host", "attempt(os.kill, {pid}, 0)"),
    Hostile(
        "signals the first process",
        "attempt(os.kill, 1, 0) if {pid} != 1 and os.getpid() > 9 else 'contained'",
    ),
    _bomb("signals everybody", "os.kill(-1, signal.SIGKILL); time.sleep(5)", "died", "ok", "error"),
    Hostile(
        "slows a process of the host down",
        "all_of(attempt(os.setpriority, os.PRIO_PROCESS, {pid}, 19),"
        " attempt(os.sched_setaffinity, {pid}, (0,)),"
        " attempt(os.sched_setscheduler, {pid}, os.SCHED_IDLE, os.sched_param(0)),"
        " attempt(resource.prlimit, {pid}, resource.RLIMIT_NOFILE, (9, 9)))",
    ),
    Hostile(
        "traces its parents",
        "all_of(call('ptrace', 16, 1, 0, 0), call('ptrace', 16, os.getppid(), 0, 0),"
        " call('ptrace', 16, {pid}, 0, 0), call('syscall', 310, {pid}, 0, 0, 0, 0, 0))",
    ),
    Hostile(
        "forks without end",
        "count = 0\n"
        "try:\n"
        "    while count < 1000:\n"
        "        if os.fork() == 0: time.sleep(60)\n"
        "        count += 1\n"
        "except OSError: pass\n"
        "'contained' if count < 300 else count",
        crowds=True,
    ),
    Hostile(
        "starts threads without end",
        "started = 0\n"
        "try:\n"
        "    while started < 1000:\n"
        "        threading.Thread(target=time.sleep, args=(60,), daemon=True).start()\n"
        "        started += 1\n"
        "except RuntimeError: pass\n"
        "'contained' if started < 300 else started",
        crowds=True,
    ),
    Hostile(
        "leaves a crowd of the dead",
        "for _ in range(300):\n"
        "    try: pid = os.fork()\n"
        "    except OSError: break\n"
        "    if pid == 0:\n"
        "        try: os.fork()\n"
        "        finally: os._exit(0)\n"
        "'contained'",
        crowds=True,
    ),
    Hostile(
        "leaves a daemon behind",
        "if os.fork() == 0:\n"
        "    try: os.setsid()\n"
        "    except OSError: pass\n"
        "    for number in (1, 2, 15): signal.signal(number, signal.SIG_IGN)\n"
        "    if os.fork() == 0:\n"
        "        while True: time.sleep(1)\n"
        "    os._exit(0)\n"
        "'contained'",
    ),
    Hostile(
        "leaves a child with its outputs",
        "subprocess.Popen(['sleep', '3600']); 'contained'",
    ),
    _bomb(
        "blocks every signal and spins",
        "signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))\nwhile True: pass",
        "timeout",
        timeout_s=0.3,
    ),
    _bomb("stops itself", "os.kill(os.getpid(), signal.SIGSTOP)", "timeout", timeout_s=0.3),
    Hostile(
        "makes a namespace",
        "all_of(*(call('unshare', flag) for flag in"
        " (0x10000000, 0x20000, 0x20000000, 0x40000000, 0x08000000)),"
        " call('syscall', 56, 0x10000011, 0, 0, 0, 0))",
    ),
    Hostile(
        "mounts",
        "all_of(call('mount', b'none', b'/tmp', b'tmpfs', 0, 0), call('umount2', b'/proc', 2),"
        " call('chroot', b'/tmp'), call('syscall', 155, b'.', b'.'))",
    ),
    Hostile(
        "uses wide doors into the kernel",
        "box = ctypes.create_string_buffer(256)\n"
        "all_of(*(call('syscall', *arguments) for arguments in ((425, 8, box), (321, 0, box, 120),"
        " (323, 0), (298, box, 0, -1, -1, 0), (250, 0, 0), (248, b'user', b'x', b'y', 1, -2),"
        " (304, -100, box, 0), (303, -100, b'/', box, box, 0), (246, 0, 0, 0, 0), (135, 0x40000),"
        " (500,), (0x40000001, 1, b'', 0), (169, 1, 2, 3, 0), (311, 1, 0, 0, 0, 0, 0))))",
    ),
    Hostile(
        "finds what was left open",
        "def harmless(fd):\n"
        "    try: target = os.readlink(f'/proc/self/fd/{fd}')\n"
        "    except OSError: return True\n"
        "    return target.startswith(('pipe:', 'socket:', '/dev/null', '/proc/'))\n"
        "numbers = [fd for fd in range(3, 300) if attempt(os.fstat, fd) != 'contained']\n"
        "'contained' if len(numbers) < 6 and all(map(harmless, numbers)) else numbers",
    ),
    Hostile(
        "reads its environment",
        "'contained' if not [k for k in os.environ if 'SECRET' in k or 'KOWALSKI' in k] else ''",
    ),
)

SHARE = (
    _bomb("takes private memory", "x = []\nwhile True: x.append(bytearray(1 << 22))", "memory"),
    _bomb(
        "takes shared memory",
        "import mmap\nm = mmap.mmap(-1, 1 << 30)\n"
        "for at in range(0, 1 << 30, 4096): m[at] = 1\ntime.sleep(5)",
        "memory",
    ),
    _bomb(
        "takes memory by many processes",
        "for _ in range(12):\n"
        "    if os.fork() == 0:\n"
        "        x = os.urandom(1 << 20) * 40; time.sleep(60)\n"
        "time.sleep(5)",
        "memory",
    ),
    Hostile(
        "takes memory that no limit sees",
        "all_of(attempt(os.memfd_create, 'x'), call('shmget', 0, 1 << 24, 0o1600),"
        " call('semget', 0, 9, 0o1600), call('msgget', 0, 0o1600))",
    ),
    Hostile(
        "makes a queue for others to find",
        "name = b'/kowalski-hostile'\n"
        "made = libc.syscall(240, name[1:], 0o102, 0o666, 0)\n"
        "'contained'",
    ),
    _bomb(
        "fills its folders",
        "for folder in ('.', os.environ['TMPDIR'], '/dev/shm'):\n"
        "    try:\n"
        "        for i in range(64): open(f'{folder}/{i}', 'wb').write(b'x' * (1 << 20))\n"
        "    except OSError: pass\n"
        "time.sleep(1)\n"
        "sum(os.path.getsize(f'{f}/{n}') for f in ('.', '/tmp')"
        " for n in os.listdir(f)) < (40 << 20)",
        "ok",
        "inodes",
        "error",
    ),
    _bomb("writes one large file", "open('x', 'wb').truncate(1 << 34)", "error"),
    _bomb(
        "fills the disk with files that have no name",
        "kept = []\n"
        "try:\n"
        "    for i in range(60):\n"
        "        kept.append(open(f'x', 'wb')); os.unlink('x')\n"
        "        kept[-1].write(b'x' * (1 << 20)); kept[-1].flush()\n"
        "except OSError: pass\n"
        "time.sleep(1)",
        "ok",
        "inodes",
    ),
    _bomb(
        "makes files without end",
        "try:\n"
        "    for i in range(50_000): open(f'{i}', 'w').close()\n"
        "except OSError: pass\n"
        "time.sleep(1); assert i < 40_000",
        "ok",
        "inodes",
    ),
    _bomb(
        "buries itself in folders",
        "try:\n"
        "    for _ in range(400): os.mkdir('d'); os.chdir('d')\n"
        "except OSError: pass\n"
        "time.sleep(0.5)",
        "ok",
        "inodes",
    ),
    _bomb("makes a folder that nobody may enter", "os.makedirs('a/b'); os.chmod('a', 0)", "ok"),
    Hostile(
        "takes every descriptor",
        "kept = []\n"
        "try:\n"
        "    while len(kept) < 5000: kept.append(os.open('/dev/null', 0))\n"
        "except OSError: pass\n"
        "count = len(kept); [os.close(fd) for fd in kept]\n"
        "'contained' if count < 70 else count",
    ),
    _bomb("writes without end", "while True: print('x' * 1000)", "output_flood"),
    _bomb("writes one endless line", "os.write(1, b'x' * 50_000_000)\nprint('y')", "output_flood"),
    _bomb("complains without end", "while True: os.write(2, b'x' * 65536)", "output_flood"),
    Hostile(
        "writes what no terminal should see",
        "sys.stdout.buffer.write(bytes(range(256))); sys.stdout.buffer.write(b'\\x1b]0;x\\x07')\n"
        "'contained'",
    ),
    _bomb("dumps core", "os.abort()", "died"),
)

KERNEL = (
    _bomb("forges a frame", "forge(b'\\xff\\xff\\xff\\xff'); time.sleep(5)", "died"),
    _bomb(
        "forges the end of another cell",
        "import json\nbody = json.dumps({'op': 'done', 'cell': 99, 'status': 'ok'}).encode()\n"
        "forge(len(body).to_bytes(4, 'big') + body); time.sleep(5)",
        "died",
    ),
    _bomb(
        "forges frames without end",
        "import json\nbody = json.dumps({'op': 'calls', 'id': 1, 'calls': [{'kind': 'llm',"
        " 'prompt': 'x' * 1000}]}).encode()\n"
        "while True: forge(len(body).to_bytes(4, 'big') + body)",
        "died",
        "timeout",
        timeout_s=1.0,
    ),
    _bomb("closes everything", "os.closerange(0, 60)\nopen('/dev/null')", *KILLED, "ok", "error"),
    _bomb("falls over", "ctypes.string_at(0)", "died"),
    _bomb("leaves at once", "os._exit(9)", "died"),
    _bomb("recurses", "def f(): f()\nf()", "error"),
    _bomb(
        "recurses in the language's own code",
        "sys.setrecursionlimit(10 ** 9)\ndef f(): f()\nf()",
        "died",
        "error",
        "memory",
        "timeout",
    ),
    _bomb(
        "spoils what the kernel stands on",
        "import builtins, json\n"
        "sys.modules.clear(); json.dumps = None; builtins.print = None; sys.stdout = None",
        "died",
        "ok",
    ),
    _bomb(
        "answers with a repr that never ends",
        "class Endless:\n    def __repr__(self):\n        while True: pass\nEndless()",
        "timeout",
        timeout_s=0.3,
    ),
    Hostile("answers with a repr that is huge", "'contained' if len('x' * 50_000_000) else ''"),
)

OTHER_LANGUAGES = (
    Hostile(
        "bash: a bomb of forks",
        ":(){ :|:& };: 2>/dev/null; sleep 0.2",
        (*KILLED, "ok", "error"),
        must_say=False,
        language="bash",
        timeout_s=0.5,
        crowds=True,
    ),
    Hostile(
        "bash: a loop that no signal ends",
        "trap '' TERM INT HUP; setsid sh -c 'while :; do sleep 1; done' & while :; do :; done",
        ("timeout",),
        must_say=False,
        language="bash",
        timeout_s=0.3,
    ),
    Hostile(
        "bash: reads a file of the host",
        "cat '{secret}'",
        ("error",),
        must_say=False,
        language="bash",
    ),
    Hostile(
        "bash: talks to loopback",
        "exec 9<>/dev/tcp/127.0.0.1/{port}",
        ("error",),
        must_say=False,
        language="bash",
    ),
    Hostile("js: never ends", "while (true) {}", ("timeout",), False, "js", 0.3),
    Hostile(
        "js: takes memory",
        "const x = []; for (;;) x.push(new Uint8Array(1 << 22).fill(1))",
        ("memory", "died", "error", "timeout"),
        False,
        "js",
    ),
    Hostile(
        "js: reads a file of the host",
        "require('fs').readFileSync('{secret}')",
        ("error",),
        False,
        "js",
    ),
    Hostile("js: signals a process of the host", "process.kill({pid}, 0)", ("error",), False, "js"),
)

HOSTILE_CELLS = (*FILES, *NETWORK, *PROCESSES, *SHARE, *KERNEL, *OTHER_LANGUAGES)
