"""ONNX operators, each a step along a chain of dense layers, or refused.

A step takes the chain, the node and its attributes, and returns the value of the node's output.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from fastbackprop.exchange.formula import Formula
from fastbackprop.exchange.onnx_chain import VARIABLE, Branch, Chain, scaled
from fastbackprop.exchange.onnx_values import array_of
from fastbackprop.plan import Array

Attributes = dict[str, Any]
Step = Callable[[Chain, Any, Attributes], "Array | Branch"]

_UNARY = ("Relu", "Sigmoid", "Tanh", "Softplus", "Exp", "Log", "Abs", "Erf")
_ARITHMETIC = ("Add", "Sub", "Mul", "Div", "Min", "Max")
# ZipMap, of the domain ai.onnx.ml, gives probabilities the names of their classes.
_SAME = ("Identity", "Dropout", "ZipMap")
_SOFTPLUS_LIMIT = 20.0  # PyTorch takes z for softplus(z) above it


def _operands(node: Any, least: int, most: int) -> list[str]:
    names = list(node.input)
    if not least <= len(names) <= most:
        raise ValueError(f"it has {len(names)} inputs")
    return names


# ------------------------------------------------------------------------------------ dense layers


def _gemm(chain: Chain, node: Any, attributes: Attributes) -> Branch:
    x, weights, *rest = _operands(node, 2, 3)
    if attributes.get("transA", 0):
        raise ValueError("transA = 1 is not a dense layer")
    alpha, beta = (float(attributes.get(name, 1.0)) for name in ("alpha", "beta"))
    w = chain.matrix(weights)
    branch = chain.dense(x, scaled(w.T if attributes.get("transB", 0) else w, alpha))
    return chain.add_bias(rest[0], beta) if rest and rest[0] else branch


def _matmul(chain: Chain, node: Any, attributes: Attributes) -> Branch:
    x, weights = _operands(node, 2, 2)
    return chain.dense(x, chain.matrix(weights))


# ------------------------------------------------------------------------------------- elementwise


def _arithmetic(chain: Chain, node: Any, attributes: Attributes) -> Branch:
    left, right = _operands(node, 2, 2)
    constants = [name for name in (left, right) if not isinstance(chain.value(name), Branch)]
    if len(constants) == 2:
        raise ValueError("it combines two constants")
    operator = node.op_type
    if not constants:
        a, b = chain.branch(left).formula, chain.branch(right).formula
        if operator not in ("Add", "Sub", "Mul"):
            raise ValueError(f"{operator} of two values that both depend on the data")
        return chain.next(a * b if operator == "Mul" else a + b * (1 if operator == "Add" else -1))
    branch = chain.branch(right if constants[0] == left else left)
    if operator == "Add" and chain.is_bare(branch):
        return chain.add_bias(constants[0])
    constant = chain.constant(constants[0])
    if constant.size != 1 or constant.ndim > 2:
        raise ValueError(
            f"{constants[0]!r} has shape {constant.shape}; expected a single number, for all "
            "features or units alike"
        )
    number, first = float(constant.item()), constants[0] == left
    return chain.next(_with_number(operator, branch.formula, number, first))


def _with_number(operator: str, formula: Formula, number: float, number_first: bool) -> Formula:
    """``formula operator number``, or the other way round."""
    if operator == "Add":
        return formula + number
    if operator == "Mul":
        return formula * number
    if operator == "Sub":
        return formula * -1.0 + number if number_first else formula + -number
    if operator == "Div" and number != 0.0 and not number_first:
        return formula * (1.0 / number)
    if operator == "Max" and number == 0.0:
        return formula.apply("Relu")
    if operator == "Min" and number == 0.0:
        return formula.minimum_with_zero()
    raise ValueError(f"{operator} with the number {number:g} is part of no activation")


def _unary(chain: Chain, node: Any, attributes: Attributes) -> Branch:
    (x,) = _operands(node, 1, 1)
    return chain.next(chain.branch(x).formula.apply(node.op_type))


def _negative(chain: Chain, node: Any, attributes: Attributes) -> Branch:
    (x,) = _operands(node, 1, 1)
    return chain.next(chain.branch(x).formula * -1.0)


def _gelu(chain: Chain, node: Any, attributes: Attributes) -> Branch:
    if attributes.get("approximate", b"none") != b"none":
        raise ValueError("only approximate = 'none' is known, which is exact")
    return _unary(chain, node, attributes)


def _softmax(chain: Chain, node: Any, attributes: Attributes) -> Branch:
    if attributes.get("axis", -1) not in (-1, 1):
        raise ValueError(f"axis = {attributes['axis']}; expected the last")
    return _unary(chain, node, attributes)


def _leaky_relu(chain: Chain, node: Any, attributes: Attributes) -> Branch:
    (x,) = _operands(node, 1, 1)
    return chain.next(chain.branch(x).formula.leaky_relu(float(attributes.get("alpha", 0.01))))


def _elu(chain: Chain, node: Any, attributes: Attributes) -> Branch:
    (x,) = _operands(node, 1, 1)
    return chain.next(chain.branch(x).formula.elu(float(attributes.get("alpha", 1.0))))


def _greater(chain: Chain, node: Any, attributes: Attributes) -> Branch:
    x, limit = _operands(node, 2, 2)
    number = chain.constant(limit)
    if number.size != 1 or number.item() != _SOFTPLUS_LIMIT:
        raise ValueError(f"only with {_SOFTPLUS_LIMIT:g}, in softplus as PyTorch writes it")
    return chain.next(chain.branch(x).formula.apply("Greater"))


def _where(chain: Chain, node: Any, attributes: Attributes) -> Branch:
    is_far, far, near = (chain.branch(name).formula for name in _operands(node, 3, 3))
    wanted = far.apply("Greater"), far.apply("Softplus")
    if not (is_far.is_close_to(wanted[0]) and near.is_close_to(wanted[1])):
        raise ValueError("only in softplus as PyTorch writes it")
    return chain.next(near)


# ------------------------------------------------------------------------------------------- shape


def _same(chain: Chain, node: Any, attributes: Attributes) -> Array | Branch:
    return chain.value(_operands(node, 1, 3)[0])


def _cast(chain: Chain, node: Any, attributes: Attributes) -> Array | Branch:
    (x,) = _operands(node, 1, 1)
    if attributes.get("to") not in (1, 11):
        raise ValueError(f"to = {attributes.get('to')}; expected float32 (1) or float64 (11)")
    return chain.value(x)


def _flatten(chain: Chain, node: Any, attributes: Attributes) -> Branch:
    (x,) = _operands(node, 1, 1)
    if attributes.get("axis", 1) != 1:
        raise ValueError(f"axis = {attributes['axis']}; expected 1, rows by features")
    return chain.branch(x)


def _reshape(chain: Chain, node: Any, attributes: Attributes) -> Branch:
    x, shape = _operands(node, 2, 2)
    branch, wanted = chain.branch(x), chain.constant(shape).tolist()
    if (
        not isinstance(wanted, list)
        or len(wanted) != 2
        or wanted[0] not in (-1, 0)
        or (chain.n_out is not None and wanted[1] not in (chain.n_out, -1))
    ):
        raise ValueError(f"shape {wanted}; expected [-1, features]")
    return branch


def _squeeze(chain: Chain, node: Any, attributes: Attributes) -> Branch:
    x, *rest = _operands(node, 1, 2)
    axes = chain.constant(rest[0]).tolist() if rest else attributes.get("axes")
    if chain.n_out != 1 or axes not in (1, -1, [1], [-1]):
        raise ValueError("only the last axis, of a single output, can be left out")
    return chain.branch(x)


def _concat(chain: Chain, node: Any, attributes: Attributes) -> Branch:
    """1 − σ(z) beside σ(z), as skl2onnx has two classes: the softmax of 0 and z."""
    no, yes = (chain.branch(name).formula for name in _operands(node, 2, 2))
    sigmoid = VARIABLE.apply("Sigmoid")
    probabilities = yes.is_close_to(sigmoid) and no.is_close_to(sigmoid * -1.0 + 1.0)
    if chain.n_out != 1 or attributes.get("axis") not in (1, -1) or not probabilities:
        raise ValueError("only of 1 - p and p, for the probability p from one sigmoid output")
    return chain.as_two_classes()


def _transpose(chain: Chain, node: Any, attributes: Attributes) -> Array:
    (x,) = _operands(node, 1, 1)
    if list(attributes.get("perm", (1, 0))) != [1, 0] or chain.constant(x).ndim != 2:
        raise ValueError("only a matrix of weights can be transposed")
    return chain.constant(x).T


def _constant(chain: Chain, node: Any, attributes: Attributes) -> Array:
    kind, value = next(iter(attributes.items()), ("", None))
    if kind == "value" and hasattr(value, "data_type"):
        return array_of(value)
    if kind in ("value_float", "value_floats"):
        return np.array(value, np.float32)
    if kind in ("value_int", "value_ints"):
        return np.array(value, np.int64)
    raise ValueError("it holds no tensor of numbers")


STEPS: dict[str, Step] = {
    "Gemm": _gemm,
    "MatMul": _matmul,
    "Neg": _negative,
    "Gelu": _gelu,
    "Softmax": _softmax,
    "LeakyRelu": _leaky_relu,
    "Elu": _elu,
    "Greater": _greater,
    "Where": _where,
    "Cast": _cast,
    "Flatten": _flatten,
    "Reshape": _reshape,
    "Squeeze": _squeeze,
    "Concat": _concat,
    "Transpose": _transpose,
    "Constant": _constant,
    **dict.fromkeys(_UNARY, _unary),
    **dict.fromkeys(_SAME, _same),
    **dict.fromkeys(_ARITHMETIC, _arithmetic),
}
