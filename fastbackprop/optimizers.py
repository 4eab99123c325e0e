"""Optimizers: how a gradient changes the parameters, with PyTorch's formulas and defaults.

An optimizer here is a specification. Its state (step count, moments) lives in the network and
goes on when a later `fit` or `train_step` is given an equal optimizer.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from fastbackprop import schedules
from fastbackprop._kernels import codes
from fastbackprop.schedules import RATE, LearningRate
from fastbackprop.specs import (
    BELOW_ONE,
    NON_NEGATIVE,
    POSITIVE,
    Spec,
    checked_flag,
    checked_number,
    known_name,
    spec_from_config,
)

HYPERPARAMETERS = (
    "momentum",
    "dampening",
    "nesterov",
    "beta1",
    "beta2",
    "eps",
    "alpha",
    "weight_decay",
    "decoupled",
    "centered",
    "clip_norm",
)
"""The keys of `Optimizer.hyperparameters`, the same for every optimizer."""


@dataclass(frozen=True, repr=False)
class Optimizer(Spec, ABC):
    """What all optimizers share.

    With parameters p, gradients g and learning rate η, every step first clips (if `clip_norm`
    is given), g ← g · min(1, clip_norm / (‖g‖ + 10⁻⁶)), with ‖g‖ the L2 norm of all gradients
    of the network together, as torch.nn.utils.clip_grad_norm_ does; then adds weight decay,
    g ← g + weight_decay · p, except in AdamW; then does what its class says.

    Parameters
    ----------
    learning_rate : float, Schedule or callable
        Positive, or a schedule, or a function from the step's number (from 0) to the rate.
        Two optimizers with functions are equal only if it is the same function object.
    weight_decay : float, default 0.0
        At least 0. It applies to every parameter, biases too, as in PyTorch.
    clip_norm : float, optional
        The largest global norm of a gradient; positive. None does not clip.

    Raises
    ------
    TypeError
        If an argument is not of the type named. Booleans are not numbers.
    ValueError
        If a number is out of its range.
    """

    learning_rate: LearningRate = 1e-3
    weight_decay: float = field(default=0.0, kw_only=True)
    clip_norm: float | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        if not callable(self.learning_rate):
            rate = checked_number("learning_rate", self.learning_rate, RATE)
            self._set(learning_rate=rate)
        self._set(weight_decay=checked_number("weight_decay", self.weight_decay, NON_NEGATIVE))
        if self.clip_norm is not None:
            self._set(clip_norm=checked_number("clip_norm", self.clip_norm, POSITIVE))

    @property
    @abstractmethod
    def code(self) -> int:
        """The integer by which the kernels know it."""

    @property
    @abstractmethod
    def slot_names(self) -> tuple[str, ...]:
        """The names of the arrays of state it keeps, each as large as the parameters."""

    @property
    def n_slots(self) -> int:
        """How many arrays of state it keeps, each as large as the parameters."""
        return len(self.slot_names)

    def hyperparameters(self) -> dict[str, float]:
        """Return all numbers but the learning rate, for the kernels.

        Returns
        -------
        dict from str to float
            One entry for each of `HYPERPARAMETERS`; flags are 0 or 1; 0 where the optimizer
            has no such number, and for a `clip_norm` of None.

        Examples
        --------
        >>> Adam(betas=(0.8, 0.99)).hyperparameters()["beta1"]
        0.8
        """
        return {name: float(getattr(self, name, None) or 0.0) for name in HYPERPARAMETERS}


@dataclass(frozen=True, repr=False)
class SGD(Optimizer):
    """Stochastic gradient descent, with momentum if asked for.

    Without momentum, p ← p − η·g. With momentum μ and dampening d,

        v ← μ·v + (1 − d)·g        p ← p − η·v

    or with nesterov p ← p − η·(g + μ·v). The first step starts with v = g, undampened.

    Parameters
    ----------
    learning_rate : float, Schedule or callable, default 1e-3
        η; see `Optimizer`.
    momentum : float, default 0.0
        μ, in [0, 1).
    dampening : float, default 0.0
        d, in [0, 1). Needs momentum.
    nesterov : bool, default False
        Needs momentum, and no dampening.
    weight_decay, clip_norm
        See `Optimizer`.

    Raises
    ------
    TypeError, ValueError
        See `Optimizer`.

    References
    ----------
    torch.optim.SGD. Sutskever et al. (2013), "On the importance of initialization and momentum
    in deep learning", section 2; there v includes the factor η.

    Examples
    --------
    >>> SGD(0.1, momentum=0.9, nesterov=True)
    SGD(learning_rate=0.1, momentum=0.9, nesterov=True)
    """

    momentum: float = 0.0
    dampening: float = 0.0
    nesterov: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        self._set(
            momentum=checked_number("momentum", self.momentum, BELOW_ONE),
            dampening=checked_number("dampening", self.dampening, BELOW_ONE),
            nesterov=checked_flag("nesterov", self.nesterov),
        )
        if self.momentum == 0 and (self.nesterov or self.dampening > 0):
            option = "nesterov" if self.nesterov else "dampening"
            raise ValueError(f"{option} needs momentum > 0, got momentum=0; 0.9 is usual")
        if self.nesterov and self.dampening > 0:
            raise ValueError(f"nesterov needs dampening=0, got dampening={self.dampening}")

    @property
    def code(self) -> int:
        """The integer by which the kernels know it."""
        return codes.MOMENTUM if self.momentum > 0 else codes.SGD

    @property
    def slot_names(self) -> tuple[str, ...]:
        """The momentum v, if there is any."""
        return ("momentum",) if self.momentum > 0 else ()


@dataclass(frozen=True, repr=False)
class Adam(Optimizer):
    """Adam: steps scaled by running means of the gradient and of its square.

    At step t = 1, 2, …,

        m ← β₁·m + (1 − β₁)·g        v ← β₂·v + (1 − β₂)·g²
        p ← p − η · (m / (1 − β₁ᵗ)) / (√(v / (1 − β₂ᵗ)) + ε)

    Parameters
    ----------
    learning_rate : float, Schedule or callable, default 1e-3
        η; see `Optimizer`.
    betas : (float, float), default (0.9, 0.999)
        β₁ and β₂, in [0, 1).
    eps : float, default 1e-8
        ε; positive.
    weight_decay, clip_norm
        See `Optimizer`.

    Raises
    ------
    TypeError, ValueError
        See `Optimizer`.

    References
    ----------
    Kingma and Ba (2015), arXiv:1412.6980, algorithm 1. torch.optim.Adam.

    Examples
    --------
    >>> Adam(3e-4, weight_decay=1e-4)
    Adam(learning_rate=0.0003, weight_decay=0.0001)
    """

    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    decoupled: ClassVar[bool] = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if not isinstance(self.betas, tuple | list) or len(self.betas) != 2:
            raise TypeError(f"betas must be two numbers in [0, 1), got {self.betas!r}")
        beta1, beta2 = self.betas
        self._set(
            betas=(
                checked_number("betas[0]", beta1, BELOW_ONE),
                checked_number("betas[1]", beta2, BELOW_ONE),
            ),
            eps=checked_number("eps", self.eps, POSITIVE),
        )

    @property
    def beta1(self) -> float:
        """The part of the first moment kept at each step."""
        return self.betas[0]

    @property
    def beta2(self) -> float:
        """The part of the second moment kept at each step."""
        return self.betas[1]

    @property
    def code(self) -> int:
        """The integer by which the kernels know it."""
        return codes.ADAM

    @property
    def slot_names(self) -> tuple[str, ...]:
        """The running means m and v."""
        return ("first_moment", "second_moment")


@dataclass(frozen=True, repr=False)
class AdamW(Adam):
    """Adam with weight decay that the moments do not see.

    Each step starts with p ← p·(1 − η·weight_decay) in place of g ← g + weight_decay·p; the
    rest is `Adam`.

    Parameters
    ----------
    learning_rate, betas, eps, clip_norm
        See `Adam`.
    weight_decay : float, default 1e-2
        At least 0. It applies to every parameter, biases too, as in PyTorch.

    References
    ----------
    Loshchilov and Hutter (2019), arXiv:1711.05101, algorithm 2. torch.optim.AdamW.

    Examples
    --------
    >>> AdamW(3e-4).weight_decay
    0.01
    """

    weight_decay: float = field(default=1e-2, kw_only=True)
    decoupled: ClassVar[bool] = True


@dataclass(frozen=True, repr=False)
class RMSprop(Optimizer):
    """RMSprop: steps scaled by a running mean of the squared gradient.

        v ← α·v + (1 − α)·g²        s = √v + ε
        p ← p − η·g / s

    Centered, with u ← α·u + (1 − α)·g, s is √(v − u²) + ε. With momentum μ,
    b ← μ·b + g / s and p ← p − η·b.

    Parameters
    ----------
    learning_rate : float, Schedule or callable, default 1e-2
        η; see `Optimizer`.
    alpha : float, default 0.99
        α, in [0, 1).
    eps : float, default 1e-8
        ε; positive.
    momentum : float, default 0.0
        μ, in [0, 1).
    centered : bool, default False
        Whether to scale by the standard deviation of the gradient.
    weight_decay, clip_norm
        See `Optimizer`.

    Raises
    ------
    TypeError, ValueError
        See `Optimizer`.

    References
    ----------
    Hinton, "Neural Networks for Machine Learning" (2012), lecture 6e. Centered: Graves (2013),
    arXiv:1308.0850, eq. 38 to 41. torch.optim.RMSprop.

    Examples
    --------
    >>> RMSprop(centered=True).slot_names
    ('second_moment', 'first_moment')
    """

    learning_rate: LearningRate = 1e-2
    alpha: float = 0.99
    eps: float = 1e-8
    momentum: float = 0.0
    centered: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        self._set(
            alpha=checked_number("alpha", self.alpha, BELOW_ONE),
            eps=checked_number("eps", self.eps, POSITIVE),
            momentum=checked_number("momentum", self.momentum, BELOW_ONE),
            centered=checked_flag("centered", self.centered),
        )

    @property
    def code(self) -> int:
        """The integer by which the kernels know it."""
        return codes.RMSPROP

    @property
    def slot_names(self) -> tuple[str, ...]:
        """The running means v and, if centered, u; then b, if there is momentum."""
        names = ["second_moment"]
        if self.centered:
            names.append("first_moment")
        if self.momentum > 0:
            names.append("momentum")
        return tuple(names)


OPTIMIZERS: tuple[type[Optimizer], ...] = (SGD, Adam, AdamW, RMSprop)
"""All optimizers. Their names are those of the classes in lower case."""


def get(spec: str | Optimizer | None) -> Optimizer:
    """Return the optimizer that `spec` stands for.

    Parameters
    ----------
    spec : str, Optimizer or None
        "sgd", "adam", "adamw" or "rmsprop" for one with its defaults, an optimizer (returned
        as it is), or None for Adam().

    Returns
    -------
    Optimizer

    Raises
    ------
    TypeError
        If `spec` is something else.
    ValueError
        If the name is unknown.

    Examples
    --------
    >>> get("rmsprop")
    RMSprop()
    """
    if isinstance(spec, Optimizer):
        return spec
    by_name = {cls.__name__.lower(): cls for cls in OPTIMIZERS}
    return by_name[known_name("optimizer", "adam" if spec is None else spec, by_name)]()


def from_config(config: Mapping[str, Any]) -> Optimizer:
    """Make an optimizer from what `Optimizer.to_config` wrote.

    Raises
    ------
    TypeError, ValueError
        If `config` is anything else.

    Examples
    --------
    >>> from_config({"type": "SGD", "learning_rate": 0.5})
    SGD(learning_rate=0.5)
    """
    return spec_from_config(
        "optimizer", OPTIMIZERS, config, {"learning_rate": schedules.from_config}
    )
