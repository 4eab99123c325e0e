"""Networks of many shapes whose every buffer ends, or begins, at a page that may not be touched.

    python tests/guard_pages.py after 100

runs 100 drawn cases; a read or a write beyond a buffer ends the process. Before each call of the
kernels all arrays that they are given move to such places, and back when they return; what is
theirs to overwrite, and the padding of parameters, is filled with NaN first. It prints a digest of
all results, which is the same with `after`, `before` and `nowhere`, where nothing of this is done.

With `heap` each array is a block of its own, for a checker such as Valgrind, which watches its
bounds. What is theirs to overwrite is not filled then: the checker also reports a branch or an
address that depends on what no kernel has written. Valgrind knows AVX2 at most, so kernels are
compiled for it, once without the checker; and its processor has another BLAS, which is asked for so
that the digest is the same again:

    export FASTBACKPROP_SIMD=256 NUMBA_CPU_NAME=haswell NUMBA_CPU_FEATURES=+avx,+avx2,+fma
    export NUMBA_CACHE_DIR=$(mktemp -d) PYTHONMALLOC=malloc OPENBLAS_CORETYPE=Haswell
    export VALGRIND_OPTS="--redzone-size=256 --malloc-fill=0xff --error-limit=no"
    python tests/guard_pages.py heap 24
    valgrind --log-file=valgrind.txt python tests/guard_pages.py heap 24
    grep -c "at 0x[0-9A-F]*: ???$" valgrind.txt

An error in a kernel is one whose address has no name ("at 0x4A2B1C0: ???"), and there must be none:
the last line prints 0. Others are Python's own. --track-origins=yes tells whose bytes they were.
"""

import contextlib
import ctypes
import hashlib
import mmap
import sys
import warnings
from collections import defaultdict

import numpy as np
from comparison import ELEMENTWISE, LOSSES, OUTPUTS, make_targets

import fastbackprop as fb
from fastbackprop import epochs, inference, team
from fastbackprop._kernels.columns import WAIT
from fastbackprop.job import _WORDS, Job

_PAGE = mmap.PAGESIZE
_PROT_NONE = 0
_LIBC = ctypes.CDLL(None, use_errno=True)
_LIBC.malloc.restype = ctypes.c_void_p
_LIBC.malloc.argtypes = [ctypes.c_size_t]
_MAPPED = []  # what must stay
_FREE = defaultdict(list)  # places by their number of pages

# What kernels must overwrite before they read it, but for `_waits`.
_OVERWRITTEN = ("work", "scratch", "outputs", "row_loss", "row_score", "row_norms")


def _bounds(array):
    """The first byte of an array with any strides, and the one after the last."""
    low, high = array.ctypes.data, array.ctypes.data + array.itemsize
    if array.size == 0:
        return low, low
    for n, stride in zip(array.shape, array.strides, strict=True):
        low, high = low + min(0, (n - 1) * stride), high + max(0, (n - 1) * stride)
    return low, high


def _place(n_pages):
    """The address of free pages with a forbidden one on either side."""
    if _FREE[n_pages]:
        return _FREE[n_pages].pop()
    memory = mmap.mmap(-1, (n_pages + 2) * _PAGE)
    _MAPPED.append(memory)
    start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    for guard in (start, start + (n_pages + 1) * _PAGE):
        if _LIBC.mprotect(ctypes.c_void_p(guard), _PAGE, _PROT_NONE) != 0:
            raise OSError(ctypes.get_errno(), "mprotect")
    return start + _PAGE


def _block(size):
    """The address of so many bytes of the heap, as Valgrind watches them."""
    return _LIBC.malloc(size)


def _view(array, address):
    """An array like another, whose first element is elsewhere."""
    low, high = _bounds(array)
    offset = array.ctypes.data - low
    memory = (ctypes.c_char * (high - low)).from_address(address)
    return np.ndarray(array.shape, array.dtype, memory, offset, array.strides)


