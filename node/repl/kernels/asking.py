# What a cell of Python has besides Python: its context, questions to the host, the folded history.
# `channel.py` and `limiting.py` stand in front, `python_kernel.py` behind.

import queue

CALLS_PER_FRAME = 256
PIECE_CHARS_MIN = 16 * 1024  # a shorter piece is the last one
CHARS_PER_FRAME = 1024 * 1024


class LLMError(Exception):
    """A sub-call that got no answer. `llm_query` raises it, `llm_query_batched` returns it.

    `code` is a word for programs: `budget_spent`, `no_peer`, `busy`, `too_long`...
    """

    def __init__(self, words, code="failed"):
        super().__init__(words)
        self.code = code


class Inputs(dict):
    """The context when there are several inputs: name to text, read when first touched."""

    def __init__(self, paths):
        super().__init__(dict.fromkeys(paths))
        self._paths = dict(paths)

    def __getitem__(self, name):
        if name in self._paths:
            super().__setitem__(name, read_text(self._paths.pop(name)))
        return super().__getitem__(name)

    def __setitem__(self, name, value):
        self._paths.pop(name, None)
        super().__setitem__(name, value)

    def __delitem__(self, name):
        self._paths.pop(name, None)
        super().__delitem__(name)

    # Overridden so that `dict(context)` and `{**context}` do not copy past __getitem__.
    def __iter__(self):
        return super().__iter__()

    def get(self, name, default=None):
        return self[name] if name in self else default

    def pop(self, name, *default):
        if name not in self:
            return super().pop(name, *default)
        value = self[name]
        del self[name]
        return value

    def values(self):
        return [self[name] for name in self]

    def items(self):
        return [(name, self[name]) for name in self]

    def copy(self):
        return dict(self.items())

    def __eq__(self, other):
        return self.copy() == other

    def __repr__(self):
        waiting = ", ".join(self._paths)
        return f"<inputs {list(self)}" + (f", not read yet: {waiting}>" if waiting else ">")

    __hash__ = None


def read_text(path):
    with open(path, "rb") as file:
        return file.read().decode("utf-8", "replace")


class Bridge:
    """Questions to the host, and the threads that wait for the answers."""

    def __init__(self, channel):
        self._channel = channel
        self._waiting = {}
        self._lock = threading.Lock()
        self._next = 0
        self._is_open = False

    def open(self):
        with self._lock:
            self._is_open = True

    def close(self):
        """The cell is over: nobody will answer what is still asked."""
        with self._lock:
            self._is_open = False
            waiting, self._waiting = self._waiting, {}
        for box in waiting.values():
            box.put(None)

    def ask(self, calls):
        """One text or LLMError per call, in order."""
        boxes = [self._ask_some(part) for part in _split(calls)]
        results = []
        for box, part in zip(boxes, _split(calls)):
            answers = box if isinstance(box, list) else box.get()
            if answers is None:
                answers = [{"error": "the cell ended before the answer came"}] * len(part)
            results.extend(_text_or_error(answer) for answer in answers)
        return results

    def answered(self, number, results):
        with self._lock:
            box = self._waiting.pop(number, None)
        if box is not None:
            box.put(results)

    def _ask_some(self, calls):
        box = queue.SimpleQueue()
        with self._lock:
            if not self._is_open:
                return [{"error": "no cell is running"}] * len(calls)
            self._next += 1
            number = self._next
            self._waiting[number] = box
        try:
            self._channel.send({"op": "calls", "id": number, "calls": calls})
        except FrameTooLongError as error:
            with self._lock:
                self._waiting.pop(number, None)
            return [{"error": str(error)}] * len(calls)
        return box


def _split(calls):
    """Parts small enough for a frame each, unless one call alone is too long."""
    part, chars = [], 0
    for call in calls:
        size = len(call["prompt"])
        if part and (len(part) == CALLS_PER_FRAME or chars + size > CHARS_PER_FRAME):
            yield part
            part, chars = [], 0
        part.append(call)
        chars += size
    if part:
        yield part


def _text_or_error(answer):
    text = answer.get("text")
    if isinstance(text, str):
        return text
    return LLMError(answer.get("error") or "no answer", answer.get("code") or "failed")


def unfold(bridge, handle):
    """All of what was folded away under this handle; it comes in pieces."""
    pieces, size = [], 0
    while True:
        place = f"{handle}:{size}" if size else str(handle)
        (piece,) = bridge.ask([{"kind": "unfold", "prompt": place, "model": None}])
        if isinstance(piece, LLMError):
            raise piece
        pieces.append(piece)
        size += len(piece)
        if len(piece) < PIECE_CHARS_MIN:
            return "".join(pieces)


def find_folds(bridge, question, count):
    """The folds nearest to a question: {handle, score, text}, the nearest first."""
    (found,) = bridge.ask([{"kind": "find", "prompt": str(question), "model": None}])
    if isinstance(found, LLMError):
        raise found
    return json.loads(found)[:count]


class History:
    """What was folded away, oldest first; asked of the host when touched."""

    def __init__(self, bridge):
        self._bridge = bridge

    def _texts(self):
        (result,) = self._bridge.ask([{"kind": "history", "prompt": "", "model": None}])
        if isinstance(result, LLMError):
            raise result
        return json.loads(result)

    def __getitem__(self, index):
        return self._texts()[index]

    def __len__(self):
        return len(self._texts())

    def __iter__(self):
        return iter(self._texts())

    def __repr__(self):
        try:
            return repr(self._texts())
        except LLMError as error:
            return f"<history: {error}>"
