"""Ends that nobody planned: whole steps, no thread left behind, and a network that goes on."""

import copy
import os
import sys
import textwrap
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from comparison import bits
from interruption import run

import fastbackprop as fb
from fastbackprop import data, division, epochs, job, probe, team

POSIX = pytest.mark.skipif(os.name == "nt", reason="signals are POSIX's")


# ------------------------------------------------------------------------------ long updates


def test_which_updates_are_long():
    def plan_of(sizes):
        return fb.Network(sizes)._state.plan

    wide = plan_of([4096, 4096, 10])
    assert division.has_long_updates(wide, 2000)
    assert not division.has_long_updates(wide, 255)  # to store would cost more than it saves
    assert not division.has_long_updates(plan_of([784, 512, 512, 10]), 128)
    assert division.has_long_updates(plan_of([784, 512, 512, 10]), 60_000)


OPTIMIZERS = [
    fb.SGD(0.1),
    fb.SGD(0.1, momentum=0.9, weight_decay=0.01),
    fb.Adam(0.01),
    fb.Adam(0.01, clip_norm=0.05),
    fb.RMSprop(0.01, centered=True, momentum=0.5),
]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_stored_gradient_gives_the_same_steps(optimizer, dtype, monkeypatch):
    rng = np.random.default_rng(0)
    X, y = rng.standard_normal((70, 300)), rng.integers(0, 3, 70)

    def trained(threads):
        chain = [fb.Dense(300, 40, "gelu"), fb.Dropout(0.2), fb.Dense(40, 3)]
        net = fb.Network(chain, loss="cross_entropy", random_state=0, dtype=dtype)
        history = net.fit(X, y, 3, 20, optimizer, threads=threads, verbose=0)
        return net.get_parameters(), history["loss"]

    fused, losses = trained(1)
    monkeypatch.setattr(job, "has_long_updates", lambda plan, rows: True)
    stored, stored_losses = trained(1)
    tolerance = 1e-5 if dtype == "float32" else 1e-12
    np.testing.assert_allclose(stored, fused, rtol=0, atol=tolerance)
    np.testing.assert_allclose(stored_losses, losses, rtol=tolerance)
    for threads in (2, 3):
        np.testing.assert_array_equal(trained(threads)[0], stored)


# ---------------------------------------------------------------------- Ctrl-C at any moment

AT_RANDOM = textwrap.dedent(
    """
    # Interrupts training at random moments: the parameters are those after whole steps.
    import copy
    import random
    import signal
    import sys
    import threading

    import numpy as np

    import fastbackprop as fb
    from fastbackprop import epochs, job

    background, stores, threads, batch = map(int, sys.argv[1:5])
    epochs.is_long = lambda plan, rows: bool(background)
    if stores:
        job.has_long_updates = lambda plan, rows: True
    rng = np.random.default_rng(0)
    n = 2 * batch
    sizes = [*map(int, sys.argv[5].split(",")), 3]
    start = fb.Network(sizes, "relu", "cross_entropy", random_state=0)
    X, y = rng.standard_normal((n, start.sizes[0]), dtype="float32"), rng.integers(0, 3, n)
    adam = fb.Adam(1e-3)
    options = dict(batch_size=batch, optimizer=adam, shuffle=False, threads=threads, verbose=0)

    EPOCHS = 12
    twin, states = copy.deepcopy(start), {}
    states[twin.get_parameters().tobytes()] = 0
    for epoch in range(EPOCHS):
        for i in range(0, n, batch):
            twin.train_step(X[i : i + batch], y[i : i + batch], adam)
            states[twin.get_parameters().tobytes()] = len(states)
    main, draw = threading.main_thread().ident, random.Random(0)

    def interrupt(net, waits, turns):
        before = start.biases[-1]
        while waits and np.array_equal(net.biases[-1], before):
            pass
        for _ in range(turns):
            pass
        signal.pthread_kill(main, signal.SIGINT)

    seen, finished = set(), 0
    for _ in range(40):
        net = copy.deepcopy(start)
        try:
            arguments = net, draw.random() < 0.8, draw.randrange(300_000)
            other = threading.Thread(target=interrupt, args=arguments)
            try:
                other.start()
                net.fit(X, y, EPOCHS, **options)
                finished += 1
            finally:
                other.join()
        except KeyboardInterrupt:
            pass
        assert threading.active_count() == 1
        steps = states[net.get_parameters().tobytes()]
        assert net.history.epoch == list(range(len(net.history.epoch)))
        assert len(net.history.epoch) in (steps // 2, (steps - 1) // 2), (steps, net.history.epoch)
        seen.add(steps)
        net.fit(X, y, 1, **options)
        assert np.isfinite(net.get_parameters()).all()
    # In short work the caller takes the first share, and sees Ctrl-C between epochs only.
    assert len(seen) > (2 if background else 1), (seen, finished)
    print("whole steps")
    """
)


