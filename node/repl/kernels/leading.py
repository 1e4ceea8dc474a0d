# Leads an interpreter of another language through its cells: a child that reads lines of JSON from one
# pipe and writes lines of JSON to another. `channel.py`, `limiting.py` and `commands.py` stand in front;
# the file behind says what the child is (`Led`) and what its lines mean.

import re
import select
import signal
import subprocess
import tempfile

INTERRUPT_AGAIN_S = 0.05
LINE_BYTES_MAX = 64 * 1024 * 1024


class Child:
    """One interpreter and the two pipes it is led by. Its last two arguments are their numbers."""

    def __init__(self, argv, stdin, has_group):
        orders_r, self._orders = os.pipe()
        self.reports, reports_w = os.pipe()
        self._received = bytearray()
        self.process = subprocess.Popen(
            [*argv, str(orders_r), str(reports_w)],
            stdin=stdin,
            pass_fds=(orders_r, reports_w),
            process_group=0 if has_group else None,
        )
        # 0: our own, in which we do not mind an interrupt.
        self._group = self.process.pid if has_group else 0
        os.close(orders_r)
        os.close(reports_w)
        self.death = death_of(self.process)

    def order(self, text):
        data = f"{text}\n".encode("utf-8", "replace")
        while data:
            try:
                data = data[os.write(self._orders, data) :]
            except BrokenPipeError:
                return  # its death is noticed in a moment

    def reported(self):
        """Whole lines, after `reports` became readable."""
        self._received += os.read(self.reports, 1 << 20)
        if len(self._received) > LINE_BYTES_MAX:
            raise FrameTooLongError(f"report of {len(self._received)} bytes")
        *lines, rest = self._received.split(b"\n")
        self._received = rest
        return lines

    def interrupt(self):
        try:
            os.killpg(self._group, signal.SIGINT)
        except ProcessLookupError:
            pass

    def close(self):
        self.process.wait()
        for fd in (self._orders, self.reports, self.death):
            os.close(fd)


def told_by(argv):
    """What a program says, on either stream. One that fails ends the kernel, in its words."""
    told = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True)
    words = [said.decode("utf-8", "replace").strip() for said in (told.stdout, told.stderr)]
    if told.returncode:
        raise SystemExit(
            f"{argv[0]} ended with {told.returncode}: {' '.join(filter(None, words))[-500:]}"
        )
    return words[0] or words[1]


def death_of(process):
    """A descriptor that becomes readable when it is gone."""
    if hasattr(os, "pidfd_open"):
        return os.pidfd_open(process.pid)
    reading, writing = os.pipe()

    def wait():
        process.wait()
        os.close(writing)

    threading.Thread(target=wait, daemon=True).start()
    return reading


class Led:
    """A session of another language.

    Below it: `argv`, `open`, `order_of`, `outcome`, `lost`, and what is different in `begin`.
    """

    VERSION = ()

    def __init__(self, channel):
        self.channel = channel
        self._has_groups = lead_group()
        self.folder = os.path.join(tempfile.gettempdir(), "cells")
        os.mkdir(self.folder)
        self.commands = Commands(os.path.join(self.folder, "ask"), channel)
        # A file, so that what a program is to read can be put there when its interpreter runs.
        self._stdin_path = os.path.join(self.folder, "stdin")
        open(self._stdin_path, "w").close()
        self._stdin = os.open(self._stdin_path, os.O_RDONLY)
        self.child = None
        self.is_interrupted = False

    def begin(self):
        """Before anybody knows what the session is for. The version of the language."""
        return told_by(self.VERSION)

    def start(self):
        self.child = Child(self.argv(), self._stdin, self._has_groups)

    def run(self, message):
        number = message["cell"]
        if message.get("stdin"):
            shutil.copyfile(message["stdin"], self._stdin_path)
        path = os.path.join(self.folder, f"cell-{number}")
        with open(path, "w", encoding="utf-8", errors="replace") as file:
            file.write(message["code"] + "\n")
        self.is_interrupted = False
        if self.child is None:
            self.start()
        self.child.order(self.order_of(path, message))
        done = {"op": "done", "cell": number, "status": "ok", "value": None, "error": None}
        done.update(self._result())
        if "answer_content" not in done:
            done.update(self.commands.answer())
        return done

    def first_report(self):
        """What a child says when it is ready. One that dies instead ends the kernel."""
        while True:
            ready, _, _ = select.select([self.child.reports, self.child.death], [], [])
            for line in self.child.reported() if self.child.reports in ready else ():
                return json.loads(line)
            if self.child.death in ready:
                code = self.child.process.wait()
                raise SystemExit(f"{self.argv()[0]} ended before it was ready, with {code}")

    def _result(self):
        again = asked = None
        while True:
            child = self.child
            waited_for = [self.channel.fd, child.reports, child.death, self.commands.fd]
            ready, _, _ = select.select(waited_for, [], [], again)
            if child.reports in ready:
                for line in child.reported():
                    report = json.loads(line)
                    if isinstance(report, dict) and "calls" in report:
                        asked = self._ask(report)
                    else:
                        return self.outcome(report)
            if child.death in ready:
                code = child.process.wait()
                child.close()
                return self.lost(128 - code if code < 0 else code)
            if self.commands.fd in ready:
                self.commands.ask()
            if self.channel.fd in ready:
                message = self.channel.receive()
                if message is None:
                    os._exit(0)
                if message["op"] == "interrupt":
                    self.is_interrupted, again = True, INTERRUPT_AGAIN_S
                elif message["op"] == "answers" and not self.commands.answered(message):
                    child.order(json.dumps({"id": message["id"], "results": message["results"]}))
                    asked = None
            if self.is_interrupted and asked is not None:
                # It waits in a blocking read, which no signal ends.
                child.order(json.dumps({"id": asked, "results": None}))
                asked = None
            elif self.is_interrupted:
                child.interrupt()

    def _ask(self, report):
        """Pass a question on; the number under which it now waits, if it does."""
        number, calls = report["id"], report["calls"]
        try:
            self.channel.send({"op": "calls", "id": number, "calls": calls})
        except FrameTooLongError as error:
            results = [{"error": str(error)}] * len(calls)
            self.child.order(json.dumps({"id": number, "results": results}))
            return None
        return number


class Interpreter(Led):
    """Whose child has a loop of its own: it says its version, hears of the session, and takes cells."""

    def begin(self):
        self.start()
        return self.first_report()["version"]

    def open(self, message):
        self.child.order(json.dumps({"seed": message["seed"], "inputs": message["inputs"]}))

    def order_of(self, path, message):
        order = {"cell": message["cell"], "path": path}
        if "arguments" in message:
            order.update(arguments=message["arguments"], name=message.get("name"))
        return json.dumps(order)

    def outcome(self, report):
        return report

    def lost(self, code):
        # Its variables went with it, so the session must not seem to go on.
        os._exit(code & 0xFF)


def lead(make):
    channel = begin()
    # Not SIG_IGN: a child would inherit that, and could not trap what is ignored.
    signal.signal(signal.SIGINT, lambda *_: None)
    session = make(channel)
    channel.send({"op": "ready", "version": session.begin()[:64]})
    while True:
        message = channel.receive()
        if message is None:
            os._exit(0)
        if message["op"] == "open":
            place_files(message.get("files", {}))
            session.commands.open(message)
            session.open(message)
        elif message["op"] == "cell":
            channel.send(session.run(message))
