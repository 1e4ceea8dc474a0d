# Forks sessions: one process, ready with everything imported, that becomes a kernel in a few
# milliseconds. `channel.py`, `limiting.py`, `confinement.py` and what says how sessions are confined,
# `namespaced.py` or `landlocked.py`, stand in front.
#
# It runs nobody's code itself and keeps the privileges that confining takes; each fork drops them
# before it does anything else. The host asks over a socket of messages: `start`, with the descriptors
# of channel, stdout, stderr and maybe a way out, is answered by `started` with a pidfd, and later by `ended`.

# What kernels need, imported once.
import ast
import builtins
import fcntl
import gc
import hashlib
import linecache
import marshal
import queue
import random
import re
import select
import signal
import socket
import subprocess
import tempfile
import traceback
import types

ORDER_BYTES_MAX = 64 * 1024
ENDED_S_MAX = 1.0


class ForkServer:
    def __init__(self, control, settings):
        self._control = control
        self._kernels = settings["kernels"]
        self._confinement = Confinement(settings)
        self._sessions = {}
        self._poll = select.poll()
        self._poll.register(control, select.POLLIN)

    def serve(self):
        self._say({"op": "ready"})
        while True:
            for fd, _ in self._poll.poll():
                if fd == self._control.fileno():
                    if not self._hear():
                        return
                else:
                    self._bury(fd)

    def end(self):
        """The host is gone, and everything with it."""
        for _, pid in self._sessions.values():
            self._confinement.kill(pid)

    def _hear(self):
        data, fds, _, _ = socket.recv_fds(self._control, ORDER_BYTES_MAX, 4)
        if not data:
            return False
        order = json.loads(data)
        if order["op"] == "kill":
            for number, pid in self._sessions.values():
                if number == order["id"]:
                    self._confinement.kill(pid)
            return True
        try:
            pid = self._confinement.fork()
            if pid == 0:
                self._become(order, fds)
            pidfd = os.pidfd_open(pid)
        except OSError as error:
            self._say({"op": "failed", "id": order["id"], "why": str(error)})
        else:
            self._sessions[pidfd] = (order["id"], pid)
            self._poll.register(pidfd, select.POLLIN)
            self._say({"op": "started", "id": order["id"]}, pidfd)
        finally:
            for fd in fds:
                os.close(fd)
        return True

    def _bury(self, pidfd):
        number, pid = self._sessions.pop(pidfd)
        self._poll.unregister(pidfd)
        status = self._confinement.bury(pid)
        os.close(pidfd)
        self._say({"op": "ended", "id": number, "code": shell_code(status)})

    def _say(self, message, *fds):
        socket.send_fds(self._control, [json.dumps(message).encode()], fds)

    def _become(self, order, fds):
        """Never returns."""
        try:
            channel, way_out = _keep_only(fds)
            os.environ.clear()
            os.environ.update(order["environment"])
            sys.argv = ["", str(channel)]
            go_first()
            self._confinement.enter(order, way_out)
            self._confinement.lead()
            # Not before: somebody waits for it, and until here nothing of anybody else has run.
            run_last()
            exec(self._kernels[order["kernel"]], {"__name__": "__main__"})
        except BaseException:
            traceback.print_exc()
            sys.stderr.flush()
        os._exit(1)


def _keep_only(fds):
    """Standard input from nowhere, the rest as given, nothing else.

    The numbers of the channel, and of the way out where there is one.
    """
    nothing = os.open("/dev/null", os.O_RDONLY)
    channel, stdout, stderr, *way_out = fds
    # First out of the way of the numbers that are given out.
    given = (nothing, stdout, stderr, channel, *way_out)
    kept = [fcntl.fcntl(fd, fcntl.F_DUPFD, 5) for fd in given]
    for at, fd in enumerate(kept):
        os.dup2(fd, at)
    os.closerange(len(kept), os.sysconf("SC_OPEN_MAX"))
    return 3, 4 if way_out else None


def main():
    control = socket.socket(fileno=int(sys.argv[1]))
    with open(int(sys.argv[2]), "rb") as file:
        settings = marshal.load(file)
    server = ForkServer(control, settings)
    gc.collect()
    gc.freeze()
    try:
        server.serve()
    finally:
        server.end()


main()