def _waits(job):
    """The one number of each thread's scratch memory that kernels keep from call to call.

    It says how many batches they pass before they look for columns of zeros again: with any number
    they have the same results, but they do read it first.
    """
    threads, stride, columns = (
        int(job._integers[_WORDS[name]]) for name in ("threads", "scratch_stride", "columns")
    )
    scratch = job._alive["scratch"]
    rows = scratch[: threads * stride].reshape(threads, stride)
    lists = rows[:, columns : columns + 64 // scratch.itemsize].view(np.int64)
    return lists[:, WAIT] if columns else lists[:, :0]


@contextlib.contextmanager
def moved(job, side):
    """Let the arrays of a job lie at guard pages, on one side, while its kernels run."""
    former = dict(job._alive)
    stop, barrier = job._stop, job._barrier
    places = []
    for name, array in former.items():
        low, high = _bounds(array)
        size = high - low
        n_pages = max(-(-size // _PAGE), 1)
        if side == "heap":
            start = address = _block(size)
        else:
            start = _place(n_pages)
            address = start + (n_pages * _PAGE - size if side == "after" else 0)
        if name not in _OVERWRITTEN:
            ctypes.memmove(address, low, size)
        elif side != "heap":
            ctypes.memset(address, 0xFF, size)  # a NaN of any type
        job.point(**{name: _view(array, address)})
        places.append((array, low, size, address, n_pages, start))
    job._stop, job._barrier = job._alive["stop"], job._alive["barrier"]
    if "scratch" in former:
        _waits(job)[...] = 0
    try:
        yield
    finally:
        for array, low, size, address, n_pages, start in places:
            if array.flags.writeable:
                ctypes.memmove(low, address, size)
            if side == "heap":
                _LIBC.free(ctypes.c_void_p(start))
            else:
                _FREE[n_pages].append(start)
        job._stop, job._barrier = stop, barrier
        job.point(**former)


def guard(side):
    """Move the arrays of all calls of kernels from now on."""
    run_team, run_here, run_few = team.Team.run, team._run_here, inference._FewRows.__call__
    run_share = Job.run

    def run(self, job, threads=None):
        with moved(job, side):
            run_team(self, job, threads)

    def run_alone(job):
        with moved(job, side):
            run_here(job)

    def call(self, X):
        # The rows are copied to where the job has them, so the job must be moved for good.
        if not isinstance(self._x.base, ctypes.Array):
            self._guard = moved(self._job, side)
            self._guard.__enter__()
            self._x, self._outputs = (self._job._alive[name] for name in ("x", "outputs"))
            self._take(len(X))
        return run_few(self, X)

    def run_moved(self, thread):
        assert isinstance(self._barrier.base, ctypes.Array), "a call whose arrays have not moved"
        run_share(self, thread)

    team.Team.run, team._run_here, inference._FewRows.__call__ = run, run_alone, call
    Job.run = run_moved


# ----------------------------------------------------------------------------------------- cases

_SIZES = [*range(1, 20), *(edge + i for edge in (24, 32, 48, 64, 80, 96) for i in (-1, 0, 1)), 100]
_SPLIT = [255, 256, 257, 271, 300, 512]  # from 256 inputs on, sums are made in two halves
_LARGE = [[600, 1000, 5], [5, 1100, 700, 3], [9000, 70, 2], [40, 290, 2000]]  # products are packed
_ROWS = [*range(1, 20), 31, 33, 63, 64, 65, 100, 129]
_X_TYPES = ["float32", "float64", "uint8", "int64", "int16", "bool"]


def _network(rng, *, is_large):
    depth = rng.integers(1, 5)
    sizes = rng.choice(_SIZES, depth + 1).tolist()
    if is_large:
        sizes = _LARGE[rng.integers(len(_LARGE))]
        depth = len(sizes) - 1
    elif rng.random() < 0.3:
        sizes[rng.integers(depth)] = int(rng.choice(_SPLIT))
    loss = str(rng.choice(LOSSES))
    layers = [fb.Rescaling(0.5, -0.25)] if rng.random() < 0.3 else []
    dropout = rng.random() < 0.4
    for i in range(depth):
        if dropout and rng.random() < 0.5:
            layers.append(fb.Dropout(0.3))
        activation = str(rng.choice(ELEMENTWISE))
        if i == depth - 1 and loss in OUTPUTS:
            activation = OUTPUTS[loss]
        layers.append(fb.Dense(*sizes[i : i + 2], activation, bool(rng.random() < 0.7)))
    dtype = str(rng.choice(["float32", "float64"]))
    net = fb.Network(layers, loss=loss, random_state=rng, dtype=dtype)
    if depth > 1 and rng.random() < 0.2:
        net.freeze(int(rng.integers(depth)))
    return net


def _inputs(rng, n, n_in):
    """Rows of some type and layout, often with columns of zeros, which kernels leave out."""
    X = rng.integers(0, 3, (n, n_in)).astype(str(rng.choice(_X_TYPES)))
    if rng.random() < 0.6:
        edges = np.sort(rng.integers(0, n_in + 1, 6))
        for left, right in edges.reshape(3, 2):
            X[:, left:right] = 0
    layout = rng.integers(5)
    if layout == 0:
        return np.asfortranarray(X)
    if layout == 1:
        return np.repeat(np.repeat(X, 2, axis=0), 3, axis=1)[::2, ::3]
    if layout == 2:
        return X[::-1, ::-1]
    return X


def _optimizer(rng):
    kinds = [
        fb.SGD(1e-3),
        fb.SGD(1e-3, momentum=0.9, nesterov=True),
        fb.SGD(1e-3, clip_norm=0.1),
        fb.Adam(1e-3),
        fb.AdamW(1e-3, clip_norm=1.0),
        fb.RMSprop(1e-3, centered=True, momentum=0.9),
    ]
    return kinds[rng.integers(len(kinds))]


def _spoil(net, value):
    """Put a value into the padding of all rows of parameters and slots."""
    state = net._state
    for flat in (state.params, *state.slots.values()):
        values = state.plan.pack(flat)
        flat[...] = value
        state.plan.unpack(values, flat)


def results_of_network(rng, spoils, *, is_large):
    """All that a network can be asked for, after some training: arrays and numbers."""
    net = _network(rng, is_large=is_large)
    n_in, n_out = net.sizes[0], net.sizes[-1]
    # From 1,024 rows on, steps of a small network are cut into chunks.
    n = int(rng.choice([1024, 1100])) if rng.random() < 0.1 else int(rng.choice(_ROWS))
    if is_large:
        n = int(rng.integers(200, 500))
    X = _inputs(rng, n, n_in)
    y = make_targets(rng, net.loss_function.name, n, n_out)
    if net.loss_function.is_classification and n_out > 1 and rng.random() < 0.5:
        y = rng.integers(0, n_out, n)
    weights = rng.random(n) + 0.1 if rng.random() < 0.3 else None
    batch_size = n if n >= 200 else int(rng.integers(1, n + 1))
    threads = int(rng.integers(1, 4))
    optimizer = _optimizer(rng)
    loss = net.train_step(X, y, optimizer)
    if spoils:
        _spoil(net, 1e4)  # a NaN would count as one among the parameters
    history = net.fit(
        X, y, 2, batch_size, optimizer, sample_weight=weights, threads=threads, verbose=0
    )
    if spoils:
        _spoil(net, np.nan)
    value, gradients = net.loss_and_gradients(X, y, weights)
    return [
        np.asarray([loss, *history["loss"]]),
        net.get_parameters(),
        np.float64(value),
        *(part for pair in gradients for part in pair if part is not None),
        net.predict(X),
        net.predict(X[:1]),
        np.float64(net.evaluate(X, y, weights)["loss"]),
        net.input_gradient(X, y, weights),
        net.jacobian(X[0]),
    ]


def results_of_estimator(rng):
    """What only the estimators do: a penalty, L-BFGS, and rows of which most elements are 0."""
    import scipy.sparse

    from fastbackprop.sklearn import MLPClassifier

    n, n_in = int(rng.choice(_ROWS)) + 10, int(rng.choice(_SIZES))
    X = rng.standard_normal((n, n_in)) * (rng.random((n, n_in)) < 0.3)
    y = np.arange(n) % 3
    solver = str(rng.choice(["adam", "sgd", "lbfgs"]))
    model = MLPClassifier(
        rng.choice(_SIZES, 2), solver=solver, alpha=0.1, batch_size=7, max_iter=3, random_state=0
    )
    rows = scipy.sparse.csr_array(X.astype(str(rng.choice(["float32", "float64"]))))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of too few iterations
        model.fit(rows if rng.random() < 0.7 else X, y)
    return [*model.coefs_, *model.intercepts_, model.predict_proba(rows)]


def as_many_layers_by_inputs_as_can_be(plan, rows, threads):
    """A choice that small networks would not make."""
    possible = 0
    while possible < len(plan.stages) and plan.stages[possible].is_split:
        possible += 1
    return possible if threads > 1 else 0


def main(side, n_cases):
    if side != "nowhere":
        guard(side)
    by_speed = epochs.layers_by_inputs
    digest = hashlib.sha256()
    for seed in range(int(n_cases)):
        inference._STAGED_BYTES = (64 * 1024, 0)[seed % 2]  # none, so that few rows stay in place
        by_inputs = as_many_layers_by_inputs_as_can_be if seed % 3 else by_speed
        epochs.layers_by_inputs = by_inputs
        print(seed, end=" ", file=sys.stderr, flush=True)
        rng = np.random.default_rng(seed)
        results = (
            results_of_estimator(rng)
            if seed % 8 == 7
            else results_of_network(rng, spoils=side != "nowhere", is_large=seed % 64 == 5)
        )
        for result in results:
            digest.update(np.ascontiguousarray(result).tobytes())
    print(digest.hexdigest())


def overrun(side):
    """Write one byte beyond a buffer, which must not be survived."""
    job = Job(fb.Network([3, 2])._state.plan, np.zeros(16, np.float32))
    with moved(job, side):
        low, high = _bounds(job._alive["params"])
        ctypes.memset(high if side == "after" else low - 1, 0, 1)


if __name__ == "__main__":
    if sys.argv[2] == "overrun":
        overrun(sys.argv[1])
    else:
        main(*sys.argv[1:])
