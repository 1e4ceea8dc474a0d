# Runs cells of bash. `channel.py` stands in front.
#
# One bash lives on and sources each cell, so variables, functions and the working folder stay. It saves
# its state after every cell and when it exits; a cell that ends it (`exit 3`, `set -e`, an interrupt) is
# followed by a new bash that starts from what was saved.

import hashlib
import re
import select
import signal
import subprocess
import tempfile

INTERRUPT_AGAIN_S = 0.05
CHANGES_BY_ITSELF = re.compile(
    r"^declare -\S+ (_|E?UID|GROUPS|BASH\w*|COLUMNS|COMP_\w+|DIRSTACK|EPOCH\w+|FUNCNAME|HISTCMD|LINENO|LINES"
    r"|OLDPWD|PIPESTATUS|PPID|RANDOM|SECONDS|SHELLOPTS|SHLVL|SRANDOM|__kowalski\w*)(=|$)"
)

LOOP = r"""
__kowalski_save() {
  { declare -p; } > "$__kowalski_state.variables" 2>/dev/null
  { declare -f; alias -p; shopt -p; set +o; printf 'cd -- %q\n' "$PWD"; } > "$__kowalski_state.rest" 2>/dev/null
  return 0
}
__kowalski_state=$1 __kowalski_in=$2 __kowalski_status=$3
exec {__kowalski_1}>&1 {__kowalski_2}>&2
set --
for __kowalski_part in opening variables rest; do
  [ -e "$__kowalski_state.$__kowalski_part" ] && source "$__kowalski_state.$__kowalski_part" 2>/dev/null
done
while IFS= read -r __kowalski_cell <&"$__kowalski_in"; do
  trap __kowalski_save EXIT
  trap 'exit 130' INT
  source "$__kowalski_cell"
  __kowalski_code=$?
  exec 1>&"$__kowalski_1" 2>&"$__kowalski_2"
  __kowalski_save
  printf '%s\n' "$__kowalski_code" >&"$__kowalski_status"
done
"""


class Shell:
    """One bash and the two pipes it is led by."""

    def __init__(self, state):
        cells_r, self._cells = os.pipe()
        self.status, status_w = os.pipe()
        self.process = subprocess.Popen(
            [
                "bash",
                "--noprofile",
                "--norc",
                "-c",
                LOOP,
                "bash",
                state,
                str(cells_r),
                str(status_w),
            ],
            stdin=subprocess.DEVNULL,
            pass_fds=(cells_r, status_w),
            process_group=0,
        )
        os.close(cells_r)
        os.close(status_w)
        self.death = os.pidfd_open(self.process.pid)

    def source(self, path):
        os.write(self._cells, f"{path}\n".encode())

    def interrupt(self):
        try:
            os.killpg(self.process.pid, signal.SIGINT)
        except ProcessLookupError:
            pass

    def close(self):
        self.process.wait()
        for fd in (self._cells, self.status, self.death):
            os.close(fd)


class Session:
    def __init__(self, channel):
        self._channel = channel
        self._folder = tempfile.mkdtemp(prefix="cells-")
        self._state = os.path.join(self._folder, "state")
        self._shell = None
        self._is_interrupted = False

    def open(self, message):
        inputs = message["inputs"]
        with open(f"{self._state}.opening", "w") as file:
            file.write(f"RANDOM={message['seed'] % 32768}\n")
            if len(inputs) == 1:
                file.write(f"export CONTEXT={_quoted(*inputs.values())}\n")
        self._start()

    def run(self, message):
        number = message["cell"]
        path = os.path.join(self._folder, f"cell-{number}")
        with open(path, "w", encoding="utf-8", errors="surrogateescape") as file:
            file.write(message["code"] + "\n")
        self._is_interrupted = False
        if self._shell is None:
            self._start()
        self._shell.source(path)
        code, has_ended = self._wait()
        done = {"op": "done", "cell": number, "status": "ok" if code == 0 else "error"}
        done.update(value=None, error=None, exit_code=code & 0xFF, digest=self._digest())
        if code:
            done["error"] = f"exit code {code}"
        if has_ended:
            done["error"] = f"the cell ended with exit {code}; the session goes on"
        if has_ended and self._is_interrupted:
            done.update(status="interrupted", error="interrupted")
        return done

    def _wait(self):
        """The cell's exit code, and whether its bash is gone with it."""
        again = None
        while True:
            shell = self._shell
            ready, _, _ = select.select(
                [self._channel.fd, shell.status, shell.death], [], [], again
            )
            if shell.status in ready:
                line = os.read(shell.status, 64)
                if line:
                    return int(line), False
            if shell.death in ready:
                code = shell.process.wait()
                shell.close()
                self._start()
                return (128 - code if code < 0 else code), True
            if self._channel.fd in ready:
                message = self._channel.receive()
                if message is None:
                    os._exit(0)
                if message["op"] == "interrupt":
                    self._is_interrupted, again = True, INTERRUPT_AGAIN_S
            if self._is_interrupted:
                shell.interrupt()

    def _start(self):
        self._shell = Shell(self._state)

    def _digest(self):
        """SHA-256 over the variables, but for those that change by themselves."""
        digest = hashlib.sha256()
        try:
            with open(f"{self._state}.variables", "rb") as file:
                for line in file.read().decode("utf-8", "replace").splitlines():
                    if not CHANGES_BY_ITSELF.match(line):
                        digest.update(line.encode("utf-8", "replace") + b"\n")
        except OSError:
            return ""
        return digest.hexdigest()


def _quoted(text):
    return "'" + text.replace("'", "'\\''") + "'"


def _version():
    told = subprocess.run(
        ["bash", "--norc", "-c", 'printf %s "${BASH_VERSION%%(*}"'], capture_output=True, check=True
    )
    return told.stdout.decode()


def main():
    channel = Channel(int(sys.argv[1]))
    close_all_but(channel.fd)
    be_modest()
    # Not SIG_IGN: bash would inherit that, and could not trap what is ignored.
    signal.signal(signal.SIGINT, lambda *_: None)
    session = Session(channel)
    channel.send({"op": "ready", "version": _version()})
    while True:
        message = channel.receive()
        if message is None:
            os._exit(0)
        if message["op"] == "open":
            session.open(message)
        elif message["op"] == "cell":
            channel.send(session.run(message))


main()