@POSIX
@pytest.mark.parametrize(
    ("background", "stores", "threads", "batch", "layers"),
    [
        (1, 0, 1, 300, "300,200"),
        (1, 0, 2, 300, "300,200"),
        (1, 1, 1, 300, "300,200"),
        (1, 1, 2, 300, "300,200"),
        (1, 1, 3, 300, "300,200"),
        (1, 0, 2, 16, "2000,300,300"),  # divided by inputs
        (1, 1, 2, 16, "2000,300,300"),
        (1, 0, 2, 3000, "20,16"),  # cut into chunks
        (0, 0, 1, 300, "300,200"),
        (0, 0, 2, 300, "300,200"),
        (0, 0, 3, 300, "300,200"),
    ],
)
def test_ctrl_c_leaves_whole_steps(background, stores, threads, batch, layers):
    assert run(AT_RANDOM, background, stores, threads, batch, layers) == "whole steps\n"


HUGE_STEP = textwrap.dedent(
    """
    # A step of a minute: Ctrl-C drops it.
    import signal
    import sys
    import threading

    import numpy as np

    import fastbackprop as fb

    net = fb.Network([784, 2048, 2048, 10], "relu", "cross_entropy", random_state=0)
    n = 60_000
    X, y = np.broadcast_to(np.float32(0.5), (n, 784)), np.zeros(n, int)
    net.predict(X[:1])
    before = net.get_parameters()
    main = threading.main_thread().ident

    def interrupt():
        while not any(thread.name == "fastbackprop-0" for thread in threading.enumerate()):
            pass
        for _ in range(2_000_000):
            pass
        signal.pthread_kill(main, signal.SIGINT)

    calls = {
        "fit": lambda: net.fit(X, y, 1, n, fb.SGD(0.1), shuffle=False, verbose=0),
        "train_step": lambda: net.train_step(X, y, fb.SGD(0.1)),
        "loss_and_gradients": lambda: net.loss_and_gradients(X, y),
        "predict": lambda: [net.predict(X) for _ in range(1000)],
        "evaluate": lambda: [net.evaluate(X, y) for _ in range(1000)],
    }
    for name, call in calls.items():
        other = threading.Thread(target=interrupt)
        try:
            try:
                other.start()
                call()
            finally:
                other.join()
        except KeyboardInterrupt:
            print(name)
        assert threading.active_count() == 1
        assert np.array_equal(net.get_parameters(), before)
        assert net.history.epoch == []
    net.fit(X[:10], y[:10], 1, verbose=0)
    """
)


@POSIX
def test_ctrl_c_drops_a_huge_step():
    calls = run(HUGE_STEP).split()
    assert calls == ["fit", "train_step", "loss_and_gradients", "predict", "evaluate"]


