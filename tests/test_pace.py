"""Which number of threads takes the next steps, from what steps took."""

import copy
import itertools
from types import SimpleNamespace

import numpy as np
import pytest
from comparison import bits

import fastbackprop as fb
from fastbackprop import division, epochs
from fastbackprop.pace import Pace


def run(pace, seconds, steps, start=0.0):
    """Take ``steps`` steps, each of ``seconds[threads]``; returns what was taken, in order.

    ``start`` seconds are added to the first call.
    """
    turns = []
    while steps:
        threads, count = pace.next(steps, 1)
        assert 1 <= count <= steps
        turns.append((threads, count * seconds[threads]))
        pace.note(threads, count, start + turns[-1][1])
        steps -= count
        start = 0.0
    return turns


def spent(turns, threads):
    return sum(seconds for number, seconds in turns if number == threads)


def trials(turns, threads):
    """What was taken between the turns of a number that is tried."""
    return [
        sum(seconds for _, seconds in others)
        for is_other, others in itertools.groupby(turns, lambda turn: turn[0] != threads)
        if is_other
    ]


def test_one_number_takes_all_steps_at_once():
    pace = Pace(3, 3)
    assert pace.most == 3
    assert pace.next(10**6, 1) == (3, 10**6)
    pace.note(3, 10**6, 1.0)
    assert pace.next(5, 1) == (3, 5)


@pytest.mark.parametrize("choices", [(1, 4), (4, 1)])
@pytest.mark.parametrize("fast", [1, 4])
@pytest.mark.parametrize("step", [1e-6, 5e-6, 1e-4, 2e-3])
def test_the_faster_is_found_and_kept(choices, fast, step):
    seconds = {1: step, 4: step}
    seconds[5 - fast] *= 1.5
    pace = Pace(*choices)
    assert pace.most == 4
    first = run(pace, seconds, int(0.2 / step))
    assert pace.next(1, 1)[0] == fast
    # 8 ms before the first trial, one of 3 ms, and those to come of a 32nd at most.
    assert spent(first, 5 - fast) <= 0.020 * 1.5
    later = run(pace, seconds, int(10 / step))
    assert spent(later, 5 - fast) <= (spent(later, 1) + spent(later, 4)) / 20
    # Something else runs on the other cores now.
    seconds[fast] *= 4
    run(pace, seconds, int(0.5 / step))
    assert pace.next(1, 1)[0] != fast


@pytest.mark.parametrize("start", [0.0002, 0.001, 0.003, 0.03])
@pytest.mark.parametrize("choices", [(1, 2), (2, 1)])
def test_the_first_call_tells_nothing(choices, start):
    """It starts threads."""
    pace = Pace(*choices)
    turns = run(pace, {1: 8e-6, 2: 5e-6}, 6000, start)
    assert turns[-1][0] == 2
    assert spent(turns, 1) <= 0.009


def test_trials_become_rare():
    turns = run(Pace(1, 2), {1: 5e-6, 2: 6e-6}, 2_000_000)
    waits = trials(turns, 2)
    expected = [0.008, 32 * 0.0036, 32 * 0.0036, 0.2, 0.4, 0.8, 1.0, 1.0]
    np.testing.assert_allclose(waits[:8], expected, rtol=0.01)
    # The trial itself takes long.
    turns = run(Pace(1, 2), {1: 5e-6, 2: 30e-6}, 2_000_000)
    np.testing.assert_allclose(trials(turns, 2)[:4], [0.008, *3 * [32 * 0.018]], rtol=0.01)


def test_a_trial_that_is_held_up_is_not_the_last():
    pace = Pace(1, 2)
    run(pace, {1: 5e-6}, 1604)
    threads, count = pace.next(10**6, 1)
    assert threads == 2
    pace.note(threads, count, 10.0)
    turns = run(pace, {1: 5e-6, 2: 3e-6}, 400_000)
    assert trials(turns, 2)[0] == pytest.approx(1.0, rel=0.01)
    assert turns[-1][0] == 2


def test_one_that_has_become_slower_is_compared_at_once():
    pace = Pace(1, 2)
    seconds = {1: 5e-6, 2: 6e-6}
    run(pace, seconds, 400_000)
    seconds[1] = 9e-6
    turns = run(pace, seconds, 200_000)
    # The turn that was under way had as many steps as were to take up to 0.2 seconds.
    assert [threads for threads, _ in turns][:3] == [1, 2, 2]


def test_little_difference_changes_nothing():
    pace = Pace(1, 2)
    run(pace, {1: 1e-5, 2: 0.97e-5}, 100_000)
    assert pace.next(1, 1)[0] == 1


