"""SIMD vectors, tiles and pointers as Numba types, and atomics: the only file that builds LLVM IR.

A ``Vector`` is one SIMD register (16 float32 or 8 float64 with AVX-512, fewer on narrower
machines), a ``Tile`` is ``MR`` rows of ``NV`` of them that stay in registers, and a ``Pointer`` is
a typed address. Kernels use them in plain jitted Python:

>>> from fastbackprop._kernels.jit import kernel
>>> @kernel
... def add_rows(out, x, y, n):
...     for i in range(0, n, lanes(x)):
...         store(out + i, load(x + i) + load(y + i))

Nothing here is checked: a pointer may point anywhere.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.core.imputils import lower_builtin
from numba.core.typing.templates import AbstractTemplate, infer_global, signature
from numba.extending import intrinsic, models, register_model

from fastbackprop._kernels.jit import HAS_ESTIMATES, VECTOR_BITS

_I8 = ir.IntType(8)
_I32 = ir.IntType(32)
_I64 = ir.IntType(64)
_BYTE_POINTER = _I8.as_pointer()


# --------------------------------------------------------------------------------------- types


def _element(dtype: Any) -> ir.Type:
    """LLVM's type for one element of a vector or behind a pointer."""
    if dtype == types.float32:
        return ir.FloatType()
    if dtype == types.float64:
        return ir.DoubleType()
    if dtype == types.boolean:
        return ir.IntType(1)
    return ir.IntType(dtype.bitwidth)


class Vector(types.Type):
    """One SIMD register: ``lanes`` elements of ``dtype``."""

    def __init__(self, dtype: Any, lanes: int) -> None:
        self.dtype = dtype
        self.lanes = lanes
        super().__init__(name=f"Vector({dtype} x {lanes})")

    @property
    def llvm(self) -> ir.VectorType:
        return ir.VectorType(_element(self.dtype), self.lanes)


class Tile(types.Type):
    """``MR`` rows of ``NV`` vectors, held in registers."""

    def __init__(self, vector: Vector, MR: int, NV: int) -> None:
        self.vector = vector
        self.MR = MR
        self.NV = NV
        super().__init__(name=f"Tile({vector}, {MR} x {NV})")

    @property
    def llvm(self) -> ir.ArrayType:
        return ir.ArrayType(self.vector.llvm, self.MR * self.NV)


class Pointer(types.Type):
    """The address of elements of ``dtype``."""

    def __init__(self, dtype: Any) -> None:
        self.dtype = dtype
        super().__init__(name=f"Pointer({dtype})")


