"""Which of two numbers of threads takes the next steps of a training: the one that was faster.

Any number gives the same bits, so it may change between two steps. A model of the costs says which
one begins. But whether other cores are there when they are wanted decides more than any model can:
a step of 784-30-10, with two barriers, takes 8 µs on one thread and 5.3 on two; on a machine whose
cores others used as well it took 11 to 18, and 11 to 29.
"""

from __future__ import annotations

# Steps before anything is known of their time.
_FIRST_STEPS = 4

# What steps must take to tell how fast they are: to start threads, and to wake them, takes a while.
_TOLD_SECONDS = 1e-3

# How long training goes on before the other number is tried, and for how long that is.
_SECONDS_BEFORE = 8e-3
_TRIAL_SECONDS = 3e-3

# It is tried again after a wait that doubles each time, or of 32 times what the trial took; but not
# after more than a second, or one trial that was held up would be the last.
_SHORTEST_WAIT = 0.05
_TRIAL_SHARE = 32
_LONGEST_WAIT = 1.0

# A turn is no longer than this, so that a core that others have taken is noticed.
_LONGEST_TURN = 0.2

# What the other number must save to be taken, so that noise does not change it all the time.
_LEAST_SAVED = 0.05


class Pace:
    """Seconds that rows took by one and another number of threads.

    Parameters
    ----------
    threads : int
        The number that begins.
    other : int
        The one to be tried; the same where none is.
    """

    def __init__(self, threads: int, other: int) -> None:
        self._threads, self._other = threads, other
        self._seconds: dict[int, float] = {}  # of a row, when last measured
        self._has_been_told = False  # whether that of the one that begins is from enough steps
        self._until_trial = _SECONDS_BEFORE
        self._wait = _SHORTEST_WAIT

    @property
    def most(self) -> int:
        """The larger number of threads."""
        return max(self._threads, self._other)

    def next(self, left: int, batch: int) -> tuple[int, int]:
        """Threads for the next steps of ``batch`` rows, and how many: at most ``left``."""
        if self._threads == self._other:
            return self._threads, left
        if self._threads not in self._seconds:
            return self._threads, min(left, _FIRST_STEPS)
        step = self._seconds[self._threads] * batch
        if left * step < _TOLD_SECONDS:
            return self._threads, left
        if self._until_trial > 0.0:
            seconds = min(self._until_trial, _LONGEST_TURN)
            return self._threads, min(left, int(seconds / step) + 1)
        return self._other, min(left, int(_TRIAL_SECONDS / step) + 1)

    def note(self, threads: int, rows: int, seconds: float) -> None:
        """Remember what the steps of the last `next` took, on so many rows."""
        if threads != self._threads:
            self._note_trial(threads, rows, seconds)
            return
        is_first = threads not in self._seconds
        tells = seconds >= _TOLD_SECONDS and not is_first
        if tells or not self._has_been_told:
            self._seconds[threads] = seconds / rows
            self._has_been_told = tells
        if not is_first:
            self._until_trial -= seconds
        if self._is_faster(self._other, self._threads):
            self._until_trial = 0.0  # it was, once; perhaps it is again

    def _note_trial(self, threads: int, rows: int, seconds: float) -> None:
        self._seconds[threads] = seconds / rows
        self._until_trial = min(max(self._wait, _TRIAL_SHARE * seconds), _LONGEST_WAIT)
        self._wait = min(2 * self._wait, _LONGEST_WAIT)
        if self._is_faster(self._other, self._threads):
            self._threads, self._other = self._other, self._threads

    def _is_faster(self, one: int, another: int) -> bool:
        known = self._seconds
        return one in known and known[one] < (1 - _LEAST_SAVED) * known[another]
