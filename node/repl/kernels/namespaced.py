# Sessions confined by namespaces: each is the first process of a pid namespace, in namespaces of its own.
# `confinement.py` stands in front, `fork_server.py` behind.

import signal


class Confinement:
    """Each session is the first process of a pid namespace, in namespaces of its own."""

    def __init__(self, settings):
        self._filter = settings["filter"]
        self._scratch = settings["scratch"]
        self._proxy_port = settings["proxy_port"]
        self._own_pids = os.open("/proc/self/ns/pid", os.O_RDONLY)

    def fork(self):
        # Where our children go; we stay.
        system("unshare", NEW_PIDS)
        pid = os.fork()
        if pid:
            system("setns", self._own_pids, NEW_PIDS)
        return pid

    def enter(self, order, way_out):
        enter_namespaces({**order, "scratch": self._scratch})
        if way_out is not None:
            make_way_out(way_out, self._proxy_port)
        drop_privileges(order["uid"])
        limit_self(order["rlimits"])
        filter_system_calls(self._filter)
        check_confined()
        os.chdir("/job")

    def lead(self):
        """The first process of a namespace reaps what nobody else does; the kernel is the second."""
        child = os.fork()
        if child:
            reap_until(child)

    def bury(self, pid):
        """The first process of a namespace is gone when all others are."""
        _, status = os.waitpid(pid, 0)
        return status

    def kill(self, pid):
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