def test_few_steps_tell_nothing():
    """A team was found to be faster; then steps come in small parts, each with its start."""
    pace = Pace(2, 1)
    run(pace, {1: 1e-5, 2: 0.6e-5}, 20_000)
    for _ in range(50):
        threads, count = pace.next(4, 1)
        pace.note(threads, count, count * 0.6e-5 + 100e-6)
    assert pace.next(1, 1)[0] == 2
    # One trial, of as many steps as the team would take in 3 ms.
    assert spent(run(pace, {1: 1e-5, 2: 0.6e-5}, 10_000), 1) < 0.0051


def test_parts_too_short_to_tell_are_no_trials():
    pace = Pace(1, 2)
    run(pace, {1: 5e-6}, 4)
    for _ in range(10_000):
        assert pace.next(10, 1) == (1, 10)
        pace.note(1, 10, 10 * 5e-6)
    assert pace.next(1000, 1)[0] == 2


def test_a_short_trial_tells():
    """It has as many steps as the other number takes a millisecond for, and may be faster."""
    pace = Pace(1, 2)
    run(pace, {1: 5e-6}, 1604)
    assert pace.next(220, 1) == (2, 220)
    pace.note(2, 220, 220 * 1e-6)
    assert pace.next(100, 1)[0] == 2


def test_batches_of_different_sizes():
    pace = Pace(1, 2)
    sizes = itertools.cycle([1, 20])
    turns = []
    for _ in range(20_000):
        batch = next(sizes)
        threads, count = pace.next(1, batch)
        assert count == 1
        turns.append((threads, batch * {1: 2e-3, 2: 1.2e-3}[threads]))
        pace.note(threads, batch, turns[-1][1])
    assert spent(turns, 1) < 0.05 * spent(turns, 2)


def choices(sizes, batch, rows, requested=None):
    plan = fb.Network(sizes)._state.plan
    threads = division.epoch_threads(requested, plan, batch, rows)
    return threads, division.threads_to_try(threads, requested, plan, batch, rows)


@pytest.fixture
def two_cores(monkeypatch):
    """As the model sees them, whatever the vectors of this run."""
    monkeypatch.setattr(division, "available_threads", lambda: 2)
    monkeypatch.setattr(division, "VECTOR_BITS", 512)


@pytest.mark.usefixtures("two_cores")
def test_what_is_tried(monkeypatch):
    assert choices([784, 30, 10], 10, 50_000) == (1, 2)
    assert choices([784, 128, 10], 64, 60_000) == (2, 1)
    assert choices([784, 512, 512, 10], 128, 60_000) == (2, 2)  # long steps need no trial
    assert choices([784, 30, 10], 10, 100) == (1, 1)  # less than a team takes to start
    assert choices([784, 30, 10], 10, 50_000, requested=2) == (2, 2)
    monkeypatch.setattr(division, "available_threads", lambda: 1)
    assert choices([784, 30, 10], 10, 50_000) == (1, 1)
    monkeypatch.setattr(division, "available_threads", lambda: 16)
    threads, other = choices([784, 30, 10], 10, 50_000)
    assert threads == 1
    assert 2 <= other <= 16


@pytest.fixture
def watched(monkeypatch, two_cores):
    """A training on two cores, whose clock says that a row takes one thread 20 µs, two 10 µs."""
    taken, now = [], [0.0]

    class Watched(Pace):
        def note(self, threads, rows, seconds):
            super().note(threads, rows, seconds)
            taken.append((self, threads, rows))

    class Team(epochs.Team):
        def run(self, job, threads=None):
            super().run(job, threads)
            now[0] += job.steps_done * 8 * 20e-6 / threads

    monkeypatch.setattr(epochs, "Pace", Watched)
    monkeypatch.setattr(epochs, "Team", Team)
    monkeypatch.setattr(epochs, "time", SimpleNamespace(perf_counter=lambda: now[0]))
    return taken


def test_training_takes_the_faster_and_remembers_it(watched):
    rng = np.random.default_rng(0)
    X, y = rng.random((9600, 64)), rng.integers(0, 3, 9600)

    def fit(net, threads):
        net.fit(X, y, 2, 8, threads=threads, verbose=0)
        return bits(net)

    nets = [fb.Network([64, 30, 3], random_state=0) for _ in range(2)]
    assert choices([64, 30, 3], 8, 9600) == (1, 2)
    fit(nets[0], None)
    assert sum(rows for _, _, rows in watched) == 2 * 9600
    numbers = [threads for _, threads, _ in watched]
    assert numbers[0] == 1
    assert numbers[-1] == 2
    first = watched[0][0]
    watched.clear()
    fit(nets[0], None)
    assert {pace for pace, _, _ in watched} == {first}
    assert watched[0][1] == 2
    watched.clear()
    fit(nets[1], 1)
    np.testing.assert_array_equal(fit(nets[1], 1), bits(nets[0]))
    assert {threads for _, threads, _ in watched} == {1}
    # A copy finds out for itself.
    watched.clear()
    fit(copy.deepcopy(nets[0]), None)
    assert first not in {pace for pace, _, _ in watched}
