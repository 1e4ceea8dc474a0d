# Runs programs of languages that are compiled: each cell is a program of its own, from its source to its
# end. Files in the working folder stay, variables do not. `channel.py`, `limiting.py`, `commands.py` and
# `leading.py` stand in front; the file behind says how a source is built and a program started.
#
# The host keeps what was built, and gives it back for the same source: `built` in the order of a cell.
# A program that is built here is shown to the host before it runs, so that nobody has touched it.


class Compiled:
    """Below it: `VERSION`, `source_of`, `build`, `finish` and `command`.

    `IS_READ`: what is built is read by a program, and not executed itself.
    """

    def __init__(self, channel):
        self.channel = channel
        self._has_groups = lead_group()
        self.folder = os.path.join(tempfile.gettempdir(), "cells")
        os.mkdir(self.folder)
        self.commands = Commands(os.path.join(self.folder, "ask"), channel)
        self.is_interrupted = False

    def begin(self):
        words = re.findall(r"\d+(?:\.\d+)+", told_by(self.VERSION))
        return words[0] if words else "?"

    def open(self, message):
        pass  # inputs are named by the command `context`; chance is the program's own

    def run(self, message):
        number = message["cell"]
        self.is_interrupted = False
        done = {"op": "done", "cell": number, "status": "ok", "value": None, "error": None}
        self.use_library(message.get("library"))
        program = self._usable(message.get("built"))
        if program is None:
            folder = os.path.join(self.folder, str(number))
            os.mkdir(folder)
            program, words = self._built(folder, message["code"])
            if program is None:
                done.update(self._ended(words, 1))
                return done
            self._show(number, self.library() if message.get("wants_library") else program)
        code = self._await(self._start(self.command(program, message), message.get("stdin")))
        done.update(self._ended(f"exit code {code}", code), **self.commands.answer())
        return done

    def use_library(self, path):
        """What the language's own library was compiled to, where the host has it."""

    def library(self):
        """The same, made of what has just been compiled."""
        raise NotImplementedError

    def _usable(self, built):
        """The host's folder may be on a file system from which nothing may be executed."""
        if built is None or self.IS_READ or os.access(built, os.X_OK):
            return built
        copy = os.path.join(self.folder, "built")
        shutil.copyfile(built, copy)
        os.chmod(copy, 0o755)
        return copy

    def _built(self, folder, code):
        """The program, or None and why there is none: what the compiler said is on stderr already."""
        with open(os.path.join(folder, "said"), "wb+") as said:
            for argv in self.build(folder, self.source_of(code)):
                exit_code = self._await(self._start(argv, None, said, folder))
                if exit_code:
                    said.seek(0)
                    text = said.read().decode("utf-8", "replace").replace(folder + "/", "")
                    sys.stderr.write(text)
                    sys.stderr.flush()
                    return (
                        None,
                        "it does not compile" if text else f"the compiler ended with {exit_code}",
                    )
            program = self.finish(folder)
            return program, None if program else "it has no main"

    def _start(self, argv, stdin, output=None, folder=None):
        with open(stdin or os.devnull, "rb") as source:
            return subprocess.Popen(
                argv,
                stdin=source,
                stdout=output,
                stderr=output,
                cwd=folder,
                process_group=0 if self._has_groups else None,
            )

    def _await(self, process):
        """Its exit code, as a shell counts; an interrupt is passed on."""
        death, again = death_of(process), None
        try:
            while True:
                waited_for = [self.channel.fd, death, self.commands.fd]
                ready, _, _ = select.select(waited_for, [], [], again)
                if death in ready:
                    code = process.wait()
                    return 128 - code if code < 0 else code
                if self.commands.fd in ready:
                    self.commands.ask()
                if self.channel.fd in ready:
                    self._hear(self.channel.receive())
                if self.is_interrupted:
                    again = INTERRUPT_AGAIN_S
                    self._interrupt(process)
        finally:
            os.close(death)

    def _hear(self, message):
        if message is None:
            os._exit(0)
        if message["op"] == "interrupt":
            self.is_interrupted = True
        elif message["op"] == "answers":
            self.commands.answered(message)
        return message["op"]

    def _interrupt(self, process):
        try:
            os.killpg(process.pid if self._has_groups else 0, signal.SIGINT)
        except ProcessLookupError:
            pass

    def _show(self, number, program):
        """Tell the host where it is, and wait until it has looked."""
        self.channel.send({"op": "built", "cell": number, "path": program})
        while self._hear(self.channel.receive()) != "seen":
            pass

    def _ended(self, words, code):
        if self.is_interrupted:
            return {"status": "interrupted", "error": "interrupted", "exit_code": 130}
        if code:
            return {"status": "error", "error": words, "exit_code": code & 0xFF}
        return {"exit_code": 0}
