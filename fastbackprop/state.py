"""All that a network holds and training changes: parameters, optimizer state, counters, seed."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from fastbackprop import schedules
from fastbackprop._kernels import codes
from fastbackprop.finite import is_surely_finite
from fastbackprop.optimizers import Optimizer
from fastbackprop.plan import Array, Plan
from fastbackprop.spare import Spare

# Which of the kernels' three slots holds which of an optimizer's arrays.
_SLOT_PLACES = {
    codes.SGD: (),
    codes.MOMENTUM: ("momentum",),
    codes.ADAM: ("first_moment", "second_moment"),
    codes.RMSPROP: ("second_moment", "first_moment", "momentum"),
}


# Buffers larger than this are not kept from one call for the next.
_KEPT_BYTES = 16 * 1024 * 1024


class Idle:
    """Calls that are prepared on a network's parameters, and in use by no thread; and the like.

    To set up all that a kernel reads takes longer than to run it on a few rows. A call is taken by
    one thread at a time, which gives it back; one that ended by an error is not used again. So is
    what a training has found out about threads.
    """

    def __init__(self) -> None:
        self._calls: dict[Any, list[Any]] = {}

    def take(self, key: Any) -> Any:
        """A call of this kind, which is the caller's own until `keep`; None if there is none."""
        # Single operations of a dict and a list, which threads may do at the same time.
        try:
            return self._calls[key].pop()
        except (KeyError, IndexError):
            return None

    def keep(self, key: Any, call: Any, n_bytes: int) -> None:
        """Give a call back for later, unless its buffers are large."""
        if n_bytes <= _KEPT_BYTES:
            self._calls.setdefault(key, []).append(call)


# Parameters that are looked at together: for all of them, NumPy would make as many truth values.
_PIECE = 1 << 18


class Former(NamedTuple):
    """The optimizer state from before a training that may have to be undone."""

    optimizer: Optimizer | None
    slots: dict[str, Array]
    steps: int
    rate_factor: float
    spares: tuple[Spare, ...] = ()  # of the slots, where the training overwrites them


class State:
    """Parameters and what goes with them.

    Attributes
    ----------
    params : ndarray
        Flat and padded, see `Plan`.
    optimizer : Optimizer or None
        What `slots` and `steps` belong to.
    slots : dict of str to ndarray
        The optimizer's arrays, laid out like `params`.
    steps : int
        Optimizer steps taken.
    rate_factor : float
        What multiplies the optimizer's learning rate; 1 when it begins afresh.
    frozen : frozenset of int
        Stages whose parameters training leaves as they are.
    epoch : int
        Epochs begun over all calls of fit: with `seed`, it decides the order of rows and the
        dropout masks.
    idle : Idle
        Calls prepared on these very parameters; a copy has none.
    """

    def __init__(self, plan: Plan, seed: int = 0) -> None:
        self.plan = plan
        self.params = plan.zeros()
        self.seed = seed
        self.optimizer: Optimizer | None = None
        self.slots: dict[str, Array] = {}
        self.steps = 0
        self.rate_factor = 1.0
        self.frozen: frozenset[int] = frozenset()
        self.epoch = 0
        self.idle = Idle()

    @property
    def is_finite(self) -> bool:
        """Whether every parameter is finite."""
        if is_surely_finite(self.params):
            return True
        pieces = range(0, self.params.size, _PIECE)
        return all(np.isfinite(self.params[start : start + _PIECE]).all() for start in pieces)

    def first_not_finite(self) -> str:
        """The first parameter that is not finite, of a state that has one: "weights[1][3, 5]"."""
        for i, matrix in enumerate(self.plan.matrices(self.params)):
            bad = ~np.isfinite(matrix)
            if bad.any():
                row, column = np.unravel_index(bad.argmax(), bad.shape)
                is_weight = row < self.plan.stages[i].dense.n_in
                return f"weights[{i}][{row}, {column}]" if is_weight else f"biases[{i}][{column}]"
        raise ValueError("every parameter is finite")

    def steps_with(self, optimizer: Optimizer) -> int:
        """Steps that an equal optimizer has taken: the number of its next one."""
        return self.steps if optimizer == self.optimizer else 0

    def rates(self, optimizer: Optimizer, n_steps: int) -> Array:
        """The learning rates of an optimizer's next steps."""
        factor = self.rate_factor if optimizer == self.optimizer else 1.0
        rate = optimizer.learning_rate
        if isinstance(rate, float):  # which the optimizer has checked
            return np.full(n_steps, rate * factor)
        return schedules.rates(rate, self.steps_with(optimizer), n_steps) * factor

    def use(self, optimizer: Optimizer) -> None:
        """Go on with an equal optimizer; begin afresh with another."""
        if optimizer != self.optimizer:
            self.forget()
            self.slots = {name: self.plan.zeros() for name in optimizer.slot_names}
            self.optimizer = optimizer

    def former(self, optimizer: Optimizer) -> Former:
        """What `restore` needs to undo a training with ``optimizer``."""
        goes_on = optimizer == self.optimizer
        spares = tuple(Spare(slot) for slot in self.slots.values()) if goes_on else ()
        for spare in spares:
            spare.keep()
        return Former(self.optimizer, self.slots, self.steps, self.rate_factor, spares)

    def restore(self, former: Former | None) -> None:
        """Put back an optimizer state; None drops it."""
        if former is None:
            self.forget()
            return
        self.optimizer, self.steps = former.optimizer, former.steps
        self.rate_factor = former.rate_factor
        for spare in former.spares:
            spare.put_back()
        self.slots = former.slots

    def forget(self) -> None:
        """Drop the optimizer's state."""
        self.optimizer, self.slots, self.steps, self.rate_factor = None, {}, 0, 1.0

    def copy(self, *, keep_optimizer: bool) -> State:
        """A state with arrays of its own, which takes no more memory than these.

        Plan and optimizer are specifications, and the same: a schedule of the user's may be equal
        to nothing but itself.
        """
        twin = State(self.plan, self.seed)
        twin.params[...] = self.params
        twin.frozen, twin.epoch = self.frozen, self.epoch
        if keep_optimizer and self.optimizer is not None:
            twin.use(self.optimizer)
            for name, slot in twin.slots.items():
                slot[...] = self.slots[name]
            twin.steps, twin.rate_factor = self.steps, self.rate_factor
        return twin

    def __deepcopy__(self, memo: dict[int, Any]) -> State:
        return self.copy(keep_optimizer=True)

    def __getstate__(self) -> dict[str, Any]:
        padded = {"params": self.params, **self.slots}
        return {
            **vars(self),
            "slots": {},
            "params": None,
            "idle": Idle(),
            "packed": {name: self.plan.pack(flat) for name, flat in padded.items()},
        }

    def __setstate__(self, saved: dict[str, Any]) -> None:
        # Alignment to cache lines does not survive a copy of the buffers.
        packed = saved.pop("packed")
        vars(self).update(saved)
        for name, values in packed.items():
            flat = self.plan.zeros()
            self.plan.unpack(values, flat)
            if name == "params":
                self.params = flat
            else:
                self.slots[name] = flat

    def slot_arrays(self) -> dict[str, Array | None]:
        """The slots by the names that a job gives them."""
        if self.optimizer is None:
            return {}
        places = _SLOT_PLACES[self.optimizer.code]
        return {f"slot{number}": self.slots.get(name) for number, name in enumerate(places)}
