"""The two Triton kernels behind `launch.LayerKernel`; `reference.py` says the same in float64.

1. `row_statistics`: one program for a block of rows of one head walks the columns once (online softmax) and writes the
   row's largest score and the reciprocal of its sum of exponentials. Two numbers, not their log-sum-exp: at scores of
   1e4 a float32 sum of the two is off by 1e-3, while the difference of two scores is exact.
2. `add_mean_rows`: one program for a tile of `W` loops over the heads, recomputes their scores, and adds the sum of
   their softmax to the tile in one store. A score costs a subtraction, two products, an addition and one exponential.

Scores are raw dot products where nothing but a scale is applied to them, and `unit` turns a difference of scores into
a power of two; a soft cap or an additive mask needs natural scores, `unit` then is log2(e).

Rows walk only over columns that they may attend to: not above the diagonal, not left of the window. What segments and
masks forbid inside of a tile is masked after the sum over heads, because it is the same for all heads.
"""

import typing

import triton
import triton.language as tl

LOG2E = tl.constexpr(1.4426950408889634)
MASK_NONE = tl.constexpr(0)
MASK_BOOLEAN = tl.constexpr(1)
MASK_ADDITIVE = tl.constexpr(2)


@typing.no_type_check
@triton.jit
def _load_block(base, index, stride, limit, first, width_stride, WIDTH: tl.constexpr, COUNT: tl.constexpr):
    """Numbers `first..first+COUNT` of the vectors `index` of one head, zero past `limit` and past the head's width."""
    d = first + tl.arange(0, COUNT)
    inside = index[:, None] < limit
    if WIDTH % COUNT != 0:
        inside = inside & (d < WIDTH)[None, :]
    return tl.load(base + index.to(tl.int64)[:, None] * stride + d[None, :] * width_stride, mask=inside, other=0.0)


