"""Polynomials whose coefficients are constants: one for all lanes, or one of 32 for each lane."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from fastbackprop._kernels.jit import HAS_AVX512
from fastbackprop._kernels.simd.arithmetic import constant_vector, overloaded
from fastbackprop._kernels.simd.types import Vector


def _horner(builder: ir.IRBuilder, coefficients: Sequence[ir.Value], x: ir.Value) -> ir.Value:
    """``c[0] + x * (c[1] + x * (c[2] + ...))``, fused multiply-adds throughout."""
    *rest, result = coefficients
    for coefficient in reversed(rest):
        result = overloaded(builder, "fma", x.type, [result, x, coefficient])
    return result


def polynomial(coefficients: dict[types.Type, tuple[float, ...]]) -> Any:
    """An intrinsic for Σ cᵢ xⁱ by Horner's rule, the coefficients c₀, c₁, ... by element type."""

    @intrinsic
    def evaluate(typingctx, x):
        """The polynomial at each lane of ``x``."""

        def codegen(context, builder, sig, args):
            constants = [constant_vector(x.llvm, c) for c in coefficients[x.dtype]]
            return _horner(builder, constants, args[0])

        return x(x), codegen

    return evaluate


def has_tables(vector: Vector) -> bool:
    """Whether there is `piecewise_polynomial` for a type of vectors."""
    return HAS_AVX512 and vector.dtype == types.float32 and vector.lanes == 16


def piecewise_polynomial(rows: Sequence[Sequence[float]]) -> Any:
    """An intrinsic for 32 polynomials, of which each lane takes one; see `has_tables`.

    A row is a centre c and the coefficients c₀, c₁, ... of Σ cᵢ (x - c)ⁱ. A column of the rows is
    two registers, in which one instruction finds the numbers for all lanes.
    """

    @intrinsic
    def evaluate(typingctx, x, index):
        """At each lane of ``x`` the polynomial of row ``index``, whose low five bits count."""

        def codegen(context, builder, sig, args):
            kind = x.llvm
            find = cgutils.get_or_insert_function(
                builder.module,
                ir.FunctionType(kind, [kind, index.llvm, kind]),
                "llvm.x86.avx512.vpermi2var.ps.512",
            )
            centre, *coefficients = [
                builder.call(
                    find, [ir.Constant(kind, column[:16]), args[1], ir.Constant(kind, column[16:])]
                )
                for column in zip(*rows, strict=True)
            ]
            return _horner(builder, coefficients, builder.fsub(args[0], centre))

        return x(x, index), codegen

    return evaluate