AT_EACH_LINE = textwrap.dedent(
    """
    # Interrupts training at each of its lines in turn.
    import copy
    import sys
    import threading

    import numpy as np
    from interruption import InterruptAt

    import fastbackprop as fb
    from fastbackprop import epochs

    background = int(sys.argv[1])
    epochs.is_long = lambda plan, rows: bool(background)
    start = fb.Network([3, 40, 2], loss="cross_entropy", random_state=0)
    X, y = np.eye(3), np.array([0, 1, 1])
    sgd = fb.SGD(0.1)
    twin = copy.deepcopy(start)
    states = {twin.get_parameters().tobytes(): 0}
    for _ in range(3):
        for i in range(3):
            twin.train_step(X[i : i + 1], y[i : i + 1], sgd)
            states[twin.get_parameters().tobytes()] = len(states)

    lines, completed = 0, False
    while not completed:
        net = copy.deepcopy(start)
        options = dict(shuffle=False, threads=2, verbose=0, validation_data=(X, y))
        try:
            with InterruptAt(lines):
                net.fit(X, y, 2, 1, sgd, **options)
            completed = True
        except KeyboardInterrupt:
            lines += 1
        assert threading.active_count() == 1
        # The optimizer counts no step, or each once; what it counts decides how it goes on.
        assert states[net.get_parameters().tobytes()] == net._state.steps, lines
        done = len(net.history.epoch)
        assert net.history.epoch == list(range(done))
        assert net.fit(X, y, 1, 1, sgd, verbose=0).epoch[0] in (done, done + 1), lines
    print(lines)
    """
)


@pytest.mark.parametrize("background", [0, 1])
def test_ctrl_c_at_any_line_of_training(background):
    assert int(run(AT_EACH_LINE, background)) > 200


TWICE = textwrap.dedent(
    """
    # Interrupts training at each of its lines, and then again: no thread stays.
    import sys

    import numpy as np
    from interruption import InterruptAt, wait_for_threads

    import fastbackprop as fb
    from fastbackprop import epochs

    background = int(sys.argv[1])
    epochs.is_long = lambda plan, rows: bool(background)
    net = fb.Network([3, 40, 2], loss="cross_entropy", random_state=0)
    X, y = np.eye(3), np.array([0, 1, 1])
    net.fit(X, y, 1, threads=2, verbose=0)
    lines = 0
    while True:
        for again in range(6):
            try:
                with InterruptAt(lines, again):
                    net.fit(X, y, 1, threads=2, verbose=0)
                print(lines)
                sys.exit()
            except KeyboardInterrupt:
                pass
            wait_for_threads()
        lines += 1
    """
)


@pytest.mark.parametrize("background", [0, 1])
def test_ctrl_c_and_again_leaves_no_thread(background):
    assert int(run(TWICE, background)) > 100


AFTER_DIVERGENCE = textwrap.dedent(
    """
    # Interrupts training that diverges at each of its lines.
    import copy
    import sys

    import numpy as np
    from interruption import InterruptAt

    import fastbackprop as fb

    X, y, sgd = np.ones((4, 3)), np.ones((4, 2)), fb.SGD(0.01, momentum=0.9)
    start = fb.Network([3, 4, 2], "relu", "mse", random_state=0)
    error = {"KeyboardInterrupt": KeyboardInterrupt, "SystemExit": SystemExit}[sys.argv[1]]
    calls = {
        "fit": lambda net, scale: net.fit(X * scale, y, 2, 2, sgd, verbose=0),
        "train_step": lambda net, scale: net.train_step(X * scale, y, sgd),
    }
    for name, call in calls.items():
        lines, ended = 0, False
        while not ended:
            net = copy.deepcopy(start)
            try:
                with InterruptAt(lines, error=error):
                    call(net, 1e30)
            except fb.DivergenceError:
                ended = True
            except error:
                lines += 1
            assert np.isfinite(net.get_parameters()).all(), (name, lines)
            call(net, 1)
        print(name, lines)
    """
)


@pytest.mark.parametrize("error", ["KeyboardInterrupt", "SystemExit"])
def test_an_interrupt_leaves_no_training_that_has_diverged(error):
    lines = dict(line.split() for line in run(AFTER_DIVERGENCE, error).splitlines())
    assert int(lines["fit"]) > 50
    assert int(lines["train_step"]) > 20


