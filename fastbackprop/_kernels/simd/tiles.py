"""Register tiles: loaded, updated by a product of rank one, transposed and stored."""

from __future__ import annotations

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from fastbackprop._kernels.simd.arithmetic import overloaded
from fastbackprop._kernels.simd.memory import prefetch_line, splat
from fastbackprop._kernels.simd.types import (
    BYTE_POINTER,
    I32,
    I64,
    Tile,
    address_at,
    element_type,
    load_value,
    store_value,
    vector_of,
)


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
            masks = [ir.Constant(ir.VectorType(I32, size), lanes) for lanes in (low, high)]
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
        vector = load_value(builder, place, tile.vector.llvm, tile.vector.dtype)
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
            store_value(builder, builder.extract_value(args[0], index), address, tile.vector.dtype)
        return context.get_dummy_value()

    return types.none(tile, p, types.intp), codegen


@intrinsic
def tile_prefetch(typingctx, p, stride, MR, NV):
    """Ask for the cache lines of a tile that is to be loaded from ``p`` soon."""
    tile = Tile(vector_of(p.dtype), len(MR), len(NV))

    def codegen(context, builder, sig, args):
        for _, place in _tile_addresses(builder, tile, args[0], args[1]):
            prefetch_line(builder, place)
        return context.get_dummy_value()

    return types.none(p, types.intp, MR, NV), codegen


# An instruction adds a stride to an address, once or twice, by itself. LLVM made eight addresses of
# a loop one from the other, also from the last of the step before: eight cycles a step in which two
# multiply-adds could start in each, so that tiles of one vector ran at half of their rate.
_ROWS_A_BASE = 3


@intrinsic
def tile_add_product(typingctx, tile, a, a_stride, b):
    """``tile[i, :] + a[i * a_stride] * b[:]``: one rank-1 update."""

    def codegen(context, builder, sig, args):
        value, a_address, stride, b_address = args
        kind, dtype = tile.vector.llvm, tile.vector.dtype
        row = []
        for j in range(tile.NV):
            offset = ir.Constant(I64, j * tile.vector.lanes)
            row.append(
                load_value(builder, address_at(builder, b_address, dtype, offset), kind, dtype)
            )
        rows_below = builder.mul(ir.Constant(I64, _ROWS_A_BASE), stride)
        for i in range(tile.MR):
            if i % _ROWS_A_BASE == 0:
                if i > 0:
                    a_address = address_at(builder, a_address, dtype, rows_below)
                a_address = _opaque(builder, a_address)
            offset = builder.mul(ir.Constant(I64, i % _ROWS_A_BASE), stride)
            scalar = load_value(
                builder, address_at(builder, a_address, dtype, offset), element_type(dtype), dtype
            )
            left = splat(builder, scalar, kind)
            for j in range(tile.NV):
                index = i * tile.NV + j
                product = [left, row[j], builder.extract_value(value, index)]
                value = builder.insert_value(
                    value, overloaded(builder, "fma", kind, product), index
                )
        return value

    return tile(tile, a, types.intp, b), codegen


def _opaque(builder, address):
    """The same address; LLVM is not to know how it came about."""
    kind = ir.FunctionType(BYTE_POINTER, [BYTE_POINTER])
    return builder.call(ir.InlineAsm(kind, "", "=r,0"), [address])


def _tile_addresses(builder, tile, base, stride):
    """Yield (index, address) for each vector of a tile in memory."""
    dtype = tile.vector.dtype
    for i in range(tile.MR):
        row = address_at(builder, base, dtype, builder.mul(ir.Constant(I64, i), stride))
        for j in range(tile.NV):
            offset = ir.Constant(I64, j * tile.vector.lanes)
            yield i * tile.NV + j, address_at(builder, row, dtype, offset)
