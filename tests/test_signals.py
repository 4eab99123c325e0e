"""Signals that come while kernels compile: held, let in, and none lost."""

import os
import signal
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest

import fastbackprop as fb
from fastbackprop._kernels.signals import let_signals_in, signals_held

pytestmark = pytest.mark.skipif(os.name == "nt", reason="signals are POSIX's")


class EndedError(Exception):
    """What a handler raises."""


@pytest.fixture(params=[signal.SIGINT, signal.SIGTERM])
def number(request):
    """A signal whose handler raises an exception."""

    def end(number, frame):
        raise EndedError(number)

    before = signal.signal(request.param, end)
    yield request.param
    signal.signal(request.param, before)


def sent_while_held(number, passed):
    with signals_held():
        let_signals_in()
        signal.raise_signal(number)
        passed.append("held")
        let_signals_in()
        passed.append("never")


def test_a_signal_waits_until_it_is_let_in(number):
    handler = signal.getsignal(number)
    passed = []
    with pytest.raises(EndedError):
        sent_while_held(number, passed)
    assert passed == ["held"]
    assert signal.getsignal(number) is handler


def sent_before_the_end(number, passed):
    with signals_held(), signals_held():
        signal.raise_signal(number)
        passed.append("held")


def test_a_signal_waits_for_the_end(number):
    handler = signal.getsignal(number)
    passed = []
    with pytest.raises(EndedError):
        sent_before_the_end(number, passed)
    assert passed == ["held"]
    assert signal.getsignal(number) is handler
    with pytest.raises(EndedError):
        signal.raise_signal(number)


def test_an_error_leaves_the_handlers_as_they_were(number):
    handler = signal.getsignal(number)
    with pytest.raises(LookupError), signals_held():
        raise LookupError
    assert signal.getsignal(number) is handler


def test_what_the_system_does_with_a_signal_it_still_does():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with signals_held():
            assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
            signal.raise_signal(signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)


def test_other_threads_have_no_signals():
    held = []

    def hold():
        with signals_held():
            held.append(signal.getsignal(signal.SIGINT))
            let_signals_in()

    thread = threading.Thread(target=hold)
    thread.start()
    thread.join()
    assert held == [signal.getsignal(signal.SIGINT)]


INTERRUPTED = textwrap.dedent(
    """
    # Ctrl-C when so many kernels have been compiled; then on to the end.
    import signal
    import sys

    import numpy as np

    import fastbackprop as fb
    from fastbackprop._kernels.compiler import KernelCompiler

    begun, begin = 0, KernelCompiler.__init__

    def count(self, *args):
        global begun
        begun += 1
        if begun in (3, 50):
            signal.raise_signal(signal.SIGINT)
        begin(self, *args)

    KernelCompiler.__init__ = count
    net = fb.Network([4, 4], random_state=0)
    for _ in range(2):
        try:
            net.predict(np.ones((1, 4)))
        except KeyboardInterrupt:
            print("interrupted", begun)
    print(np.isfinite(net.predict(np.ones((1, 4)))).all(), begun > 100)
    """
)


@pytest.mark.skipif("FASTBACKPROP_FULL" not in os.environ, reason="compiles for some 15 seconds")
def test_a_first_compilation_that_is_interrupted_goes_on(tmp_path):
    environment = {
        **os.environ,
        "PYTHONPATH": str(Path(fb.__file__).parents[1]),
        "NUMBA_CACHE_DIR": str(tmp_path),
    }
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED], capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "interrupted 3\ninterrupted 50\nTrue True\n"