GOING_BACK = textwrap.dedent(
    """
    # Interrupts, at each line, a training that goes back since its last batch is refused.
    import copy
    import sys

    import numpy as np
    from interruption import FILES, FILES_OF_STATE, InterruptAt, what_goes_on

    import fastbackprop as fb
    from fastbackprop import spare

    spare._IN_MEMORY_BYTES = int(sys.argv[1])
    spare._PIECE_BYTES = 64
    momentum, nan = fb.SGD(0.1, momentum=0.9), np.full((1, 3), np.nan)
    good = [(np.ones((1, 3)), np.array([label])) for label in (0, 1, 1)]
    start = fb.Network([3, 7, 2], loss="cross_entropy", random_state=0)

    twin, states = start.clone(), []
    for X, y in good * 2:
        states.append(what_goes_on(twin))
        twin.train_step(X, y, momentum)
    before = start.clone()
    for X, y in good:
        before.train_step(X, y, momentum)

    lines, ended = 0, False
    while not ended:
        net = before.clone(keep_optimizer=True)
        try:
            with InterruptAt(lines, files=(*FILES, *FILES_OF_STATE)):
                net.fit([*good[:2], (nan, good[2][1])], None, 1, optimizer=momentum, verbose=0)
        except ValueError:
            ended = True
        except KeyboardInterrupt:
            lines += 1
        assert what_goes_on(net) in states[3:], lines
    print(lines)
    """
)


@pytest.mark.parametrize("in_memory", [0, 10**6])
def test_ctrl_c_while_training_goes_back(in_memory):
    assert int(run(GOING_BACK, in_memory)) > 100


RESUMING = textwrap.dedent(
    """
    # Interrupts, at each line, a training that is resumed and has nothing left to do.
    import sys

    import numpy as np
    from interruption import FILES_OF_RESUMPTION, InterruptAt, what_goes_on

    import fastbackprop as fb

    X, y = np.eye(3), np.array([0, 1, 1])
    options = dict(optimizer=fb.Adam(0.1), verbose=0)

    def network(seed):
        return fb.Network([3, 7, 5, 2], loss="cross_entropy", random_state=seed)

    other = network(1)
    other.fit(X, y, 2, callbacks=fb.Checkpoint(sys.argv[1]), **options)
    start = network(0)
    start.fit(X, y, 3, **options)
    lines, completed, seen = 0, False, set()
    while not completed:
        net = start.clone(keep_optimizer=True)
        try:
            with InterruptAt(lines, files=FILES_OF_RESUMPTION):
                net.fit(X, y, 2, resume_from=sys.argv[1], **options)
            completed = True
        except KeyboardInterrupt:
            lines += 1
        equal = [what_goes_on(net) == what_goes_on(twin) for twin in (start, other)]
        assert any(equal), lines
        seen.add(equal.index(True))
        assert net.history.epoch in ([], [0, 1])
    assert seen == {0, 1}
    print(lines)
    """
)


def test_ctrl_c_while_training_is_resumed(tmp_path):
    assert int(run(RESUMING, tmp_path)) > 100


def test_an_interrupted_evaluation_does_not_undo_the_epoch():
    def interrupt(y, outputs):
        raise KeyboardInterrupt

    X, y = np.eye(4), np.arange(4)
    net = fb.Network([4, 4], loss="cross_entropy", random_state=0)
    with pytest.raises(KeyboardInterrupt):
        net.fit(X, y, 2, validation_data=(X, y), metrics=[interrupt], verbose=0)
    assert net.history.epoch == [0]
    assert net.fit(X, y, 1, verbose=0).epoch == [1]


# ---------------------------------------------------------------------------- threads that end


def native_threads():
    """Threads of this process as the system counts them, where it does."""
    tasks = Path("/proc/self/task")
    return len(list(tasks.iterdir())) if tasks.exists() else threading.active_count()


def wait_for_native_threads(count):
    """The system ends a thread a moment after Python does."""
    deadline = time.monotonic() + 30
    while native_threads() > count:
        assert time.monotonic() < deadline, native_threads()


class Raise(fb.Callback):
    def __init__(self, hook, error=LookupError):
        def fail(*_):
            raise error

        setattr(self, hook, fail)


def broken_batches():
    yield np.ones((3, 4)), np.zeros(3, int)
    yield np.ones((3, 4)), np.zeros(3, int)
    raise LookupError


