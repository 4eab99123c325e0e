"""Arithmetic, comparisons, selections and reductions of vectors, lane by lane."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.core.imputils import lower_builtin
from numba.core.typing.templates import AbstractTemplate, infer_global, signature
from numba.extending import intrinsic

from fastbackprop._kernels.jit import HAS_AVX512, VECTOR_BITS
from fastbackprop._kernels.simd.memory import convert_value, splat
from fastbackprop._kernels.simd.types import I32, Vector


def _arithmetic(op: Callable[..., Any], on_floats: str, on_integers: str) -> None:
    """Define the operator ``op`` for two vectors of one type, or a vector and a scalar."""

    @infer_global(op)
    class _Template(AbstractTemplate):
        def generic(self, args, kws):
            vectors = [arg for arg in args if isinstance(arg, Vector)]
            if len(args) != 2 or not vectors:
                return None
            if all(arg == vectors[0] or isinstance(arg, types.Number) for arg in args):
                return signature(vectors[0], *args)
            return None

    def lower(context, builder, sig, args):
        vector = sig.return_type
        operands = [
            _as_vector(context, builder, *pair, vector) for pair in zip(args, sig.args, strict=True)
        ]
        name = on_floats if isinstance(vector.dtype, types.Float) else on_integers
        return getattr(builder, name)(*operands)

    for left, right in ((Vector, Vector), (Vector, types.Number), (types.Number, Vector)):
        lower_builtin(op, left, right)(lower)


def _as_vector(context, builder, value, kind, vector):
    if isinstance(kind, Vector):
        return value
    return splat(builder, context.cast(builder, value, kind, vector.dtype), vector.llvm)


_arithmetic(operator.add, "fadd", "add")
_arithmetic(operator.sub, "fsub", "sub")
_arithmetic(operator.mul, "fmul", "mul")
_arithmetic(operator.truediv, "fdiv", "udiv")
_arithmetic(operator.and_, "and_", "and_")
_arithmetic(operator.or_, "or_", "or_")
_arithmetic(operator.xor, "xor", "xor")
_arithmetic(operator.lshift, "shl", "shl")
_arithmetic(operator.rshift, "lshr", "lshr")


def _comparison(op: Callable[..., Any], symbol: str) -> None:
    """Define the comparison ``op``, whose result is a vector of booleans. NaN compares False."""

    @infer_global(op)
    class _Template(AbstractTemplate):
        def generic(self, args, kws):
            vectors = [arg for arg in args if isinstance(arg, Vector)]
            if len(args) != 2 or not vectors:
                return None
            if all(arg == vectors[0] or isinstance(arg, types.Number) for arg in args):
                return signature(Vector(types.boolean, vectors[0].lanes), *args)
            return None

    def lower(context, builder, sig, args):
        vector = next(kind for kind in sig.args if isinstance(kind, Vector))
        operands = [
            _as_vector(context, builder, *pair, vector) for pair in zip(args, sig.args, strict=True)
        ]
        if isinstance(vector.dtype, types.Float):
            compare = builder.fcmp_unordered if symbol == "!=" else builder.fcmp_ordered
            return compare(symbol, *operands)
        return builder.icmp_unsigned(symbol, *operands)

    for left, right in ((Vector, Vector), (Vector, types.Number), (types.Number, Vector)):
        lower_builtin(op, left, right)(lower)


for _op, _symbol in (
    (operator.lt, "<"),
    (operator.le, "<="),
    (operator.gt, ">"),
    (operator.ge, ">="),
    (operator.eq, "=="),
    (operator.ne, "!="),
):
    _comparison(_op, _symbol)


@infer_global(operator.neg)
class _Negate(AbstractTemplate):
    def generic(self, args, kws):
        return signature(args[0], args[0]) if isinstance(args[0], Vector) else None


@lower_builtin(operator.neg, Vector)
def _negate(context, builder, sig, args):
    return builder.fneg(args[0])


def overloaded(
    builder: ir.IRBuilder, name: str, kind: ir.VectorType, values: list[ir.Value]
) -> ir.Value:
    """Call the LLVM intrinsic ``name`` of the vector type ``kind``."""
    suffix = {"float": "f32", "double": "f64"}.get(str(kind.element), str(kind.element))
    function = cgutils.get_or_insert_function(
        builder.module,
        ir.FunctionType(kind, [kind] * len(values)),
        f"llvm.{name}.v{kind.count}{suffix}",
    )
    return builder.call(function, values)


def _elementwise(llvm_name: str, n_operands: int, description: str) -> Any:
    """An intrinsic that applies LLVM's ``llvm_name`` to vectors of one type."""

    def codegen(context, builder, sig, args):
        return overloaded(builder, llvm_name, sig.return_type.llvm, list(args))

    def unary(typingctx, a):
        return a(a), codegen

    def binary(typingctx, a, b):
        return a(a, b), codegen

    def ternary(typingctx, a, b, c):
        return a(a, b, c), codegen

    typed = (unary, binary, ternary)[n_operands - 1]
    typed.__name__ = llvm_name
    typed.__doc__ = description
    return intrinsic(typed)