@typing.no_type_check
@triton.jit
def _products_by_parts(
    query, rows, query_t, query_d, keys, columns, key_t, key_d, length,
    WIDTH: tl.constexpr, COUNT: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """Exact float32 products, a part of the head's width at a time: a thread holds its operands in registers."""
    products = tl.zeros((BLOCK_P, BLOCK_C), tl.float32)
    for first in range(0, WIDTH, COUNT):
        block = _load_block(query, rows, query_t, length, first, query_d, WIDTH, COUNT)
        key_block = _load_block(keys, columns, key_t, length, first, key_d, WIDTH, COUNT)
        # TF32 would carry an error of 1e-3 into the softmax.
        products = tl.dot(block, tl.trans(key_block), products, input_precision="ieee")
    return products


@typing.no_type_check
@triton.jit
def _products(block, key_block, WIDEN: tl.constexpr):
    """Products of half types, summed in float32."""
    if WIDEN:
        block, key_block = block.to(tl.float32), key_block.to(tl.float32)
    return tl.dot(block, tl.trans(key_block))


@typing.no_type_check
@triton.jit
def _score(products, scale, softcap, NATURAL: tl.constexpr, SOFTCAP: tl.constexpr):
    """Scores before any mask."""
    scores = products
    if NATURAL:
        scores = products * scale
    if SOFTCAP:
        # tanh(x) = 1 - 2 / (exp(2 x) + 1), right in both limits
        scores = softcap * (1.0 - 2.0 / (tl.exp2(scores * (2.0 * LOG2E / softcap)) + 1.0))
    return scores


@typing.no_type_check
@triton.jit
def _mask_tile(mask, rows, columns, row_stride, column_stride, length):
    """A tile of a boolean or additive mask; outside of the sequence what is read is masked elsewhere."""
    inside = (rows < length)[:, None] & (columns < length)[None, :]
    offsets = rows.to(tl.int64)[:, None] * row_stride + columns.to(tl.int64)[None, :] * column_stride
    return tl.load(mask + offsets, mask=inside, other=0)


@typing.no_type_check
@triton.jit
def _fold_columns(
    highest, total, query, block, rows, first, end, query_t, query_d, keys, key_t, key_d,
    segments, row_segments, mask, mask_t, mask_c, length, window, scale, softcap, unit, never,
    CHECK: tl.constexpr, MASK: tl.constexpr, SEGMENTS: tl.constexpr, NATURAL: tl.constexpr, SOFTCAP: tl.constexpr,
    WIDEN: tl.constexpr, BY_PARTS: tl.constexpr, WIDTH: tl.constexpr, BLOCK_D: tl.constexpr,
    BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """Fold columns `first..end` into each row's largest score and sum of exponentials; CHECK: some are not allowed."""
    for start in range(first, end, BLOCK_C):
        columns = start + tl.arange(0, BLOCK_C)
        if BY_PARTS:
            products = _products_by_parts(
                query, rows, query_t, query_d, keys, columns, key_t, key_d, length, WIDTH, BLOCK_D, BLOCK_P, BLOCK_C
            )
        else:
            key_block = _load_block(keys, columns, key_t, length, 0, key_d, WIDTH, BLOCK_D)
            products = _products(block, key_block, WIDEN)
        scores = _score(products, scale, softcap, NATURAL, SOFTCAP)
        if CHECK:
            allowed = (columns[None, :] <= rows[:, None]) & (columns[None, :] > rows[:, None] - window)
            if SEGMENTS:
                column_segments = tl.load(segments + columns, mask=columns < length, other=0)
                allowed = allowed & (row_segments[:, None] == column_segments[None, :])
                allowed = allowed & (column_segments > 0)[None, :]
            if MASK == MASK_BOOLEAN:
                allowed = allowed & (_mask_tile(mask, rows, columns, mask_t, mask_c, length) != 0)
            if MASK == MASK_ADDITIVE:
                added = _mask_tile(mask, rows, columns, mask_t, mask_c, length).to(tl.float32)
                scores = scores + added
                allowed = allowed & ~(added <= never)  # NaN is no "never"
            scores = tl.where(allowed, scores, float("-inf"))
        raised = tl.maximum(highest, tl.max(scores, 1))
        # A row that has seen nothing yet: -inf - -inf must not be asked for.
        pivot = tl.where(raised == float("-inf"), 0.0, raised)
        total = total * tl.exp2((highest - pivot) * unit) + tl.sum(tl.exp2((scores - pivot[:, None]) * unit), 1)
        highest = raised
    return highest, total


@typing.no_type_check
@triton.jit(do_not_specialize=["length", "window"])
def row_statistics(
    query, keys, highest_out, inverse_out, sinks, segments, mask,
    query_b, query_h, query_t, query_d, key_b, key_h, key_t, key_d, mask_b, mask_t, mask_c,
    length, window, scale, softcap, unit, never,
    HEADS: tl.constexpr, GROUP: tl.constexpr, WIDTH: tl.constexpr, BLOCK_D: tl.constexpr,
    MASK: tl.constexpr, SEGMENTS: tl.constexpr, SINKS: tl.constexpr, NATURAL: tl.constexpr, SOFTCAP: tl.constexpr,
    WIDEN: tl.constexpr, BY_PARTS: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """Largest score and reciprocal sum of exponentials of each row: grid (row blocks, batch x heads)."""
    # The last rows have the most columns; they start first, so that the short ones fill up the end.
    first_row = (tl.num_programs(0) - 1 - tl.program_id(0)) * BLOCK_P
    b = (tl.program_id(1) // HEADS).to(tl.int64)
    h = tl.program_id(1) % HEADS
    rows = first_row + tl.arange(0, BLOCK_P)
    query += b * query_b + h.to(tl.int64) * query_h
    block = rows
    if not BY_PARTS:
        block = _load_block(query, rows, query_t, length, 0, query_d, WIDTH, BLOCK_D)
    keys += b * key_b + (h // GROUP).to(tl.int64) * key_h
    segments += b * length
    mask += b * mask_b
    row_segments = rows
    if SEGMENTS:
        row_segments = tl.load(segments + rows, mask=rows < length, other=0)

    highest = tl.full((BLOCK_P,), float("-inf"), tl.float32)
    total = tl.zeros((BLOCK_P,), tl.float32)
    end = tl.minimum(first_row + BLOCK_P, length)
    first = tl.maximum(first_row - window + 1, 0) // BLOCK_C * BLOCK_C
    diagonal = first_row // BLOCK_C * BLOCK_C
    # Columns first..inner stick out of the window, inner..diagonal are all allowed, the rest crosses the diagonal.
    inner = diagonal
    if MASK == MASK_NONE and not SEGMENTS:
        inner = tl.cdiv(tl.maximum(first_row + BLOCK_P - window, 0), BLOCK_C) * BLOCK_C
        inner = tl.minimum(tl.maximum(inner, first), diagonal)
    highest, total = _fold_columns(
        highest, total, query, block, rows, first, inner, query_t, query_d, keys, key_t, key_d,
        segments, row_segments, mask, mask_t, mask_c, length, window, scale, softcap, unit, never,
        True, MASK, SEGMENTS, NATURAL, SOFTCAP, WIDEN, BY_PARTS, WIDTH, BLOCK_D, BLOCK_P, BLOCK_C,
    )  # fmt: skip
    if MASK == MASK_NONE and not SEGMENTS:
        highest, total = _fold_columns(
            highest, total, query, block, rows, inner, diagonal, query_t, query_d, keys, key_t, key_d,
            segments, row_segments, mask, mask_t, mask_c, length, window, scale, softcap, unit, never,
            False, MASK, SEGMENTS, NATURAL, SOFTCAP, WIDEN, BY_PARTS, WIDTH, BLOCK_D, BLOCK_P, BLOCK_C,
        )  # fmt: skip
    highest, total = _fold_columns(
        highest, total, query, block, rows, diagonal, end, query_t, query_d, keys, key_t, key_d,
        segments, row_segments, mask, mask_t, mask_c, length, window, scale, softcap, unit, never,
        True, MASK, SEGMENTS, NATURAL, SOFTCAP, WIDEN, BY_PARTS, WIDTH, BLOCK_D, BLOCK_P, BLOCK_C,
    )  # fmt: skip

    if SINKS:
        sink = tl.load(sinks + h) * LOG2E / unit
        raised = tl.maximum(highest, sink)
        total = total * tl.exp2((highest - raised) * unit) + tl.exp2((sink - raised) * unit)
        highest = raised
    pivot = tl.where(highest == float("-inf"), 0.0, highest)
    inverse = 1.0 / total
    if MASK != MASK_NONE or SEGMENTS:
        # Only a mask can leave a row nothing to attend to; elsewhere a sum of zero shows as NaN.
        inverse = tl.where(total == 0.0, 0.0, inverse)
    where = tl.program_id(1).to(tl.int64) * length + rows
    tl.store(highest_out + where, pivot, mask=rows < length)
    tl.store(inverse_out + where, inverse, mask=rows < length)


@typing.no_type_check
@triton.jit(do_not_specialize=["start", "stop", "length", "window"])
def add_mean_rows(
    panel, query, keys, highest_in, inverse_in, segments, mask,
    panel_b, panel_p, query_b, query_h, query_t, query_d, key_b, key_h, key_t, key_d, mask_b, mask_t, mask_c,
    start, stop, length, window, scale, softcap, unit, never, share,
    HEADS: tl.constexpr, GROUP: tl.constexpr, WIDTH: tl.constexpr, BLOCK_D: tl.constexpr,
    MASK: tl.constexpr, SEGMENTS: tl.constexpr, NATURAL: tl.constexpr, SOFTCAP: tl.constexpr,
    WIDEN: tl.constexpr, BY_PARTS: tl.constexpr, BLOCK_P: tl.constexpr, BLOCK_C: tl.constexpr,
):  # fmt: skip
    """Add `share` times the sum over heads of rows `start..stop` to the panel: grid (tiles, batch)."""
    # Neighbouring programs share their columns, and so their keys in the cache.
    row_blocks = tl.cdiv(stop - start, BLOCK_P)
    first_row = start + tl.program_id(0) % row_blocks * BLOCK_P
    first_column = tl.program_id(0) // row_blocks * BLOCK_C
    last_row = tl.minimum(first_row + BLOCK_P, stop) - 1
    if (first_column >= last_row) | (first_column + BLOCK_C <= first_row - window + 1):
        return
    b = tl.program_id(1).to(tl.int64)
    rows = first_row + tl.arange(0, BLOCK_P)
    columns = first_column + tl.arange(0, BLOCK_C)
    if SEGMENTS:
        row_segments = tl.load(segments + b * length + rows, mask=rows < stop, other=0)
        column_segments = tl.load(segments + b * length + columns, mask=columns < stop, other=0)
        if tl.max(row_segments, 0) < tl.min(column_segments, 0) or tl.min(row_segments, 0) > tl.max(column_segments, 0):
            return
    if MASK != MASK_NONE:
        tile = _mask_tile(mask + b * mask_b, rows, columns, mask_t, mask_c, length)
        if MASK == MASK_BOOLEAN:
            unmasked = tile != 0
        else:
            tile = tile.to(tl.float32)
            unmasked = ~(tile <= never)
        if tl.max(tl.max(unmasked.to(tl.int32), 1), 0) == 0:
            return

    query += b * query_b
    keys += b * key_b
    highest_in += b * HEADS * length + rows
    inverse_in += b * HEADS * length + rows
    total = tl.zeros((BLOCK_P, BLOCK_C), tl.float32)
    for _ in range(HEADS // GROUP):
        key_block = columns
        if not BY_PARTS:
            key_block = _load_block(keys, columns, key_t, length, 0, key_d, WIDTH, BLOCK_D)
        for _ in range(GROUP):
            if BY_PARTS:
                products = _products_by_parts(
                    query, rows, query_t, query_d, keys, columns, key_t, key_d, length, WIDTH, BLOCK_D, BLOCK_P, BLOCK_C
                )
            else:
                block = _load_block(query, rows, query_t, length, 0, query_d, WIDTH, BLOCK_D)
                products = _products(block, key_block, WIDEN)
            scores = _score(products, scale, softcap, NATURAL, SOFTCAP)
            if MASK == MASK_ADDITIVE:
                scores = scores + tile
            highest = tl.load(highest_in, mask=rows < length, other=0.0)
            inverse = tl.load(inverse_in, mask=rows < length, other=0.0)
            total += tl.exp2((scores - highest[:, None]) * unit) * inverse[:, None]
            query += query_h
            highest_in += length
            inverse_in += length
        keys += key_h

    # Not before the loop: a tile of conditions would take the registers that its heads need.
    allowed = (columns[None, :] < rows[:, None]) & (columns[None, :] > rows[:, None] - window) & (rows < stop)[:, None]
    if SEGMENTS:
        allowed = allowed & (row_segments[:, None] == column_segments[None, :]) & (column_segments > 0)[None, :]
    if MASK != MASK_NONE:
        allowed = allowed & unmasked
    where = panel + b * panel_b + (rows - start).to(tl.int64)[:, None] * panel_p + columns[None, :]
    left = tl.load(where, mask=allowed, other=0.0)
    tl.store(where, left + total * share, mask=allowed)
