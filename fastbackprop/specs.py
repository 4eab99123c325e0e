"""What every specification shares: checked arguments, known names, and a plain form for files.

A specification says what to do (an activation, an optimizer, a layer) and holds no state. It is
checked once, when it is made; whoever receives one trusts it.
"""

import difflib
import math
import numbers
from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING, dataclass, fields
from typing import Any, NamedTuple, TypeVar

import numpy as np

_LONGEST_NAME = 100  # characters that are compared with the known names


@dataclass(frozen=True, repr=False)
class Spec:
    """A frozen value: hashable, equal when its fields are, written to a file as plain data.

    Subclasses are dataclasses made with ``frozen=True, repr=False`` whose fields are None,
    booleans, numbers, strings, tuples of these, or specifications.
    """

    def __repr__(self) -> str:
        arguments = []
        for field in fields(self):
            value = getattr(self, field.name)
            if field.default is MISSING:
                arguments.append(repr(value))
            elif value != field.default:
                arguments.append(f"{field.name}={value!r}")
        return f"{type(self).__name__}({', '.join(arguments)})"

    def to_config(self) -> dict[str, Any]:
        """Write the specification as a dict that JSON can hold.

        Returns
        -------
        dict
            The class under ``"type"``, then every field. The module's ``from_config`` reads it.

        Raises
        ------
        TypeError
            If a field cannot be written, such as a learning rate that is a plain function.

        Examples
        --------
        >>> from fastbackprop.activations import Activation
        >>> Activation("relu").to_config()
        {'type': 'Activation', 'name': 'relu', 'alpha': None}
        """
        config: dict[str, Any] = {"type": type(self).__name__}
        for field in fields(self):
            config[field.name] = self._plain(field.name, getattr(self, field.name))
        return config

    def _plain(self, name: str, value: object) -> object:
        if isinstance(value, Spec):
            return value.to_config()
        if isinstance(value, tuple):
            return [self._plain(name, item) for item in value]
        if value is None or isinstance(value, bool | int | float | str):
            return value
        raise TypeError(
            f"{name} of {self!r} cannot be written to a file: {value!r} is no plain value; "
            "a learning rate can be, as a number or a schedule of fastbackprop.schedules"
        )

    def _set(self, **values: object) -> None:
        """Replace fields by their checked form; only while the object is being made."""
        for name, value in values.items():
            object.__setattr__(self, name, value)


SpecType = TypeVar("SpecType", bound=Spec)


def spec_from_config(
    kind: str,
    classes: Iterable[type[SpecType]],
    config: Mapping[str, Any],
    nested: Mapping[str, Callable[[Mapping[str, Any]], Spec]] | None = None,
) -> SpecType:
    """Make a specification from what `Spec.to_config` wrote, and refuse anything else.

    Parameters
    ----------
    kind : str
        What is being read, for error messages: "activation", "layer".
    classes : iterable of type
        The classes that ``config["type"]`` may name.
    config : mapping
        The written form.
    nested : mapping from str to callable, optional
        For each field that may hold a specification, its reader.

    Returns
    -------
    Spec
        An instance of one of `classes`.

    Raises
    ------
    ValueError
        If the type is unknown, or a key is unknown or missing.
    TypeError
        If `config` is not a mapping, or a value has the wrong type.
    """
    if not isinstance(config, Mapping):
        raise TypeError(f"the configuration of a {kind} must be a dict, got {config!r}")
    arguments = dict(config)
    known = {cls.__name__: cls for cls in classes}
    if "type" not in arguments:
        raise ValueError(f"the configuration of a {kind} needs the key 'type', got {config!r}")
    cls = known[known_name(f"{kind} type", arguments.pop("type"), known)]
    names = [field.name for field in fields(cls)]
    for key in arguments:
        if key not in names:
            raise ValueError(unknown(f"key in the configuration of {cls.__name__}", key, names))
    for field in fields(cls):
        if field.default is MISSING and field.name not in arguments:
            raise ValueError(f"the configuration of {cls.__name__} needs the key {field.name!r}")
    for key, read in (nested or {}).items():
        if isinstance(arguments.get(key), Mapping):
            arguments[key] = read(arguments[key])
    return cls(**arguments)