fma = _elementwise("fma", 3, "``a * b + c`` with one rounding.")
sqrt = _elementwise("sqrt", 1, "The correctly rounded square root.")
absolute = _elementwise("fabs", 1, "``|a|``.")
copysign = _elementwise("copysign", 2, "``|a|`` with the sign of ``b``.")


def _estimate(
    name: str, exact: Callable[..., Any], refine: Callable[..., Any], summary: str
) -> Any:
    """An intrinsic that refines AVX-512's 14-bit estimate ``name`` by Newton's method."""

    @intrinsic
    def estimate(typingctx, a):
        def codegen(context, builder, sig, args):
            vector = sig.return_type
            if not HAS_AVX512:
                return exact(builder, vector.llvm, args[0])
            double = vector.dtype == types.float64
            mask = ir.IntType(max(8, vector.lanes))
            function = cgutils.get_or_insert_function(
                builder.module,
                ir.FunctionType(vector.llvm, [vector.llvm, vector.llvm, mask]),
                f"llvm.x86.avx512.{name}14.{'pd' if double else 'ps'}.{VECTOR_BITS}",
            )
            value = builder.call(function, [args[0], args[0], ir.Constant(mask, -1)])
            for _ in range(2 if double else 1):  # 14 bits, then 28, then 56
                value = refine(builder, vector.llvm, args[0], value)
            return value

        return a(a), codegen

    estimate.__doc__ = summary
    return estimate


def _refine_inverse(builder, kind, a, y):
    """Y + y (1 - a y)"""
    error = overloaded(builder, "fma", kind, [builder.fneg(a), y, constant_vector(kind, 1.0)])
    return overloaded(builder, "fma", kind, [y, error, y])


def _refine_inverse_root(builder, kind, a, y):
    """Y + y/2 (1 - a y²)"""
    error = overloaded(
        builder, "fma", kind, [builder.fneg(builder.fmul(a, y)), y, constant_vector(kind, 1.0)]
    )
    half = builder.fmul(y, constant_vector(kind, 0.5))
    return overloaded(builder, "fma", kind, [half, error, y])


def _exact_inverse(builder, kind, a):
    return builder.fdiv(constant_vector(kind, 1.0), a)


def _exact_inverse_root(builder, kind, a):
    return builder.fdiv(constant_vector(kind, 1.0), overloaded(builder, "sqrt", kind, [a]))


inverse = _estimate(
    "rcp", _exact_inverse, _refine_inverse, "1 / a to about an ulp, for normal a > 0."
)
inverse_root = _estimate(
    "rsqrt", _exact_inverse_root, _refine_inverse_root, "1 / √a to about an ulp, for normal a > 0."
)


@intrinsic
def select(typingctx, mask, a, b):
    """``a`` in the lanes where ``mask`` is true, else ``b``."""

    def codegen(context, builder, sig, args):
        a, b = (
            _as_vector(context, builder, *pair, sig.return_type)
            for pair in zip(args[1:], sig.args[1:], strict=True)
        )
        return builder.select(args[0], a, b)

    vector = a if isinstance(a, Vector) else b
    return vector(mask, a, b), codegen


def _extremum(symbol: str, description: str) -> Any:
    def typed(typingctx, a, b):
        def codegen(context, builder, sig, args):
            a, b = (
                _as_vector(context, builder, *pair, sig.return_type)
                for pair in zip(args, sig.args, strict=True)
            )
            # One instruction on x86: b where either operand is NaN.
            return builder.select(builder.fcmp_ordered(symbol, a, b), a, b)

        return a(a, b), codegen

    typed.__name__ = description.split("``")[1].split("(")[0]
    typed.__doc__ = description
    return intrinsic(typed)


