"""Register tiles: loaded, transposed, stored, and the innermost loop of every matrix product."""

from __future__ import annotations

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

from fastbackprop._kernels.simd.arithmetic import overloaded
from fastbackprop._kernels.simd.memory import prefetch_line, splat
from fastbackprop._kernels.simd.types import (
    BYTE_POINTER,
    I8,
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
        _tile_store(builder, tile, *args)
        return context.get_dummy_value()

    return types.none(tile, p, types.intp), codegen


def _tile_store(builder, tile, value, address, stride):
    for index, place in _tile_addresses(builder, tile, address, stride):
        store_value(builder, builder.extract_value(value, index), place, tile.vector.dtype)


@intrinsic
def tile_add_product(typingctx, tile, a, a_row, b):
    """``tile[i, :] + a[i * a_row] * b[:]``: one rank-1 update."""

    def codegen(context, builder, sig, args):
        value, a_address, row, b_address = args
        left = _row_addresses(builder, tile, a_address, row)
        return _add_outer_product(builder, tile, value, left, b_address)

    return tile(tile, a, types.intp, b), codegen


@intrinsic
def tile_products(
    typingctx, MR, NV, count, out, ld_out, start, ld_start, a, a_row, a_k, b, ld_b, k
):
    """``count`` tiles of ``out = start + a @ b``, one below the other, with sums of ``k`` products.

    Both loops are made here. In Numba's language they took three times as long to compile, for each
    shape of a tile, and LLVM spoiled their addresses (see `_add_products`).
    """
    tile = Tile(vector_of(out.dtype), len(MR), len(NV))
    dtype = out.dtype

    def codegen(context, builder, sig, args):
        _, _, count, out, ld_out, start, ld_start, a, a_row, a_k, b, ld_b, k = args
        height = ir.Constant(I64, tile.MR)
        with cgutils.for_range(builder, count) as tiles:
            top = builder.mul(tiles.index, height)

            def row_of(matrix, ld, number=top):
                return address_at(builder, matrix, dtype, builder.mul(number, ld))

            value = _tile_load(builder, tile, row_of(start, ld_start), ld_start)
            next_start = row_of(start, ld_start, builder.add(top, height))
            has_rows = builder.icmp_signed("!=", ld_start, ir.Constant(I64, 0))
            with builder.if_then(has_rows):
                for _, place in _tile_addresses(builder, tile, next_start, ld_start):
                    prefetch_line(builder, place)
            left = row_of(a, a_row)
            value = _add_products(builder, tile, value, left, a_row, a_k, b, ld_b, k)
            _tile_store(builder, tile, value, row_of(out, ld_out), ld_out)
        return context.get_dummy_value()

    # All pointers of one type, since elements of another would be read wrongly.
    count, stride = types.intp, types.intp
    matrices = (out, stride, out, stride, out, stride, stride, out, stride)
    return types.none(MR, NV, count, *matrices, count), codegen


def _add_products(builder, tile, value, a, a_row, a_k, b, ld_b, k):
    """The tile plus ``Σₚ a[i * a_row + p * a_k] · b[p * ld_b:]``, by ``k`` rank-1 updates.

    A row's elements lie at its own address, from before the loop, plus a distance that is the same
    for all rows, and the only one to grow. LLVM made the addresses one from the other, also from
    the last of the step before: in a tile of eight rows eight additions one after another in a
    step, in each cycle of which two multiply-adds can start. Tiles of one vector ran at half of
    their rate.
    """
    size = ir.Constant(I64, tile.vector.dtype.bitwidth // 8)
    zero, one = ir.Constant(I64, 0), ir.Constant(I64, 1)
    a_step, b_step = builder.mul(a_k, size), builder.mul(ld_b, size)
    rows = [_opaque(builder, address) for address in _row_addresses(builder, tile, a, a_row)]
    before = builder.block
    body = builder.append_basic_block("products")
    after = builder.append_basic_block("products.end")
    builder.cbranch(builder.icmp_signed(">", k, zero), body, after)

    builder.position_at_end(body)
    steps, sums, distance, right = map(builder.phi, (I64, tile.llvm, I64, BYTE_POINTER))
    left = [builder.gep(address, [distance], source_etype=I8) for address in rows]
    total = _add_outer_product(builder, tile, sums, left, right)
    # If LLVM knew the count it would do two steps a turn, which is no faster, and more to compile.
    rest = _opaque(builder, builder.sub(steps, one))
    for phi, at_first, then in (
        (steps, k, rest),
        (sums, value, total),
        (distance, zero, builder.add(distance, a_step)),
        (right, b, builder.gep(right, [b_step], source_etype=I8)),
    ):
        phi.add_incoming(at_first, before)
        phi.add_incoming(then, body)
    builder.cbranch(builder.icmp_signed(">", rest, zero), body, after)

    builder.position_at_end(after)
    result = builder.phi(tile.llvm)
    result.add_incoming(value, before)
    result.add_incoming(total, body)
    return result


@intrinsic
def add_few_products(typingctx, k, NV, count, w, ld_w, a, ld_a, b, ld_b):
    """``w[i, :] += Σₚ a[p * ld_a + i] · b[p, :]`` on ``count`` rows of ``NV`` vectors.

    All ``len(k)`` rows of ``b`` stay in registers, and rows of ``w`` pass by.
    """
    tile = Tile(vector_of(w.dtype), len(k), len(NV))
    dtype = w.dtype

    def codegen(context, builder, sig, args):
        _, _, count, w, ld_w, a, ld_a, b, ld_b = args
        size = ir.Constant(I64, dtype.bitwidth // 8)
        zero, one = ir.Constant(I64, 0), ir.Constant(I64, 1)
        right = _tile_load(builder, tile, b, ld_b)
        rows = [_opaque(builder, address) for address in _row_addresses(builder, tile, a, ld_a)]
        step = builder.mul(ld_w, size)
        before = builder.block
        body = builder.append_basic_block("rows")
        after = builder.append_basic_block("rows.end")
        builder.cbranch(builder.icmp_signed(">", count, zero), body, after)

        builder.position_at_end(body)
        left, distance, place = map(builder.phi, (I64, I64, BYTE_POINTER))
        row = Tile(tile.vector, 1, tile.NV)
        value = _tile_load(builder, row, place, zero)
        for p, address in enumerate(rows):
            element = load_value(
                builder,
                builder.gep(address, [distance], source_etype=I8),
                element_type(dtype),
                dtype,
            )
            factor = splat(builder, element, tile.vector.llvm)
            for j in range(tile.NV):
                other = builder.extract_value(right, p * tile.NV + j)
                product = [factor, other, builder.extract_value(value, j)]
                total = overloaded(builder, "fma", tile.vector.llvm, product)
                value = builder.insert_value(value, total, j)
        _tile_store(builder, row, value, place, zero)
        rest = _opaque(builder, builder.sub(left, one))
        for phi, at_first, then in (
            (left, count, rest),
            (distance, zero, builder.add(distance, size)),
            (place, w, builder.gep(place, [step], source_etype=I8)),
        ):
            phi.add_incoming(at_first, before)
            phi.add_incoming(then, body)
        builder.cbranch(builder.icmp_signed(">", rest, zero), body, after)
        builder.position_at_end(after)
        return context.get_dummy_value()

    count, stride = types.intp, types.intp
    return types.none(k, NV, count, w, stride, w, stride, w, stride), codegen


def _add_outer_product(builder, tile, value, left, right):
    """The tile plus the product of a column, an element at each address of ``left``, and a row."""
    kind, dtype = tile.vector.llvm, tile.vector.dtype
    row = []
    for j in range(tile.NV):
        offset = ir.Constant(I64, j * tile.vector.lanes)
        row.append(load_value(builder, address_at(builder, right, dtype, offset), kind, dtype))
    for i, address in enumerate(left):
        element = splat(builder, load_value(builder, address, element_type(dtype), dtype), kind)
        for j in range(tile.NV):
            index = i * tile.NV + j
            product = [element, row[j], builder.extract_value(value, index)]
            value = builder.insert_value(value, overloaded(builder, "fma", kind, product), index)
    return value


def _opaque(builder, value):
    """The same value; LLVM is not to know how it came about."""
    same = ir.FunctionType(value.type, [value.type])
    return builder.call(ir.InlineAsm(same, "", "=r,0"), [value])


def _row_addresses(builder, tile, a, row):
    """The address of an element in each row of a tile's left operand."""
    offsets = [builder.mul(ir.Constant(I64, i), row) for i in range(tile.MR)]
    return [address_at(builder, a, tile.vector.dtype, offset) for offset in offsets]


def _tile_addresses(builder, tile, base, stride):
    """Yield (index, address) for each vector of a tile in memory."""
    dtype = tile.vector.dtype
    for i in range(tile.MR):
        row = address_at(builder, base, dtype, builder.mul(ir.Constant(I64, i), stride))
        for j in range(tile.NV):
            offset = ir.Constant(I64, j * tile.vector.lanes)
            yield i * tile.NV + j, address_at(builder, row, dtype, offset)