def vector_of(dtype: Any) -> Vector:
    """The full-width vector of a floating type."""
    return Vector(dtype, VECTOR_BITS // dtype.bitwidth)


@register_model(Vector)
@register_model(Tile)
class _RegisterModel(models.PrimitiveModel):
    def __init__(self, dmm: Any, fe_type: Any) -> None:
        super().__init__(dmm, fe_type, fe_type.llvm)


@register_model(Pointer)
class _PointerModel(models.PrimitiveModel):
    def __init__(self, dmm: Any, fe_type: Any) -> None:
        super().__init__(dmm, fe_type, _BYTE_POINTER)


# ------------------------------------------------------------------------------------ pointers


def _at(builder: ir.IRBuilder, pointer: ir.Value, dtype: Any, index: ir.Value) -> ir.Value:
    """Address of element ``index``, as a byte pointer."""
    size = ir.Constant(_I64, dtype.bitwidth // 8)
    return builder.gep(pointer, [builder.mul(index, size)], source_etype=_I8)


def _load(builder: ir.IRBuilder, pointer: ir.Value, kind: ir.Type, dtype: Any) -> ir.Value:
    # Rows of a caller's data may start anywhere; an unaligned load of aligned data costs nothing.
    typed = builder.bitcast(pointer, kind.as_pointer())
    return builder.load(typed, align=dtype.bitwidth // 8, typ=kind)


def _store(builder: ir.IRBuilder, value: ir.Value, pointer: ir.Value, dtype: Any) -> None:
    typed = builder.bitcast(pointer, value.type.as_pointer())
    builder.store(value, typed, align=dtype.bitwidth // 8)


@intrinsic
def pointer(typingctx, address, like):
    """``address`` (an integer) as a pointer to elements of the type of ``like``."""

    def codegen(context, builder, sig, args):
        return builder.inttoptr(args[0], _BYTE_POINTER)

    dtype = like.dtype if isinstance(like, Pointer | types.NumberClass) else like
    return Pointer(dtype)(types.intp, like), codegen


@intrinsic
def address_of(typingctx, p):
    """The address behind a pointer, as an integer."""

    def codegen(context, builder, sig, args):
        return builder.ptrtoint(args[0], _I64)

    return types.intp(p), codegen


@infer_global(operator.add)
@infer_global(operator.iadd)
class _PointerAdd(AbstractTemplate):
    def generic(self, args, kws):
        if len(args) == 2 and isinstance(args[0], Pointer) and isinstance(args[1], types.Integer):
            return signature(args[0], args[0], types.intp)
        return None


@lower_builtin(operator.add, Pointer, types.Integer)
@lower_builtin(operator.iadd, Pointer, types.Integer)
def _pointer_add(context, builder, sig, args):
    return _at(builder, args[0], sig.args[0].dtype, args[1])


@infer_global(operator.getitem)
class _PointerGet(AbstractTemplate):
    def generic(self, args, kws):
        if isinstance(args[0], Pointer) and isinstance(args[1], types.Integer):
            return signature(args[0].dtype, args[0], types.intp)
        return None


@lower_builtin(operator.getitem, Pointer, types.Integer)
def _pointer_get(context, builder, sig, args):
    dtype = sig.args[0].dtype
    return _load(builder, _at(builder, args[0], dtype, args[1]), _element(dtype), dtype)


@infer_global(operator.setitem)
class _PointerSet(AbstractTemplate):
    def generic(self, args, kws):
        if isinstance(args[0], Pointer) and isinstance(args[1], types.Integer):
            return signature(types.none, args[0], types.intp, args[0].dtype)
        return None


@lower_builtin(operator.setitem, Pointer, types.Integer, types.Any)
def _pointer_set(context, builder, sig, args):
    dtype = sig.args[0].dtype
    _store(builder, args[2], _at(builder, args[0], dtype, args[1]), dtype)
    return context.get_dummy_value()


@intrinsic
def prefetch(typingctx, p):
    """Ask for the cache line at ``p`` ahead of its use."""

    def codegen(context, builder, sig, args):
        _prefetch(builder, args[0])
        return context.get_dummy_value()

    return types.none(p), codegen


def _prefetch(builder: ir.IRBuilder, address: ir.Value) -> None:
    kind = ir.FunctionType(ir.VoidType(), [_BYTE_POINTER, _I32, _I32, _I32])
    function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
    flags = [ir.Constant(_I32, value) for value in (0, 2, 1)]  # read, keep near, data
    builder.call(function, [address, *flags])


# ------------------------------------------------------------------- vectors: memory and shape


@intrinsic
def lanes(typingctx, p):
    """How many elements a vector holds that is loaded from ``p``; a compile-time constant."""
    count = (p if isinstance(p, Vector) else vector_of(p.dtype)).lanes

    def codegen(context, builder, sig, args):
        return ir.Constant(_I64, count)

    return types.intp(p), codegen


@intrinsic
def itemsize(typingctx, like):
    """Bytes of a scalar, or of an element behind a pointer; a compile-time constant."""
    dtype = like.dtype if isinstance(like, Pointer) else like

    def codegen(context, builder, sig, args):
        return ir.Constant(_I64, dtype.bitwidth // 8)

    return types.intp(like), codegen


@intrinsic
def load(typingctx, p):
    """The vector at ``p``."""
    vector = vector_of(p.dtype)

    def codegen(context, builder, sig, args):
        return _load(builder, args[0], vector.llvm, vector.dtype)

    return vector(p), codegen


# Element types of data that a kernel reads, told by their position here.
ELEMENT_TYPES: tuple[Any, ...] = (
    types.uint8,
    types.int8,
    types.uint16,
    types.int16,
    types.uint32,
    types.int32,
    types.uint64,
    types.int64,
    types.float32,
    types.float64,
)


@intrinsic
def load_any(typingctx, address, kind, like):
    """A vector or a number like ``like`` of elements of any type, converted.

    The type is a number at run time: one function of each type would take Numba two seconds to
    compile. In a loop it is LLVM who takes the choice out of it.
    """
    lanes, target = (like.lanes, like.dtype) if isinstance(like, Vector) else (1, like)

    def codegen(context, builder, sig, args):
        result = like.llvm if isinstance(like, Vector) else _element(like)
        pointer = builder.inttoptr(args[0], _BYTE_POINTER)
        end = builder.append_basic_block("loaded")
        blocks = [builder.append_basic_block(str(dtype)) for dtype in ELEMENT_TYPES]
        choice = builder.switch(args[1], blocks[-1])
        values = []
        for number, (dtype, block) in enumerate(zip(ELEMENT_TYPES, blocks, strict=True)):
            choice.add_case(number, block)
            builder.position_at_end(block)
            source = _element(dtype) if lanes == 1 else Vector(dtype, lanes).llvm
            value = _load(builder, pointer, source, dtype)
            values.append(_convert(builder, value, dtype, target, result))
            builder.branch(end)
        builder.position_at_end(end)
        phi = builder.phi(result)
        for value, block in zip(values, blocks, strict=True):
            phi.add_incoming(value, block)
        return phi

    return like(types.intp, types.intp, like), codegen


@intrinsic
def store(typingctx, p, v):
    """Write the vector ``v`` at ``p``."""

    def codegen(context, builder, sig, args):
        _store(builder, args[1], args[0], sig.args[1].dtype)
        return context.get_dummy_value()

    return types.none(p, v), codegen


@intrinsic
def broadcast(typingctx, p):
    """A vector whose every lane is the element at ``p``."""
    vector = vector_of(p.dtype)

    def codegen(context, builder, sig, args):
        scalar = _load(builder, args[0], _element(vector.dtype), vector.dtype)
        return _splat(builder, scalar, vector.llvm)

    return vector(p), codegen


@intrinsic
def fill(typingctx, like, scalar):
    """A vector like ``like`` (or as loaded from it) whose every lane is ``scalar``."""
    vector = like if isinstance(like, Vector) else vector_of(like.dtype)

    def codegen(context, builder, sig, args):
        value = context.cast(builder, args[1], sig.args[1], vector.dtype)
        return _splat(builder, value, vector.llvm)

    return vector(like, scalar), codegen


@intrinsic
def lane_index(typingctx, like):
    """0, 1, 2, ... as a vector of uint32 with as many lanes as ``like``."""
    vector = Vector(types.uint32, like.lanes)

    def codegen(context, builder, sig, args):
        return ir.Constant(vector.llvm, list(range(vector.lanes)))

    return vector(like), codegen


@intrinsic
def live_lanes(typingctx, like, j, n):
    """Which lanes of a vector at column ``j`` are columns below ``n``."""
    mask = Vector(types.boolean, like.lanes)

    def codegen(context, builder, sig, args):
        kind = ir.VectorType(_I64, like.lanes)
        columns = ir.Constant(kind, list(range(like.lanes)))
        left = _splat(builder, builder.sub(args[2], args[1]), kind)
        return builder.icmp_signed("<", columns, left)

    return mask(like, types.intp, types.intp), codegen


def _splat(builder: ir.IRBuilder, scalar: ir.Value, kind: ir.VectorType) -> ir.Value:
    first = builder.insert_element(ir.Constant(kind, ir.Undefined), scalar, ir.Constant(_I32, 0))
    zeros = ir.Constant(ir.VectorType(_I32, kind.count), None)
    return builder.shuffle_vector(first, ir.Constant(kind, ir.Undefined), zeros)


def _convert(
    builder: ir.IRBuilder, value: ir.Value, source: Any, target: Any, kind: ir.Type
) -> ir.Value:
    """Numeric conversion of a vector from element type ``source`` to ``target``."""
    if source == target:
        return value
    if isinstance(target, types.Float):
        if isinstance(source, types.Float):
            wider = target.bitwidth > source.bitwidth
            return builder.fpext(value, kind) if wider else builder.fptrunc(value, kind)
        signed = source != types.boolean and source.signed
        return builder.sitofp(value, kind) if signed else builder.uitofp(value, kind)
    if isinstance(source, types.Float):
        return builder.fptosi(value, kind)
    if target.bitwidth == source.bitwidth:
        return value
    if target.bitwidth < source.bitwidth:
        return builder.trunc(value, kind)
    return builder.sext(value, kind) if source.signed else builder.zext(value, kind)


# -------------------------------------------------------------------------- vectors: arithmetic


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
    return _splat(builder, context.cast(builder, value, kind, vector.dtype), vector.llvm)


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


def _overloaded(
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


@intrinsic
def transpose(typingctx, tile):
    """A square tile (as many rows as lanes) transposed, by log₂(lanes) rounds of shuffles."""
    size = tile.vector.lanes

    def codegen(context, builder, sig, args):
        rows = [builder.extract_value(args[0], i) for i in range(size)]
        distance = 1
        while distance < size:
            # Lane j of row i changes places with lane i of row j in this bit of i and j.
            low = [j if not j & distance else size + j - distance for j in range(size)]
            high = [j + distance if not j & distance else size + j for j in range(size)]
            masks = [ir.Constant(ir.VectorType(_I32, size), lanes) for lanes in (low, high)]
            for i in range(size):
                if not i & distance:
                    pair = rows[i], rows[i + distance]
                    rows[i] = builder.shuffle_vector(*pair, masks[0])
                    rows[i + distance] = builder.shuffle_vector(*pair, masks[1])
            distance *= 2
        result = args[0]
        for i, row in enumerate(rows):
            result = builder.insert_value(result, row, i)
        return result

    return tile(tile), codegen


def _elementwise(llvm_name: str, n_operands: int, description: str) -> Any:
    """An intrinsic that applies LLVM's ``llvm_name`` to vectors of one type."""

    def codegen(context, builder, sig, args):
        return _overloaded(builder, llvm_name, sig.return_type.llvm, list(args))

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
round_even = _elementwise("rint", 1, "The nearest integer, halves to even.")
copysign = _elementwise("copysign", 2, "``|a|`` with the sign of ``b``.")


def _estimate(
    name: str, exact: Callable[..., Any], refine: Callable[..., Any], summary: str
) -> Any:
    """An intrinsic that refines AVX-512's 14-bit estimate ``name`` by Newton's method."""

    @intrinsic
    def estimate(typingctx, a):
        def codegen(context, builder, sig, args):
            vector = sig.return_type
            if not HAS_ESTIMATES:
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
    error = _overloaded(builder, "fma", kind, [builder.fneg(a), y, _constant(kind, 1.0)])
    return _overloaded(builder, "fma", kind, [y, error, y])


def _refine_inverse_root(builder, kind, a, y):
    """Y + y/2 (1 - a y²)"""
    error = _overloaded(
        builder, "fma", kind, [builder.fneg(builder.fmul(a, y)), y, _constant(kind, 1.0)]
    )
    half = builder.fmul(y, _constant(kind, 0.5))
    return _overloaded(builder, "fma", kind, [half, error, y])


def _exact_inverse(builder, kind, a):
    return builder.fdiv(_constant(kind, 1.0), a)


def _exact_inverse_root(builder, kind, a):
    return builder.fdiv(_constant(kind, 1.0), _overloaded(builder, "sqrt", kind, [a]))


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
        return _convert(builder, args[0], v.dtype, like.dtype, like.llvm)

    return like(v, like), codegen


def _reduction(llvm_name: str, takes_start: bool, start: float, description: str) -> Any:
    def typed(typingctx, v):
        def codegen(context, builder, sig, args):
            kind, element = v.llvm, _element(v.dtype)
            suffix = "f32" if v.dtype == types.float32 else "f64"
            parameters = [element, kind] if takes_start else [kind]
            function = cgutils.get_or_insert_function(
                builder.module,
                ir.FunctionType(element, parameters),
                f"llvm.vector.reduce.{llvm_name}.v{kind.count}{suffix}",
            )
            values = [ir.Constant(element, start), args[0]] if takes_start else [args[0]]
            # A tree, not a chain: its shape depends on the width alone, so the bits do too.
            return builder.call(function, values, fastmath=("reassoc",))

        return v.dtype(v), codegen

    typed.__name__ = llvm_name
    typed.__doc__ = description
    return intrinsic(typed)


sum_lanes = _reduction("fadd", True, -0.0, "The sum of all lanes.")
largest_lane = _reduction("fmax", False, 0.0, "The largest lane; NaN lanes are passed over.")


@intrinsic
def any_lane(typingctx, mask):
    """Whether any lane of a vector of booleans is true."""

    def codegen(context, builder, sig, args):
        bits = ir.IntType(mask.lanes)
        return builder.icmp_unsigned("!=", builder.bitcast(args[0], bits), ir.Constant(bits, 0))

    return types.boolean(mask), codegen


def polynomial(coefficients: dict[types.Type, tuple[float, ...]]) -> Any:
    """An intrinsic for Σ cᵢ xⁱ by Horner's rule, the coefficients c₀, c₁, ... by element type."""

    @intrinsic
    def horner(typingctx, x):
        """``c[0] + x * (c[1] + x * (c[2] + ...))``, fused multiply-adds throughout."""

        def codegen(context, builder, sig, args):
            kind = x.llvm
            *rest, result = [_constant(kind, c) for c in coefficients[x.dtype]]
            for constant in reversed(rest):
                result = _overloaded(builder, "fma", kind, [result, args[0], constant])
            return result

        return x(x), codegen

    return horner


def constant_for(values: dict[types.Type, float]) -> Any:
    """An intrinsic for a constant whose value depends on the element type."""

    @intrinsic
    def constant(typingctx, like):
        """The constant, in every lane of a vector like ``like``."""

        def codegen(context, builder, sig, args):
            return _constant(like.llvm, values[like.dtype])

        return like(like), codegen

    return constant


def integer_constant_for(values: dict[types.Type, int]) -> Any:
    """An intrinsic for an integer that depends on the element type, as a vector of that size."""

    @intrinsic
    def constant(typingctx, like):
        """The integer, in every lane of a vector with the lanes of ``like``."""
        vector = _bits_of(like)

        def codegen(context, builder, sig, args):
            return _constant(vector.llvm, values[like.dtype])

        return vector(like), codegen

    return constant


def _constant(kind: ir.VectorType, value: float) -> ir.Constant:
    return ir.Constant(kind, [value] * kind.count)


# ------------------------------------------------------------------------------- register tiles


@intrinsic
def tile_load(typingctx, p, stride, MR, NV):
    """A tile of ``len(MR)`` rows of ``len(NV)`` vectors, row ``i`` from ``p + i * stride``.

    The shape is told by the types of two tuples. A stride of 0 gives every row the same values: a
    bias, or zeros.
    """
    tile = Tile(vector_of(p.dtype), len(MR), len(NV))

    def codegen(context, builder, sig, args):
        return _tile_load(builder, tile, args[0], args[1])

    return tile(p, types.intp, MR, NV), codegen


def _tile_load(builder, tile, address, stride):
    value = ir.Constant(tile.llvm, ir.Undefined)
    for index, place in _tile_addresses(builder, tile, address, stride):
        vector = _load(builder, place, tile.vector.llvm, tile.vector.dtype)
        value = builder.insert_value(value, vector, index)
    return value


@intrinsic
def square_tile_load(typingctx, p, stride):
    """A tile as high as a vector is wide: one vector from each row."""
    vector = vector_of(p.dtype)
    tile = Tile(vector, vector.lanes, 1)

    def codegen(context, builder, sig, args):
        return _tile_load(builder, tile, *args)

    return tile(p, types.intp), codegen


@intrinsic
def tile_store(typingctx, tile, p, stride):
    """Write row ``i`` of a tile to ``p + i * stride``."""

    def codegen(context, builder, sig, args):
        for index, address in _tile_addresses(builder, tile, args[1], args[2]):
            _store(builder, builder.extract_value(args[0], index), address, tile.vector.dtype)
        return context.get_dummy_value()

    return types.none(tile, p, types.intp), codegen


@intrinsic
def tile_prefetch(typingctx, p, stride, MR, NV):
    """Ask for the cache lines of a tile that is to be loaded from ``p`` soon."""
    tile = Tile(vector_of(p.dtype), len(MR), len(NV))

    def codegen(context, builder, sig, args):
        for _, place in _tile_addresses(builder, tile, args[0], args[1]):
            _prefetch(builder, place)
        return context.get_dummy_value()

    return types.none(p, types.intp, MR, NV), codegen


@intrinsic
def tile_add_product(typingctx, tile, a, a_stride, b):
    """``tile[i, :] + a[i * a_stride] * b[:]``: one rank-1 update."""

    def codegen(context, builder, sig, args):
        value, a_address, stride, b_address = args
        kind, dtype = tile.vector.llvm, tile.vector.dtype
        row = []
        for j in range(tile.NV):
            offset = ir.Constant(_I64, j * tile.vector.lanes)
            row.append(_load(builder, _at(builder, b_address, dtype, offset), kind, dtype))
        for i in range(tile.MR):
            offset = builder.mul(ir.Constant(_I64, i), stride)
            scalar = _load(builder, _at(builder, a_address, dtype, offset), _element(dtype), dtype)
            left = _splat(builder, scalar, kind)
            for j in range(tile.NV):
                index = i * tile.NV + j
                product = [left, row[j], builder.extract_value(value, index)]
                value = builder.insert_value(
                    value, _overloaded(builder, "fma", kind, product), index
                )
        return value

    return tile(tile, a, types.intp, b), codegen


def _tile_addresses(builder, tile, base, stride):
    """Yield (index, address) for each vector of a tile in memory."""
    dtype = tile.vector.dtype
    for i in range(tile.MR):
        row = _at(builder, base, dtype, builder.mul(ir.Constant(_I64, i), stride))
        for j in range(tile.NV):
            offset = ir.Constant(_I64, j * tile.vector.lanes)
            yield i * tile.NV + j, _at(builder, row, dtype, offset)


# -------------------------------------------------------------------------------------- atomics


@intrinsic
def atomic_add(typingctx, p, amount):
    """Add to the integer at ``p`` and return what it was; orders memory for all threads."""

    def codegen(context, builder, sig, args):
        typed = builder.bitcast(args[0], _I64.as_pointer())
        return builder.atomic_rmw("add", typed, args[1], "seq_cst")

    return types.int64(p, types.int64), codegen


@intrinsic
def atomic_load(typingctx, p):
    """The integer at ``p``, with all that other threads wrote before they wrote it."""

    def codegen(context, builder, sig, args):
        typed = builder.bitcast(args[0], _I64.as_pointer())
        return builder.load_atomic(typed, "acquire", 8, typ=_I64)

    return types.int64(p), codegen


# Flush-to-zero and denormals-are-zero of x86's MXCSR, and flush-to-zero of ARM's FPCR.
_FLUSH_X86 = (1 << 15) | (1 << 6)
_FLUSH_ARM = 1 << 24


@intrinsic
def flush_subnormals(typingctx):
    """Take subnormal numbers for 0 in this thread; returns the mode that was, to be restored.

    Moments of inactive weights decay through the subnormals, where each operation takes a hundred
    cycles.
    """

    def codegen(context, builder, sig, args):
        mode = _floating_mode(builder)
        if mode is None:
            return ir.Constant(_I64, 0)
        flags = _FLUSH_X86 if mode.type == _I32 else _FLUSH_ARM
        _set_floating_mode(builder, builder.or_(mode, ir.Constant(mode.type, flags)))
        return mode if mode.type == _I64 else builder.zext(mode, _I64)

    return types.int64(), codegen


@intrinsic
def restore_subnormals(typingctx, mode):
    """Put back what `flush_subnormals` returned."""

    def codegen(context, builder, sig, args):
        if _is_x86(builder):
            _set_floating_mode(builder, builder.trunc(args[0], _I32))
        elif _is_arm(builder):
            _set_floating_mode(builder, args[0])
        return context.get_dummy_value()

    return types.none(types.int64), codegen


def _is_x86(builder: ir.IRBuilder) -> bool:
    return builder.module.triple.startswith(("x86_64", "i686"))


def _is_arm(builder: ir.IRBuilder) -> bool:
    return builder.module.triple.startswith(("aarch64", "arm64"))


def _floating_mode(builder: ir.IRBuilder) -> ir.Value | None:
    if _is_x86(builder):
        place = cgutils.alloca_once(builder, _I32)
        kind = ir.FunctionType(ir.VoidType(), [_BYTE_POINTER])
        function = cgutils.get_or_insert_function(builder.module, kind, "llvm.x86.sse.stmxcsr")
        builder.call(function, [builder.bitcast(place, _BYTE_POINTER)])
        return builder.load(place, typ=_I32)
    if _is_arm(builder):
        kind = ir.FunctionType(_I64, [])
        function = cgutils.get_or_insert_function(builder.module, kind, "llvm.aarch64.get.fpcr")
        return builder.call(function, [])
    return None


def _set_floating_mode(builder: ir.IRBuilder, mode: ir.Value) -> None:
    if mode.type == _I32:
        place = cgutils.alloca_once_value(builder, mode)
        name, operand = "llvm.x86.sse.ldmxcsr", builder.bitcast(place, _BYTE_POINTER)
    else:
        name, operand = "llvm.aarch64.set.fpcr", mode
    kind = ir.FunctionType(ir.VoidType(), [operand.type])
    builder.call(cgutils.get_or_insert_function(builder.module, kind, name), [operand])


@intrinsic
def spin_hint(typingctx):
    """Tell the processor that this is a waiting loop."""

    def codegen(context, builder, sig, args):
        if _is_x86(builder):
            name, operands = "llvm.x86.sse2.pause", []
        elif _is_arm(builder):
            name, operands = "llvm.aarch64.hint", [ir.Constant(_I32, 1)]  # yield
        else:
            return context.get_dummy_value()
        kind = ir.FunctionType(ir.VoidType(), [operand.type for operand in operands])
        builder.call(cgutils.get_or_insert_function(builder.module, kind, name), operands)
        return context.get_dummy_value()

    return types.none(), codegen