larger = _extremum(">", "``larger(a, b)``: lane by lane; ``b`` where either is NaN.")
smaller = _extremum("<", "``smaller(a, b)``: lane by lane; ``b`` where either is NaN.")


def _bits_of(vector: Vector) -> Vector:
    integer = types.int32 if vector.dtype == types.float32 else types.int64
    return Vector(integer, vector.lanes)


@intrinsic
def as_bits(typingctx, v):
    """The bits of floats, as signed integers of the same size."""
    vector = _bits_of(v)

    def codegen(context, builder, sig, args):
        return builder.bitcast(args[0], vector.llvm)

    return vector(v), codegen


@intrinsic
def from_bits(typingctx, v, like):
    """The floats of the type of ``like`` whose bits are ``v``."""

    def codegen(context, builder, sig, args):
        return builder.bitcast(args[0], like.llvm)

    return like(v, like), codegen


@intrinsic
def convert(typingctx, v, like):
    """``v`` converted to the element type of ``like`` (floats to integers: truncated)."""

    def codegen(context, builder, sig, args):
        return convert_value(builder, args[0], v.dtype, like.dtype, like.llvm)

    return like(v, like), codegen


@intrinsic
def sum_lanes(typingctx, v):
    """The sum of all lanes, by a tree: its shape depends on the width alone, so the bits do too."""

    def codegen(context, builder, sig, args):
        return _reduced(builder, v, args[0], builder.fadd)

    return v.dtype(v), codegen


@intrinsic
def largest_lane(typingctx, v):
    """The largest lane of a vector without NaN."""

    def codegen(context, builder, sig, args):
        def larger_of(a, b):
            return builder.select(builder.fcmp_ordered(">", a, b), a, b)

        return _reduced(builder, v, args[0], larger_of)

    return v.dtype(v), codegen


def _reduced(builder, vector, value, combine):
    """All lanes, the lower with the upper half until one is left.

    LLVM's own reduction to the maximum, which is to pass over NaN, is a chain of all lanes: 150
    cycles for 16.
    """
    half = vector.lanes // 2
    while half > 0:
        lower, upper = (
            builder.shuffle_vector(
                value, value, ir.Constant(ir.VectorType(I32, half), list(range(i, i + half)))
            )
            for i in (0, half)
        )
        value = combine(lower, upper)
        half //= 2
    return builder.extract_element(value, ir.Constant(I32, 0))


@intrinsic
def any_lane(typingctx, mask):
    """Whether any lane of a vector of booleans is true."""

    def codegen(context, builder, sig, args):
        bits = ir.IntType(mask.lanes)
        return builder.icmp_unsigned("!=", builder.bitcast(args[0], bits), ir.Constant(bits, 0))

    return types.boolean(mask), codegen


@intrinsic
def lane_bits(typingctx, mask):
    """A vector of booleans as an integer, the first lane its lowest bit."""

    def codegen(context, builder, sig, args):
        return builder.zext(builder.bitcast(args[0], ir.IntType(mask.lanes)), ir.IntType(64))

    return types.int64(mask), codegen


@intrinsic
def trailing_zeros(typingctx, bits):
    """How many zero bits an integer, itself not zero, has below its lowest one."""

    def codegen(context, builder, sig, args):
        return builder.cttz(args[0], ir.Constant(ir.IntType(1), 1))

    return types.int64(types.int64), codegen


def constant_for(values: dict[types.Type, float]) -> Any:
    """An intrinsic for a constant whose value depends on the element type."""

    @intrinsic
    def constant(typingctx, like):
        """The constant, in every lane of a vector like ``like``."""

        def codegen(context, builder, sig, args):
            return constant_vector(like.llvm, values[like.dtype])

        return like(like), codegen

    return constant


def integer_constant_for(values: dict[types.Type, int]) -> Any:
    """An intrinsic for an integer that depends on the element type, as a vector of that size."""

    @intrinsic
    def constant(typingctx, like):
        """The integer, in every lane of a vector with the lanes of ``like``."""
        vector = _bits_of(like)

        def codegen(context, builder, sig, args):
            return constant_vector(vector.llvm, values[like.dtype])

        return vector(like), codegen

    return constant


def constant_vector(kind: ir.VectorType, value: float) -> ir.Constant:
    """The constant in every lane."""
    return ir.Constant(kind, [value] * kind.count)
