# Runs cells of Python, keeps their state, and lets them ask the host. `channel.py`, `limiting.py`,
# `asking.py` and `telling_time.py` stand in front.
#
# The main thread runs cells; a second one listens to the host, so that an interrupt is heard while a
# cell runs. User code lives in a module of its own named `__main__`. It can reach everything here:
# the sandbox is the boundary, this file only has to be right for well-meant code.

import ast
import builtins
import hashlib
import linecache
import queue
import random
import signal
import traceback
import types

KERNEL_FILE = "<python_kernel.py>"
VALUE_CHARS_MAX = 32 * 1024
ERROR_CHARS_MAX = 32 * 1024
ANSWER_CHARS_MAX = 384 * 1024
VARIABLES_MAX = 256
DIGEST_ELEMENTS_MAX = 10_000
DIGEST_EDGE_CHARS = 16 * 1024
INTERRUPT_AGAIN_S = 0.05


class Listing(str):
    """Text that shows itself as it is, also as the last expression of a cell."""

    def __repr__(self):
        return str(self)


class Session:
    """The user's module, the reserved names in it, and one cell at a time."""

    def __init__(self, channel):
        self._channel = channel
        self._bridge = Bridge(channel)
        self._readings = Readings()
        self._pid = os.getpid()
        self._is_running = False
        self._is_interrupt_wanted = threading.Event()
        self._over = threading.Event()
        self._stdout, self._stderr = sys.stdout, sys.stderr
        self._spare_outputs = (os.dup(1), os.dup(2))
        self._context_paths = {}
        self._is_single = False
        self._context = None
        self.module = types.ModuleType("__main__")
        sys.modules["__main__"] = self.module
        self.names = self.module.__dict__
        self.names["__builtins__"] = builtins
        self._history = History(self._bridge)
        self._reserved = {
            "llm_query": self._llm_query,
            "llm_query_batched": self._llm_query_batched,
            "rlm_query": self._rlm_query,
            "rlm_query_batched": self._rlm_query_batched,
            "budget": self._budget,
            "unfold": self._unfold,
            "find_folds": self._find_folds,
            "SHOW_VARS": self._show_vars,
            "FINAL": self._final,
            "FINAL_VAR": self._final_var,
            "LLMError": LLMError,
            "history": self._history,
        }
        self._answer = {"content": "", "ready": False}
        self.names["answer"] = self._answer
        self.names.update(self._reserved)

    # What the host asks for.

    def open(self, message):
        random.seed(message["seed"])
        tell_time(self._readings)
        place_files(message.get("files", {}))
        self._context_paths = message["inputs"]
        self._is_single = len(self._context_paths) == 1
        if not self._context_paths:
            self.names["context"] = ""

    def interrupt(self):
        """Called on the listening thread. Says it again: `os.system`, for one, swallows a signal."""
        self._is_interrupt_wanted.set()
        while self._is_running and self._is_interrupt_wanted.is_set():
            # The whole group: children that the cell waits for must end too.
            os.killpg(0, signal.SIGINT)
            self._over.wait(INTERRUPT_AGAIN_S)

    def answered(self, message):
        self._bridge.answered(message["id"], message["results"])

    def on_signal(self, *_):
        if self._channel.is_main_sending:
            return  # said again in a moment
        self._is_interrupt_wanted.clear()
        if self._is_running and os.getpid() == self._pid:
            raise KeyboardInterrupt
        if os.getpid() != self._pid:
            os._exit(130)

    def run(self, message):
        number, code = message["cell"], message["code"]
        done = {"op": "done", "cell": number, "status": "ok", "value": None, "error": None}
        done["exit_code"] = 0
        signal.signal(signal.SIGINT, self.on_signal)
        self._is_interrupt_wanted.clear()
        self._over.clear()
        self._bridge.open()
        _set_scene(message)
        self._readings.begin(message.get("clock", ()))
        try:
            self._is_running = True
            try:
                done["value"] = self._execute(code, f"<cell {number}>")
            finally:
                self._is_running = False
        except SystemExit as error:
            _exited(error, done)
        except KeyboardInterrupt as error:
            done.update(status="interrupted", error=_told(error), exit_code=130)
        except MemoryError as error:
            done.update(status="memory", error=_told(error), exit_code=1)
        except BaseException as error:
            done.update(status="error", error=_told(error), exit_code=1)
        if os.getpid() != self._pid:
            # A fork that came back from the cell: it is no kernel.
            self._flush()
            os._exit(done["exit_code"])
        self._over.set()
        self._bridge.close()
        done["clock"] = self._readings.noted
        self._tidy(done)
        return done

    def _execute(self, code, filename):
        lines = code.splitlines(keepends=True)
        linecache.cache[filename] = (len(code), None, lines, filename)
        if "context" in code:
            self._read_context()
        tree = compile(code, filename, "exec", ast.PyCF_ONLY_AST, dont_inherit=True)
        last = None
        if tree.body and isinstance(tree.body[-1], ast.Expr):
            last = ast.Expression(tree.body.pop().value)
        exec(compile(tree, filename, "exec", dont_inherit=True), self.names)
        if last is None:
            return None
        value = eval(compile(last, filename, "eval", dont_inherit=True), self.names)
        if value is None:
            return None
        self.names["_"] = value
        return _shown(value)

    def _read_context(self):
        """100 MB cost nothing until a cell mentions them."""
        if self._context is None and self._context_paths:
            if self._is_single:
                self._context = read_text(*self._context_paths.values())
            else:
                self._context = Inputs(self._context_paths)
            self.names.setdefault("context", self._context)

    def _tidy(self, done):
        """What holds between cells: working outputs, reserved names, an `answer` of two fields."""
        self._flush()
        answer = self._read_answer()
        self.names.update(self._reserved)
        self.names["__builtins__"] = builtins
        sys.modules["__main__"] = self.module
        done["answer_content"] = cut(answer[0], ANSWER_CHARS_MAX)
        done["answer_is_ready"] = answer[1]
        try:
            done["digest"], done["variables"] = self._digest()
        except Exception as error:
            done["digest"] = f"undigested: {type(error).__name__}"[:64]

    def _flush(self):
        sys.stdout, sys.stderr = self._stdout, self._stderr
        for name, fd, spare in (
            ("stdout", 1, self._spare_outputs[0]),
            ("stderr", 2, self._spare_outputs[1]),
        ):
            stream = getattr(sys, name)
            try:
                stream.flush()
                os.fstat(fd)
            except (OSError, ValueError):
                os.dup2(spare, fd)
                stream = open_output(fd)
                setattr(sys, name, stream)
                setattr(self, f"_{name}", stream)

    def _read_answer(self):
        answer = self.names.get("answer")
        if not isinstance(answer, dict):
            answer = {"content": "" if answer is None else answer, "ready": False}
        self._answer = self.names["answer"] = answer
        try:
            return _as_text(answer.get("content", "")), bool(answer.get("ready", False))
        except Exception as error:
            return f"<answer: {type(error).__name__}>", False

    def _user_names(self):
        own = {"__name__", "__doc__", "__package__", "__loader__", "__spec__", "__builtins__"}
        own.update(self._reserved, ("answer", "context", "_"))
        return sorted(name for name in self.names if isinstance(name, str) and name not in own)

    def _digest(self):
        """SHA-256 over names, types and the values of plain variables, for replay checks.

        Beside it the beginnings of those of each, as far as they are few.
        """
        digest, variables = hashlib.sha256(), {}
        budget = [DIGEST_ELEMENTS_MAX]
        for name in [*self._user_names(), "answer"]:
            one = hashlib.sha256()
            for part in _fingerprint(self.names[name], budget, 0):
                one.update(part.encode("utf-8", "surrogatepass") if isinstance(part, str) else part)
                one.update(b"\0")
            digest.update(f"{name}\0".encode("utf-8", "replace") + one.digest())
            if len(variables) < VARIABLES_MAX and name.isidentifier() and len(name) <= 128:
                variables[name] = one.hexdigest()[:8]
        return digest.hexdigest(), variables

    # What cells call.

    def _llm_query(self, prompt, model=None):
        return self._ask_one("llm", prompt, model)

    def _llm_query_batched(self, prompts, model=None):
        """Answers in the order of `prompts`; a failed one is an LLMError in its place."""
        return self._ask_many("llm", prompts, model)

    def _rlm_query(self, prompt, model=None):
        return self._ask_one("rlm", prompt, model)

    def _rlm_query_batched(self, prompts, model=None):
        """As `llm_query_batched`, of sessions of their own."""
        return self._ask_many("rlm", prompts, model)

    def _unfold(self, handle):
        return unfold(self._bridge, handle)

    def _find_folds(self, question, count=3):
        return find_folds(self._bridge, question, count)

    def _budget(self):
        return json.loads(self._ask_one("budget", "", None))

    def _ask_many(self, kind, prompts, model):
        return self._bridge.ask(
            [{"kind": kind, "prompt": str(prompt), "model": model} for prompt in prompts]
        )

    def _ask_one(self, kind, prompt, model):
        (result,) = self._bridge.ask([{"kind": kind, "prompt": str(prompt), "model": model}])
        if isinstance(result, LLMError):
            raise result
        return result

    def _show_vars(self):
        lines = [
            f"{name}: {_described(self.names[name])}"
            for name in self._user_names()
            if not name.startswith("_")
        ]
        if "context" in self.names:
            lines.insert(0, f"context: {_described(self.names['context'])}")
        elif self._context_paths:
            size = sum(os.path.getsize(path) for path in self._context_paths.values())
            lines.insert(0, f"context: {size} bytes, not read yet")
        return Listing("\n".join(lines) or "no variables yet")

    def _final(self, value):
        self.names["answer"] = {"content": _as_text(value), "ready": True}

    def _final_var(self, name):
        if not isinstance(name, str) or name not in self.names:
            if isinstance(name, str):
                known = ", ".join(self._user_names()) or "none"
                raise NameError(f"there is no variable {name!r}; there are: {known}")
            return self._final(name)
        return self._final(self.names[name])


