"""What a processor offers beside arithmetic: atomics, flushing of subnormals, a hint to spin."""

from __future__ import annotations

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from fastbackprop._kernels.simd.types import BYTE_POINTER, I32, I64


@intrinsic
def atomic_add(typingctx, p, amount):
    """Add to the integer at ``p`` and return what it was; orders memory for all threads."""

    def codegen(context, builder, sig, args):
        typed = builder.bitcast(args[0], I64.as_pointer())
        return builder.atomic_rmw("add", typed, args[1], "seq_cst")

    return types.int64(p, types.int64), codegen


@intrinsic
def atomic_load(typingctx, p):
    """The integer at ``p``, with all that other threads wrote before they wrote it."""

    def codegen(context, builder, sig, args):
        typed = builder.bitcast(args[0], I64.as_pointer())
        return builder.load_atomic(typed, "acquire", 8, typ=I64)

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
            return ir.Constant(I64, 0)
        flags = _FLUSH_X86 if mode.type == I32 else _FLUSH_ARM
        _set_floating_mode(builder, builder.or_(mode, ir.Constant(mode.type, flags)))
        return mode if mode.type == I64 else builder.zext(mode, I64)

    return types.int64(), codegen


@intrinsic
def restore_subnormals(typingctx, mode):
    """Put back what `flush_subnormals` returned."""

    def codegen(context, builder, sig, args):
        if _is_x86(builder):
            _set_floating_mode(builder, builder.trunc(args[0], I32))
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
        place = cgutils.alloca_once(builder, I32)
        kind = ir.FunctionType(ir.VoidType(), [BYTE_POINTER])
        function = cgutils.get_or_insert_function(builder.module, kind, "llvm.x86.sse.stmxcsr")
        builder.call(function, [builder.bitcast(place, BYTE_POINTER)])
        return builder.load(place, typ=I32)
    if _is_arm(builder):
        kind = ir.FunctionType(I64, [])
        function = cgutils.get_or_insert_function(builder.module, kind, "llvm.aarch64.get.fpcr")
        return builder.call(function, [])
    return None


def _set_floating_mode(builder: ir.IRBuilder, mode: ir.Value) -> None:
    if mode.type == I32:
        place = cgutils.alloca_once_value(builder, mode)
        name, operand = "llvm.x86.sse.ldmxcsr", builder.bitcast(place, BYTE_POINTER)
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
            name, operands = "llvm.aarch64.hint", [ir.Constant(I32, 1)]  # yield
        else:
            return context.get_dummy_value()
        kind = ir.FunctionType(ir.VoidType(), [operand.type for operand in operands])
        builder.call(cgutils.get_or_insert_function(builder.module, kind, name), operands)
        return context.get_dummy_value()

    return types.none(), codegen
