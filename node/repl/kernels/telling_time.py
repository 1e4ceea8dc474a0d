# What cells of Python are told of the time of day: noted as they ask, and told again where they run
# again, so that their variables come out the same. It stands in front of `python_kernel.py`.
#
# Other processes and most code of C look at the machine's clock themselves, and so does whoever
# measures how long something takes (`time.monotonic`, `time.perf_counter`).

import collections
import datetime
import gc
import time

READINGS_MAX = 256  # as `repl.CLOCK_READINGS_MAX`


class Readings:
    """Of one cell, in microseconds since 1970, in order; behind the given ones time goes on."""

    def __init__(self):
        self._real_ns = time.time_ns
        self._given = collections.deque()
        self.noted = []

    def begin(self, given):
        self._given = collections.deque(given)
        self.noted = []

    def microseconds(self):
        try:
            reading = self._given.popleft()
        except IndexError:
            reading = max(0, self._real_ns() // 1000)  # a calendar may be set wrong
        if len(self.noted) < READINGS_MAX:
            self.noted.append(reading)
        return reading

    def seconds(self):
        return self.microseconds() / 1_000_000


def tell_time(readings):
    """Have `time` and `datetime` ask `readings` for the time of day."""
    time.time = readings.seconds
    time.time_ns = lambda: readings.microseconds() * 1000
    for name in ("localtime", "gmtime", "ctime"):
        setattr(time, name, _of_now(getattr(time, name)))
    strftime = time.strftime
    time.strftime = lambda words, at=None: strftime(words, time.localtime() if at is None else at)

    # `today` asks `time.time`; these two ask the machine. A class of C takes new methods only in
    # the dictionary behind its `__dict__`; CPython has cached none of them so far.
    def now(cls, tz=None):
        return cls.fromtimestamp(readings.seconds(), tz)

    def utcnow(cls):
        return cls.fromtimestamp(readings.seconds(), datetime.timezone.utc).replace(tzinfo=None)

    (methods,) = gc.get_referents(datetime.datetime.__dict__)
    methods.update(now=classmethod(now), utcnow=classmethod(utcnow))


def _of_now(function):
    def told(seconds=None):
        return function(time.time() if seconds is None else seconds)

    return told