def _set_scene(message):
    """What a program that is run alone expects: its arguments, and something to read."""
    if "arguments" in message:
        sys.argv = [message.get("name", ""), *message["arguments"]]
    if message.get("stdin"):
        fd = os.open(message["stdin"], os.O_RDONLY)
        os.dup2(fd, 0)
        os.close(fd)
        sys.stdin = open(0, encoding="utf-8", errors="surrogateescape", closefd=False)


def _exited(error, done):
    code = error.code
    if code is None:
        code = 0
    elif not isinstance(code, int):
        try:
            print(code, file=sys.stderr)
        except Exception:
            pass
        code = 1
    done["exit_code"] = code & 0xFF
    done["status"] = "ok" if done["exit_code"] == 0 else "error"
    done["error"] = f"the cell ended with sys.exit({code}); the session goes on"


def _told(error):
    """The traceback as a user expects it: without the frames of the kernel."""
    try:
        frames = error.__traceback__
        while frames is not None and not frames.tb_frame.f_code.co_filename.startswith("<cell "):
            frames = frames.tb_next
        told = traceback.TracebackException(type(error), error, frames, compact=True)
        told.stack[:] = [frame for frame in told.stack if frame.filename != KERNEL_FILE]
        return cut("".join(told.format()).rstrip(), ERROR_CHARS_MAX)
    except Exception as second:
        return f"{type(error).__name__} (and {type(second).__name__} while telling it)"


