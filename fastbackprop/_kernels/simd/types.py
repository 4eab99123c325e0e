"""Vector, Tile and Pointer as Numba types, and how LLVM loads and stores their elements."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba.core import types
from numba.extending import models, register_model

from fastbackprop._kernels.jit import VECTOR_BITS

I8 = ir.IntType(8)
I32 = ir.IntType(32)
I64 = ir.IntType(64)
BYTE_POINTER = I8.as_pointer()


def element_type(dtype: Any) -> ir.Type:
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
        return ir.VectorType(element_type(self.dtype), self.lanes)


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
        super().__init__(dmm, fe_type, BYTE_POINTER)


def address_at(builder: ir.IRBuilder, pointer: ir.Value, dtype: Any, index: ir.Value) -> ir.Value:
    """Address of element ``index``, as a byte pointer."""
    size = ir.Constant(I64, dtype.bitwidth // 8)
    return builder.gep(pointer, [builder.mul(index, size)], source_etype=I8)


def load_value(builder: ir.IRBuilder, pointer: ir.Value, kind: ir.Type, dtype: Any) -> ir.Value:
    # Rows of a caller's data may start anywhere; an unaligned load of aligned data costs nothing.
    typed = builder.bitcast(pointer, kind.as_pointer())
    return builder.load(typed, align=dtype.bitwidth // 8, typ=kind)


def store_value(builder: ir.IRBuilder, value: ir.Value, pointer: ir.Value, dtype: Any) -> None:
    typed = builder.bitcast(pointer, value.type.as_pointer())
    builder.store(value, typed, align=dtype.bitwidth // 8)