def unknown(kind: str, name: object, known: Iterable[str]) -> str:
    """Word the error for a name that is not among the known ones, with a guess at what was meant.

    Examples
    --------
    >>> unknown("activation", "rleu", ["relu", "tanh"])
    "unknown activation 'rleu'; did you mean 'relu'? Known: relu, tanh"
    """
    names = list(known)
    by_lower_case = {candidate.lower(): candidate for candidate in names}
    close = difflib.get_close_matches(str(name)[:_LONGEST_NAME].lower(), by_lower_case, n=1)
    guess = f"; did you mean {by_lower_case[close[0]]!r}?" if close else "."
    return f"unknown {kind} {name!r}{guess} Known: {', '.join(names)}"


def known_name(
    kind: str,
    name: object,
    known: Iterable[str],
    aliases: Mapping[str, str] | None = None,
) -> str:
    """Return the registered name for `name`, which may be an alias.

    Raises
    ------
    TypeError
        If `name` is not a string.
    ValueError
        If it is neither known nor an alias.

    Examples
    --------
    >>> known_name("activation", "swish", ["relu", "silu"], {"swish": "silu"})
    'silu'
    """
    names = list(known)
    if not isinstance(name, str):
        raise TypeError(f"{kind} must be a name, got {name!r}. Known: {', '.join(names)}")
    resolved = (aliases or {}).get(name, name)
    if resolved not in names:
        raise ValueError(unknown(kind, name, names))
    return str(resolved)


class Range(NamedTuple):
    """The finite numbers an argument may take, and how an error message describes them."""

    expected: str
    contains: Callable[[float], bool]


FINITE = Range("a finite number", lambda value: True)
POSITIVE = Range("a positive number", lambda value: value > 0)
NON_NEGATIVE = Range("a number >= 0", lambda value: value >= 0)
BELOW_ONE = Range("a number in [0, 1)", lambda value: 0 <= value < 1)
OPEN_FRACTION = Range("a number between 0 and 1", lambda value: 0 < value < 1)
FRACTION = Range("a number in [0, 1]", lambda value: 0 <= value <= 1)


def checked_number(name: str, value: object, allowed: Range) -> float:
    """Return `value` as a float, if it is a finite real number that `allowed` contains.

    Raises
    ------
    TypeError
        If it is not a real number; booleans are not numbers here.
    ValueError
        If it is not finite, or not in the range.

    Examples
    --------
    >>> checked_number("eps", 0, POSITIVE)
    Traceback (most recent call last):
        ...
    ValueError: eps must be a positive number, got 0
    """
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"{name} must be {allowed.expected}, got {value!r}")
    number = float(value)
    if not math.isfinite(number) or not allowed.contains(number):
        raise ValueError(f"{name} must be {allowed.expected}, got {value!r}")
    return number


def checked_size(name: str, value: object, minimum: int = 1) -> int:
    """Return `value` as an int, if it is an integer of at least `minimum`.

    Raises
    ------
    TypeError
        If it is not an integer; booleans and floats such as 10.0 are not.
    ValueError
        If it is below `minimum`.

    Examples
    --------
    >>> checked_size("n_in", 784)
    784
    """
    expected = "a positive integer" if minimum == 1 else f"an integer >= {minimum}"
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise TypeError(f"{name} must be {expected}, got {value!r}")
    if value < minimum:
        raise ValueError(f"{name} must be {expected}, got {value!r}")
    return int(value)


def checked_flag(name: str, value: object) -> bool:
    """Return `value` as a bool, if it is True or False.

    Raises
    ------
    TypeError
        If it is anything else.

    Examples
    --------
    >>> checked_flag("nesterov", True)
    True
    """
    if not isinstance(value, bool | np.bool_):
        raise TypeError(f"{name} must be True or False, got {value!r}")
    return bool(value)
