"""Interrupts at any line of training: what Ctrl-C raises, where the scripts of tests want it."""

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

from fastbackprop import (
    epochs,
    history,
    resumption,
    spare,
    state,
    stepping,
    storage,
    team,
    training,
)

FOLDERS = Path(epochs.__file__).parents[1], Path(__file__).parent  # where scripts find modules
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, FOLDERS))}

FILES = tuple(module.__file__ for module in (team, stepping, epochs, training))
FILES_OF_HISTORY = (history.__file__,)
FILES_OF_STATE = tuple(module.__file__ for module in (state, spare))
FILES_OF_RESUMPTION = tuple(module.__file__ for module in (resumption, state, storage))


def run(script, *arguments):
    """What a script prints; it must end well."""
    done = subprocess.run(
        [sys.executable, "-c", script, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=300,
        env=ENVIRONMENT,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


def what_goes_on(net):
    """All that decides how the training of a network goes on, but for its data."""
    slots = {name: slot.tobytes() for name, slot in net._state.slots.items()}
    counts = net._state.seed, net._state.epoch, net._state.steps
    return net.get_parameters().tobytes(), slots, counts, net._state.optimizer


class InterruptAt:
    """A context manager that raises an exception at one of the lines of some files that run.

    Parameters
    ----------
    line : int
        The number of that line among those that run, from 0.
    again : int, optional
        Another exception comes when so many more functions of these files have been entered.
    error : type, default KeyboardInterrupt
        What is raised.
    files : tuple of str, default FILES
        The files.
    """

    def __init__(self, line, again=None, error=KeyboardInterrupt, files=FILES):
        self._lines, self._entries, self._error, self._files = line, again, error, files

    def __enter__(self):
        sys.settrace(self._trace)

    def __exit__(self, *_):
        sys.settrace(None)
        sys.setprofile(None)

    def _trace(self, frame, event, argument):
        if frame.f_code.co_filename not in self._files:
            return None
        if event == "line":
            if self._lines == 0:  # Python traces no further then, but it profiles
                if self._entries is not None:
                    sys.setprofile(self._profile)
                raise self._error
            self._lines -= 1
        return self._trace

    def _profile(self, frame, event, argument):
        if event == "call" and frame.f_code.co_filename in self._files:
            if self._entries == 0:
                raise self._error
            self._entries -= 1


def wait_for_threads():
    """Wait for threads that nobody awaits, but that must be about to end."""
    deadline = time.monotonic() + 60
    while threading.active_count() > 1:
        assert time.monotonic() < deadline, threading.enumerate()
