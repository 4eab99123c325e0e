"""SIMD vectors, tiles and pointers as Numba types: the only folder that builds LLVM IR.

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

from fastbackprop._kernels.simd.arithmetic import (
    absolute,
    any_lane,
    as_bits,
    constant_for,
    convert,
    copysign,
    fma,
    from_bits,
    integer_constant_for,
    inverse,
    inverse_root,
    lane_bits,
    larger,
    largest_lane,
    select,
    smaller,
    sqrt,
    sum_lanes,
    trailing_zeros,
)
from fastbackprop._kernels.simd.machine import (
    atomic_add,
    atomic_load,
    flush_subnormals,
    restore_subnormals,
    spin_hint,
)
from fastbackprop._kernels.simd.memory import (
    ELEMENT_TYPES,
    FIRST_FLOAT,
    address_of,
    fill,
    itemsize,
    lane_index,
    lanes,
    live_lanes,
    load,
    load_any,
    pointer,
    prefetch,
    store,
)
from fastbackprop._kernels.simd.polynomials import (
    has_tables,
    piecewise_polynomial,
    polynomial,
)
from fastbackprop._kernels.simd.tiles import (
    add_few_products,
    square_tile_load,
    tile_add_product,
    tile_load,
    tile_products,
    tile_store,
    transpose,
)
from fastbackprop._kernels.simd.types import Pointer, Tile, Vector

__all__ = [
    "ELEMENT_TYPES",
    "FIRST_FLOAT",
    "Pointer",
    "Tile",
    "Vector",
    "absolute",
    "add_few_products",
    "address_of",
    "any_lane",
    "as_bits",
    "atomic_add",
    "atomic_load",
    "constant_for",
    "convert",
    "copysign",
    "fill",
    "flush_subnormals",
    "fma",
    "from_bits",
    "has_tables",
    "integer_constant_for",
    "inverse",
    "inverse_root",
    "itemsize",
    "lane_bits",
    "lane_index",
    "lanes",
    "larger",
    "largest_lane",
    "live_lanes",
    "load",
    "load_any",
    "piecewise_polynomial",
    "pointer",
    "polynomial",
    "prefetch",
    "restore_subnormals",
    "select",
    "smaller",
    "spin_hint",
    "sqrt",
    "square_tile_load",
    "store",
    "sum_lanes",
    "tile_add_product",
    "tile_load",
    "tile_products",
    "tile_store",
    "trailing_zeros",
    "transpose",
]
