"""A team of threads that run one job together, and what Ctrl-C does to it."""

from __future__ import annotations

import contextlib
import os
import queue
import threading
import time
import weakref
from collections.abc import Callable
from types import TracebackType

from fastbackprop.cores import current_core, spread, unbind
from fastbackprop.job import Job, compile_kernels

# Seconds after which the caller's thread looks whether Ctrl-C was pressed, if nothing woke it.
_LONGEST_WAIT = 0.05


class _Call:
    """One run of a job by every worker of a team, begun and awaited by lines that may be repeated.

    An exception such as KeyboardInterrupt may be raised between any two lines of the caller's
    thread, who then cannot know whether the last of them took effect.
    """

    def __init__(self, job: Job, numbers: range, cores: set[int]) -> None:
        self._job, self._cores = job, cores
        self._begun = dict.fromkeys(numbers, False)
        self._ended = dict.fromkeys(numbers, False)
        self._news: queue.SimpleQueue[None] = queue.SimpleQueue()
        self.failure: BaseException | None = None

    def take_part(self, number: int) -> None:
        """Do the share of worker ``number``, once."""
        if self._begun[number]:
            return
        self._begun[number] = True
        try:
            unbind(self._cores)
            self._job.run(number)
        except BaseException as error:
            self.failure = error
            self._job.abandon()
        self._ended[number] = True
        self._news.put(None)

    def wait(self) -> None:
        """Wait until all workers have done their share."""
        while not all(self._ended.values()):
            # A signal that comes just before the wait begins is not seen until it ends.
            with contextlib.suppress(queue.Empty):
                self._news.get(timeout=_LONGEST_WAIT)


class Team:
    """Threads that run one job together; a context manager, since they must not outlive it.

    The first run that needs them starts them.

    In the background of long work the caller's thread only waits, so that Ctrl-C reaches it at
    once: it then asks the kernel to stop, which drops the step that it is in, waits for that, and
    lets the KeyboardInterrupt go on. In short work it takes the first share, which is a thread less
    to start.

    Parameters
    ----------
    threads : int
        How many take part.
    background : bool
        Whether the work is long enough that the caller's thread must stay free for Ctrl-C.
    """

    def __init__(self, threads: int, *, background: bool = True) -> None:
        self.threads = threads
        self._numbers = range(0 if background else 1, threads)  # the shares of the workers
        self._calls: list[queue.SimpleQueue[object]] = []
        self._workers: list[threading.Thread] = []
        self._process = 0

    def __enter__(self) -> Team:
        return self  # `run` begins the threads, so that none is there before the body

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.dismiss()

    def dismiss(self) -> None:
        """Let the threads end, and wait for that; again does no harm.

        Whoever uses a team calls it once more after ``with``: Ctrl-C may have come when the end of
        that had yet to begin.
        """
        interrupt = _insist(self._end)
        if interrupt is not None:
            raise interrupt

    def _end(self, interrupted: bool) -> None:
        """What `dismiss` does, which may be called again after an exception."""
        for calls in self._calls:
            calls.put(None)
        for worker in self._workers:
            if interrupted or worker.ident is None:
                _wait_until_gone(worker)
            else:
                worker.join()

    def _gather(self) -> None:
        """Start the workers."""
        self._calls, self._workers, self._process = [], [], os.getpid()
        try:
            for number in self._numbers:
                calls: queue.SimpleQueue[object] = queue.SimpleQueue()
                worker = threading.Thread(
                    target=_work,
                    args=(calls, number, weakref.ref(self, calls.put)),
                    name=f"fastbackprop-{number}",
                    daemon=True,
                )
                self._calls.append(calls)
                self._workers.append(worker)
                worker.start()
        except BaseException:
            # The last of them may be about to come to life, and is not to be joined.
            _insist(lambda interrupted: self._end(interrupted=True))
            self._process = 0
            raise

    def _spread(self, numbers: range) -> set[int]:
        """Let workers wake apart from each other and from the caller's thread, if it takes part."""
        if self.threads == 1 or not numbers:
            return set()
        place = current_core() if 0 not in self._numbers else -1
        threads = [worker.native_id for worker in self._workers[: len(numbers)]]
        return spread(dict(zip(numbers, threads, strict=True)), self.threads, place)

    def run(self, job: Job, threads: int | None = None) -> None:
        """Run the job to its last step, by all of the team or by its first ``threads``.

        Raises
        ------
        KeyboardInterrupt
            After Ctrl-C, when all threads have come back; the step that they were in is dropped.
        """
        compile_kernels(job.dtype)
        job.begin()
        numbers = self._numbers if threads is None else range(self._numbers.start, threads)
        if numbers and os.getpid() != self._process:  # at first, and after a callback has forked
            self._gather()
        call = _Call(job, numbers, self._spread(numbers))
        takes_first = 0 not in self._numbers

        def take_part(interrupted: bool) -> None:
            if interrupted:
                job.request_stop()
                if takes_first and not job.has_run_first:
                    job.abandon()  # to run it again might fail again, for ever
            for calls in self._calls[: len(numbers)]:
                calls.put(call)
            if takes_first and not interrupted:
                job.run(0)
            call.wait()

        interrupt = _insist(take_part)
        failure = interrupt if call.failure is None else call.failure
        if failure is not None:
            raise failure


def _insist(work: Callable[[bool], None]) -> BaseException | None:
    """Call ``work`` until it returns; no exception leaves before, and the last one is returned.

    Its argument is whether there was one. Handlers of several signals may raise one after another:
    the second one here, where the first has been caught, comes to the outer loop.
    """
    interrupt: BaseException | None = None
    while True:
        try:
            while True:
                try:
                    work(interrupt is not None)
                    return interrupt
                except BaseException as error:
                    interrupt = error
        except BaseException as error:
            interrupt = error


def _run_here(job: Job) -> None:
    """Run a job of one thread in the caller's."""
    compile_kernels(job.dtype)
    job.begin()
    job.run(0)


def _wait_until_gone(worker: threading.Thread) -> None:
    """Wait for the end of a thread whose start, or the wait for which, was interrupted.

    `Thread.join` cannot be called again then: in Python 3.11 it may believe that a running thread
    has ended, or wait for one that has.
    """
    deadline = time.monotonic() + 0.1
    while worker in threading.enumerate():
        if worker.ident is None and time.monotonic() > deadline:
            return  # it was interrupted before there was a thread
        time.sleep(0.001)


def run_together(job: Job, threads: int, *, background: bool) -> None:
    """Run a job by a team of its own; the arguments are those of `Team`.

    Raises
    ------
    KeyboardInterrupt
        After Ctrl-C, as from `Team.run`.
    """
    if threads == 1 and not background:  # nothing to start, in the microseconds of a small step
        _run_here(job)
        return
    team = Team(threads, background=background)
    try:
        with team:
            team.run(job)
    finally:
        team.dismiss()


def _work(calls: queue.SimpleQueue[object], number: int, team: weakref.ref[Team]) -> None:
    """The life of a worker: to take part in each call until anything else is among them.

    It is None where the team is dismissed. Where so many exceptions came that it was not, ``team``
    puts itself there when nobody holds the team any longer; no line of Python runs in between.
    """
    while isinstance(call := calls.get(), _Call):
        call.take_part(number)