X, Y = np.eye(4), np.arange(4)
NAN = np.where(np.eye(4) == 1, np.nan, 0)
ENDS = {
    "as planned": (None, {}),
    "on_train_begin": (LookupError, {"callbacks": Raise("on_train_begin")}),
    "on_epoch_begin": (LookupError, {"callbacks": Raise("on_epoch_begin")}),
    "on_epoch_end": (LookupError, {"callbacks": Raise("on_epoch_end")}),
    "on_train_end": (LookupError, {"callbacks": Raise("on_train_end")}),
    "exit": (SystemExit, {"callbacks": Raise("on_epoch_end", SystemExit)}),
    "interrupt": (KeyboardInterrupt, {"callbacks": Raise("on_epoch_end", KeyboardInterrupt)}),
    "divergence": (fb.DivergenceError, {"optimizer": fb.SGD(3e38)}),
    "bad row": (ValueError, {"X": NAN}),
    "source": (LookupError, {"X": broken_batches(), "y": None, "steps_per_epoch": 5}),
    "schedule": (ValueError, {"optimizer": fb.SGD(lambda step: 0.1 if step < 3 else -1.0)}),
    "metric": (
        LookupError,
        {"validation_data": (X, Y), "metrics": {"broken": lambda y, outputs: {}["missing"]}},
    ),
    "monitor": (ValueError, {"callbacks": fb.EarlyStopping()}),
    "state": (TypeError, {"callbacks": "checkpoint"}),
}


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("end", ENDS)
def test_no_thread_outlives_fit(end, threads, tmp_path):
    error, options = ENDS[end]
    options = dict(options)
    if end == "state":
        odd = fb.Callback()
        odd.state = lambda: {"a": object()}
        options["callbacks"] = [odd, fb.Checkpoint(tmp_path)]
    if end == "source" and threads == 3:
        options["X"] = broken_batches()
    net = fb.Network([4, 8, 4], loss="cross_entropy", random_state=0)
    net.fit(X, Y, 1, verbose=0)
    before, native = threading.enumerate(), native_threads()
    call = {"X": X, "y": Y, "epochs": 9, "batch_size": 2, "threads": threads, "verbose": 0}
    if error is None:
        net.fit(**{**call, **options})
    else:
        with pytest.raises(error):
            net.fit(**{**call, **options})
    assert threading.enumerate() == before
    wait_for_native_threads(native)
    assert np.isfinite(bits(net).view(net.dtype)).all()
    done = len(net.history.epoch)
    assert net.fit(X, Y, 1, verbose=0).epoch[0] >= done


@pytest.mark.parametrize("end", ["on_train_begin", "on_epoch_begin", "memory"])
@pytest.mark.parametrize("optimizer", [fb.Adam(0.01), fb.RMSprop(0.02)])
def test_a_training_that_never_began_leaves_the_former_optimizer_as_it_was(
    end, optimizer, monkeypatch
):
    net = fb.Network([4, 8, 4], loss="cross_entropy", random_state=0)
    net.fit(X, Y, 2, optimizer=fb.Adam(0.01), verbose=0)
    twin = copy.deepcopy(net)
    callbacks = []
    if end == "memory":
        monkeypatch.setattr(epochs, "Spare", Raise("Spare").Spare)
    else:
        callbacks = [Raise(end)]
    with pytest.raises(LookupError):
        net.fit(X, Y, 2, optimizer=optimizer, callbacks=callbacks, verbose=0)
    monkeypatch.undo()
    assert net.history.epoch == [0, 1]
    for each in (net, twin):
        each.fit(X, Y, 2, optimizer=fb.Adam(0.01), verbose=0)
    np.testing.assert_array_equal(bits(net), bits(twin))


# ------------------------------------------------------------- exceptions one after the other


def lines_of(function):
    """The numbers of a function's lines, and of those of functions within it."""
    code = function.__code__
    codes = [code, *(part for part in code.co_consts if hasattr(part, "co_lines"))]
    return {line for part in codes for _, _, line in part.co_lines() if line}


