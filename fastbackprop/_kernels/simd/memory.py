"""Pointers, and vectors between memory and registers: loads, stores, broadcasts, conversions."""

from __future__ import annotations

import operator
from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.core.imputils import lower_builtin
from numba.core.typing.templates import AbstractTemplate, infer_global, signature
from numba.extending import intrinsic

from fastbackprop._kernels.simd.types import (
    BYTE_POINTER,
    I32,
    I64,
    Pointer,
    Vector,
    address_at,
    element_type,
    load_value,
    store_value,
    vector_of,
)


@intrinsic
def prefetch(typingctx, address):
    """Ask for the cache line at an address ahead of its use; there need not be memory there."""

    def codegen(context, builder, sig, args):
        prefetch_line(builder, builder.inttoptr(args[0], BYTE_POINTER))
        return context.get_dummy_value()

    return types.none(types.intp), codegen


@intrinsic
def pointer(typingctx, address, like):
    """``address`` (an integer) as a pointer to elements of the type of ``like``."""

    def codegen(context, builder, sig, args):
        return builder.inttoptr(args[0], BYTE_POINTER)

    dtype = like.dtype if isinstance(like, Pointer | types.NumberClass) else like
    return Pointer(dtype)(types.intp, like), codegen


@intrinsic
def address_of(typingctx, p):
    """The address behind a pointer, as an integer."""

    def codegen(context, builder, sig, args):
        return builder.ptrtoint(args[0], I64)

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
    return address_at(builder, args[0], sig.args[0].dtype, args[1])


@infer_global(operator.getitem)
class _PointerGet(AbstractTemplate):
    def generic(self, args, kws):
        if isinstance(args[0], Pointer) and isinstance(args[1], types.Integer):
            return signature(args[0].dtype, args[0], types.intp)
        return None


@lower_builtin(operator.getitem, Pointer, types.Integer)
def _pointer_get(context, builder, sig, args):
    dtype = sig.args[0].dtype
    return load_value(
        builder, address_at(builder, args[0], dtype, args[1]), element_type(dtype), dtype
    )


@infer_global(operator.setitem)
class _PointerSet(AbstractTemplate):
    def generic(self, args, kws):
        if isinstance(args[0], Pointer) and isinstance(args[1], types.Integer):
            return signature(types.none, args[0], types.intp, args[0].dtype)
        return None


@lower_builtin(operator.setitem, Pointer, types.Integer, types.Any)
def _pointer_set(context, builder, sig, args):
    dtype = sig.args[0].dtype
    store_value(builder, args[2], address_at(builder, args[0], dtype, args[1]), dtype)
    return context.get_dummy_value()


def prefetch_line(builder: ir.IRBuilder, address: ir.Value) -> None:
    """Ask for the cache line at an address ahead of its use."""
    kind = ir.FunctionType(ir.VoidType(), [BYTE_POINTER, I32, I32, I32])
    function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")
    flags = [ir.Constant(I32, value) for value in (0, 2, 1)]  # read, keep near, data
    builder.call(function, [address, *flags])


@intrinsic
def lanes(typingctx, p):
    """How many elements a vector holds that is loaded from ``p``; a compile-time constant."""
    count = (p if isinstance(p, Vector) else vector_of(p.dtype)).lanes

    def codegen(context, builder, sig, args):
        return ir.Constant(I64, count)

    return types.intp(p), codegen


@intrinsic
def itemsize(typingctx, like):
    """Bytes of a scalar, or of an element behind a pointer; a compile-time constant."""
    dtype = like.dtype if isinstance(like, Pointer) else like

    def codegen(context, builder, sig, args):
        return ir.Constant(I64, dtype.bitwidth // 8)

    return types.intp(like), codegen


@intrinsic
def load(typingctx, p):
    """The vector at ``p``."""
    vector = vector_of(p.dtype)

    def codegen(context, builder, sig, args):
        return load_value(builder, args[0], vector.llvm, vector.dtype)

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
FIRST_FLOAT = ELEMENT_TYPES.index(types.float32)


@intrinsic
def load_any(typingctx, address, kind, like):
    """A vector or a number like ``like`` of elements of any type, converted.

    The type is a number at run time: one function of each type would take Numba two seconds to
    compile. Where it is a constant, so is the choice.
    """
    lanes, target = (like.lanes, like.dtype) if isinstance(like, Vector) else (1, like)

    def codegen(context, builder, sig, args):
        result = like.llvm if isinstance(like, Vector) else element_type(like)
        pointer = builder.inttoptr(args[0], BYTE_POINTER)
        end = builder.append_basic_block("loaded")
        blocks = [builder.append_basic_block(str(dtype)) for dtype in ELEMENT_TYPES]
        choice = builder.switch(args[1], blocks[-1])
        values = []
        for number, (dtype, block) in enumerate(zip(ELEMENT_TYPES, blocks, strict=True)):
            choice.add_case(number, block)
            builder.position_at_end(block)
            source = element_type(dtype) if lanes == 1 else Vector(dtype, lanes).llvm
            value = load_value(builder, pointer, source, dtype)
            values.append(convert_value(builder, value, dtype, target, result))
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
        store_value(builder, args[1], args[0], sig.args[1].dtype)
        return context.get_dummy_value()

    return types.none(p, v), codegen


@intrinsic
def fill(typingctx, like, scalar):
    """A vector like ``like`` (or as loaded from it) whose every lane is ``scalar``."""
    vector = like if isinstance(like, Vector) else vector_of(like.dtype)

    def codegen(context, builder, sig, args):
        value = context.cast(builder, args[1], sig.args[1], vector.dtype)
        return splat(builder, value, vector.llvm)

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
        # As wide as the elements, so that the comparison is one of one register.
        number = ir.IntType(like.dtype.bitwidth)
        kind = ir.VectorType(number, like.lanes)
        columns = ir.Constant(kind, list(range(like.lanes)))
        left = builder.sub(args[2], args[1])
        for sign, bound in (("<", like.lanes), (">", 0)):
            limit = ir.Constant(I64, bound)
            left = builder.select(builder.icmp_signed(sign, left, limit), left, limit)
        if number.width < 64:
            left = builder.trunc(left, number)
        return builder.icmp_signed("<", columns, splat(builder, left, kind))

    return mask(like, types.intp, types.intp), codegen


def splat(builder: ir.IRBuilder, scalar: ir.Value, kind: ir.VectorType) -> ir.Value:
    first = builder.insert_element(ir.Constant(kind, ir.Undefined), scalar, ir.Constant(I32, 0))
    zeros = ir.Constant(ir.VectorType(I32, kind.count), None)
    return builder.shuffle_vector(first, ir.Constant(kind, ir.Undefined), zeros)


def convert_value(
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