def _shown(value):
    try:
        if isinstance(value, (str, bytes)) and len(value) > VALUE_CHARS_MAX:
            half = VALUE_CHARS_MAX // 2
            missing = len(value) - 2 * half
            return f"{value[:half]!r} [... {missing} cut ...] {value[-half:]!r}"[
                : 2 * VALUE_CHARS_MAX
            ]
        return cut(str(repr(value)), VALUE_CHARS_MAX)
    except Exception as error:
        return f"<{type(value).__name__} whose repr raised {type(error).__name__}: {error}>"[:1000]


def _as_text(value):
    if isinstance(value, str):
        return str(value)
    if value is None:
        return ""
    if isinstance(value, (dict, list, tuple, bool)):
        return json.dumps(value, ensure_ascii=False, default=str)
    return str(value)


def _described(value):
    kind = type(value).__name__
    try:
        return f"{kind}, {len(value)} long"
    except Exception:
        return kind


def _fingerprint(value, budget, depth):
    budget[0] -= 1
    kind = type(value)
    yield kind.__name__
    if budget[0] < 0 or depth > 8:
        return
    if value is None or kind in (bool, float, complex):
        yield repr(value)
    elif kind is int:
        yield hex(value)
    elif kind in (str, bytes):
        yield str(len(value))
        yield value[:DIGEST_EDGE_CHARS]
        yield value[-DIGEST_EDGE_CHARS:]
    elif kind in (list, tuple):
        yield str(len(value))
        for item in value:
            if budget[0] < 0:
                return
            yield from _fingerprint(item, budget, depth + 1)
    elif kind is dict:
        yield str(len(value))
        for key, item in value.items():
            if budget[0] < 0:
                return
            yield from _fingerprint(key, budget, depth + 1)
            yield from _fingerprint(item, budget, depth + 1)
    elif kind in (set, frozenset):
        yield str(len(value))
        if len(value) <= budget[0] and all(
            type(item) in (int, str, bytes, float) for item in value
        ):
            budget[0] -= len(value)
            yield from sorted(repr(item) for item in value)


def open_output(fd):
    """Line by line, so that a slow cell is seen at work; text that is no UTF-8 is no error."""
    return open(fd, "w", buffering=1, encoding="utf-8", errors="backslashreplace", closefd=False)


def listen(channel, session, cells):
    """Until the host is gone; then nobody needs this process."""
    while True:
        message = channel.receive()
        if message is None:
            os._exit(0)
        match message["op"]:
            case "open":
                cells.put(message)
            case "cell":
                cells.put(message)
            case "interrupt":
                session.interrupt()
            case "answers":
                session.answered(message)


def rehearse(session):
    """A first cell costs a millisecond more than a second: pages are copied, caches filled."""
    session.run({"cell": 0, "code": "None"})
    linecache.cache.clear()


def main():
    channel = begin()
    lead_group()
    sys.stdout, sys.stderr = open_output(1), open_output(2)
    sys.argv = [""]
    session = Session(channel)
    signal.signal(signal.SIGINT, session.on_signal)
    cells = queue.SimpleQueue()
    threading.Thread(target=listen, args=(channel, session, cells), daemon=True).start()
    rehearse(session)
    version = ".".join(str(part) for part in sys.version_info[:3])
    channel.send({"op": "ready", "version": version})
    while True:
        message = cells.get()
        if message["op"] == "open":
            session.open(message)
        else:
            channel.send(session.run(message))


main()