@pytest.mark.parametrize("background", [False, True])
def test_an_exception_while_another_is_handled(background, monkeypatch):
    """Two signals at once: at any line where a team works, and where it is asked to stop."""
    monkeypatch.setattr(epochs, "is_long", lambda plan, rows: background)
    X, y = np.eye(3), np.array([0, 1, 1])
    start = fb.Network([3, 40, 2], loss="cross_entropy", random_state=0)
    start.fit(X, y, 1, threads=2, verbose=0)  # compiles
    request_stop = job.Job.request_stop
    before = set(threading.enumerate())  # other tests leave executors of other libraries
    for line in lines_of(team.Team.run) | lines_of(team._insist):
        pending = [KeyboardInterrupt(), LookupError()]

        def trace(frame, event, argument, line=line, pending=pending):
            if frame.f_code.co_filename != team.__file__:
                return None
            if event == "line" and frame.f_lineno == line and len(pending) == 2:
                raise pending.pop(0)
            return trace

        def stop(asked, pending=pending):
            if len(pending) == 1:
                raise pending.pop()
            request_stop(asked)

        monkeypatch.setattr(job.Job, "request_stop", stop)
        net = copy.deepcopy(start)
        sys.settrace(trace)
        try:
            net.fit(X, y, 1, threads=2, verbose=0)
        except (KeyboardInterrupt, LookupError):
            assert len(pending) < 2
        finally:
            sys.settrace(None)
        assert set(threading.enumerate()) <= before, line
        net.fit(X, y, 1, threads=2, verbose=0)


# --------------------------------------------------------------------- shares and teams that fail


@pytest.mark.parametrize("background", [False, True])
@pytest.mark.parametrize("sizes", [[3, 40, 2], [2000, 300, 2]], ids=["by rows", "by inputs"])
@pytest.mark.parametrize("number", [0, 1, 2])
def test_a_share_that_fails_ends_the_step(number, sizes, background, monkeypatch):
    """However often it would fail, and wherever the other threads wait for it."""
    monkeypatch.setattr(epochs, "is_long", lambda plan, rows: background)
    X, y = np.ones((6, sizes[0]), np.float32), np.array([0, 1, 1] * 2)
    net = fb.Network(sizes, loss="cross_entropy", random_state=0)
    net.fit(X, y, 1, 2, threads=3, verbose=0)
    before, threads = bits(net), set(threading.enumerate())
    share = job.Job.run

    def fail(asked, thread):
        if thread == number:
            raise MemoryError
        share(asked, thread)

    with monkeypatch.context() as patches:
        patches.setattr(job.Job, "run", fail)
        with pytest.raises(MemoryError):
            net.fit(X, y, 1, 2, threads=3, verbose=0)
    assert np.array_equal(bits(net), before)
    assert set(threading.enumerate()) <= threads
    assert net.fit(X, y, 1, 2, threads=3, verbose=0).epoch == [1]


def test_a_team_whose_threads_did_not_start_can_start_them_again(monkeypatch):
    net = fb.Network([4, 8, 4], loss="cross_entropy", random_state=0)
    job_of_rows = probe.data_job(net._state, data.checked_data(net._state.plan, X, Y))
    job_of_rows.reserve(net._state.plan, 4, 3, shared=False)
    losses = np.full(4, np.nan)
    job_of_rows.point(row_loss=losses, row_score=np.empty(4))
    job_of_rows.set(evaluates=1, last=4)
    start = threading.Thread.start

    def fail(thread):
        if thread.name == "fastbackprop-2":
            raise RuntimeError("can't start new thread")
        start(thread)

    with team.Team(3) as together:
        with monkeypatch.context() as patches:
            patches.setattr(threading.Thread, "start", fail)
            with pytest.raises(RuntimeError, match="can't start new thread"):
                together.run(job_of_rows)
        together.run(job_of_rows)
    assert np.isclose(losses.mean(), net.loss(X, Y))


def test_a_step_that_fails_leaves_the_optimizers_state(monkeypatch):
    net = fb.Network([4, 8, 4], loss="cross_entropy", random_state=0)
    net.train_step(X, Y, fb.Adam())
    twin = net.clone(keep_optimizer=True)

    def fail(asked, thread):
        raise MemoryError

    with monkeypatch.context() as patches:
        patches.setattr(job.Job, "run", fail)
        with pytest.raises(MemoryError):
            net.train_step(X, Y, fb.SGD())
    for each in (net, twin):
        each.train_step(X, Y, fb.Adam())
    np.testing.assert_array_equal(bits(net), bits(twin))
