# Copyright 2026 The hf_effvid authors.
# SPDX-License-Identifier: Apache-2.0
"""Triton kernels of focal modulation: the gated sum over focal levels, one kernel in space and one in time.

Written as composites of torch operators, each level of each branch goes to memory and comes back four times (convolution,
GELU, gate, sum). Here a program owns what it reads, so that levels stay in the caches of one multiprocessor:

- in time, the T steps of a site depend on no other site: a program takes a tile of sites with all their steps, and its
  dense convolutions are matrix products over (steps x sites, channels);
- in space, the channels of a frame depend on no other channel: a program takes one frame and a block of channels.

A level that the next one reads in other places (a step earlier, a site to the left) goes through `scratch`, memory that only
this program touches; `tl.debug_barrier` makes it visible to all threads of the program. Sums are in float32; what is stored
is rounded to the type of the input, as the composite does.

Importing this file needs neither Triton nor a GPU: `TRITON_PROBLEM` says what is missing.
"""

try:
    import triton
    import triton.language as tl

    TRITON_PROBLEM = None
except Exception as error:
    triton = None
    TRITON_PROBLEM = f"Triton cannot be imported ({type(error).__name__}: {error})"


if triton is not None:

    @triton.jit
    def _gelu(x):
        """Exact GELU, x * Phi(x), with erf after Abramowitz and Stegun 7.1.26 (error below 1.5e-7): it has no branches."""
        magnitude = tl.abs(x) * 0.7071067811865476
        t = 1.0 / (1.0 + 0.3275911 * magnitude)
        polynomial = t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))))
        beyond = 0.5 * polynomial * tl.exp(-magnitude * magnitude)  # Phi(-|x|)
        return x * tl.where(x < 0, beyond, 1.0 - beyond)

    @triton.jit
    def _add_product(total, a, b, PRECISION: tl.constexpr, INTERPRETER: tl.constexpr):
        if INTERPRETER:  # which takes the bits of a bfloat16 for an integer in products
            a = a.to(tl.float32)
            b = b.to(tl.float32)
        return tl.dot(a, b, total, input_precision=PRECISION)

    @triton.jit
    def _temporal_convolution(
        source,
        source_stride,
        weights,
        step,
        site,
        here,
        n,
        sites,
        channels,
        SIZE: tl.constexpr,
        STEPS: tl.constexpr,
        ROWS: tl.constexpr,
        BLOCK_N: tl.constexpr,
        BLOCK_K: tl.constexpr,
        PRECISION: tl.constexpr,
        INTERPRETER: tl.constexpr,
    ):
        """GELU of a dense convolution along time, (ROWS, BLOCK_N), for the output channels `n`."""
        HALF: tl.constexpr = SIZE // 2
        # taps that would read before the first or after the last step from every row
        FIRST: tl.constexpr = max(0, HALF - STEPS + 1)
        LAST: tl.constexpr = min(SIZE, HALF + STEPS)
        total = tl.zeros((ROWS, BLOCK_N), dtype=tl.float32)
        blocks = tl.cdiv(channels, BLOCK_K)
        # one loop over taps and input channels, so that loads run ahead across taps
        for index in range(FIRST * blocks, LAST * blocks):
            tap = index // blocks
            k = (index - tap * blocks) * BLOCK_K + tl.arange(0, BLOCK_K)
            moved = step + tap - HALF
            x = tl.load(
                source + (moved * sites + site)[:, None] * source_stride + k[None, :],
                mask=(here & (moved >= 0) & (moved < STEPS))[:, None] & (k < channels)[None, :],
                other=0.0,
            )
            w = tl.load(
                weights + (tap * channels + n)[None, :] * channels + k[:, None],
                mask=(n < channels)[None, :] & (k < channels)[:, None],
                other=0.0,
            )
            total = _add_product(total, x, w, PRECISION, INTERPRETER)
        return _gelu(total)

    @triton.jit
    def temporal_kernel(
        context,
        gates,
        weights,
        scratch,
        output,
        clips,
        sites,
        channels,
        context_stride,
        gates_stride,
        LEVELS: tl.constexpr,
        WINDOW: tl.constexpr,
        STEPS: tl.constexpr,
        STEP_ROWS: tl.constexpr,
        TILE: tl.constexpr,
        BLOCK_N: tl.constexpr,
        BLOCK_K: tl.constexpr,
        PRECISION: tl.constexpr,
        INTERPRETER: tl.constexpr,
    ):
        """One program: TILE sites of one clip with all their steps."""
        ROWS: tl.constexpr = STEP_ROWS * TILE
        tiles = tl.cdiv(sites, TILE)
        clip = (tl.program_id(0) // tiles).to(tl.int64)
        row = tl.arange(0, ROWS)
        step = row // TILE
        site = (tl.program_id(0) % tiles) * TILE + row % TILE
        here = (step < STEPS) & (site < sites)
        place = step * sites + site  # of a row within its clip
        # rows of the same site: a product with this sums over time, where rows of all steps already are
        alike = ((row % TILE)[:, None] == (row % TILE)[None, :]) & (step < STEPS)[None, :]
        first = clip * STEPS * sites
        gates += first * gates_stride
        output += first * channels

        source = context + first * context_stride
        source_stride = context_stride
        # all levels but the last, which no other level reads
        for level in tl.static_range(LEVELS - 1):
            target = scratch + (level * clips * STEPS * sites + first) * channels
            for start in range(0, channels, BLOCK_N):
                n = start + tl.arange(0, BLOCK_N)
                wider = _temporal_convolution(
                    source, source_stride, weights, step, site, here, n, sites, channels,
                    WINDOW + 2 * level, STEPS, ROWS, BLOCK_N, BLOCK_K, PRECISION, INTERPRETER,
                )  # fmt: skip
                tl.store(
                    target + place[:, None] * channels + n[None, :],
                    wider.to(output.dtype.element_ty),
                    mask=here[:, None] & (n < channels)[None, :],
                )
            weights += (WINDOW + 2 * level) * channels * channels
            source = target
            source_stride = channels
            tl.debug_barrier()

        for start in range(0, channels, BLOCK_N):
            n = start + tl.arange(0, BLOCK_N)
            inside = here[:, None] & (n < channels)[None, :]
            last = _temporal_convolution(
                source, source_stride, weights, step, site, here, n, sites, channels,
                WINDOW + 2 * (LEVELS - 1), STEPS, ROWS, BLOCK_N, BLOCK_K, PRECISION, INTERPRETER,
            )  # fmt: skip
            rounded = tl.where(inside, last, 0.0).to(output.dtype.element_ty)
            over_time = tl.zeros((ROWS, BLOCK_N), dtype=tl.float32)
            over_time = _add_product(over_time, alike.to(tl.float32).to(rounded.dtype), rounded, "tf32x3", INTERPRETER)
            always = _gelu(over_time / STEPS)
            gathered = always * _gate(gates, place, gates_stride, LEVELS, here)
            gathered += last * _gate(gates, place, gates_stride, LEVELS - 1, here)
            gathered = _add_stored(
                gathered, scratch, gates, place, n, first, clips * STEPS * sites, channels,
                gates_stride, here, LEVELS - 1,
            )  # fmt: skip
            tl.store(
                output + place[:, None] * channels + n[None, :], gathered.to(output.dtype.element_ty), mask=inside
            )

    @triton.jit
    def _gate(gates, place, stride, level, here):
        """One gate per row, as a column."""
        return tl.load(gates + place * stride + level, mask=here, other=0.0).to(tl.float32)[:, None]

    @triton.jit
    def _add_stored(
        gathered, scratch, gates, place, c, first, rows, channels, gates_stride, here, LEVELS: tl.constexpr
    ):
        """Adds the first levels, which lie in `scratch` one after the other, each times its gate."""
        for level in tl.static_range(LEVELS):
            wider = tl.load(
                scratch + (level * rows + first) * channels + place[:, None] * channels + c[None, :],
                mask=here[:, None] & (c < channels)[None, :],
                other=0.0,
            )
            gathered += wider.to(tl.float32) * _gate(gates, place, gates_stride, level, here)
        return gathered

    @triton.jit
    def _spatial_level(
        source,
        source_stride,
        weights,
        target,
        height,
        width,
        channels,
        c,
        SIZE: tl.constexpr,
        BLOCK_S: tl.constexpr,
        BLOCK_C: tl.constexpr,
    ):
        """Writes GELU of a depthwise convolution of a frame to `target`; returns its sum over the frame, (BLOCK_C,)."""
        HALF: tl.constexpr = SIZE // 2
        sites = height * width
        summed = tl.zeros((BLOCK_C,), dtype=tl.float32)
        for start in range(0, sites, BLOCK_S):
            site = start + tl.arange(0, BLOCK_S)
            y = site // width
            x = site % width
            total = tl.zeros((BLOCK_S, BLOCK_C), dtype=tl.float32)
            for tap in tl.static_range(SIZE * SIZE):
                moved_y = y + (tap // SIZE - HALF)
                moved_x = x + (tap % SIZE - HALF)
                there = (site < sites) & (moved_y >= 0) & (moved_y < height) & (moved_x >= 0) & (moved_x < width)
                value = tl.load(
                    source + (moved_y * width + moved_x)[:, None] * source_stride + c[None, :],
                    mask=there[:, None] & (c < channels)[None, :],
                    other=0.0,
                )
                weight = tl.load(weights + tap * channels + c, mask=c < channels, other=0.0)
                total += value.to(tl.float32) * weight.to(tl.float32)[None, :]
            wider = _gelu(total)
            inside = (site < sites)[:, None] & (c < channels)[None, :]
            tl.store(target + site[:, None] * channels + c[None, :], wider.to(target.dtype.element_ty), mask=inside)
            summed += tl.sum(tl.where(inside, wider, 0.0), axis=0)
        return summed

    @triton.jit
    def spatial_kernel(
        context,
        gates,
        weights,
        scratch,
        output,
        frames,
        height,
        width,
        channels,
        context_stride,
        gates_stride,
        LEVELS: tl.constexpr,
        WINDOW: tl.constexpr,
        BLOCK_S: tl.constexpr,
        BLOCK_C: tl.constexpr,
    ):
        """One program: BLOCK_C channels of one frame."""
        # neighbouring programs share lines of memory
        blocks = tl.cdiv(channels, BLOCK_C)
        frame = (tl.program_id(0) // blocks).to(tl.int64)
        c = (tl.program_id(0) % blocks) * BLOCK_C + tl.arange(0, BLOCK_C)
        sites = height * width
        first = frame * sites
        gates += first * gates_stride
        output += first * channels

        source = context + first * context_stride
        source_stride = context_stride
        summed = tl.zeros((BLOCK_C,), dtype=tl.float32)
        for level in tl.static_range(LEVELS):
            target = scratch + (level * frames * sites + first) * channels
            summed = _spatial_level(
                source, source_stride, weights, target, height, width, channels, c,
                WINDOW + 2 * level, BLOCK_S, BLOCK_C,
            )  # fmt: skip
            weights += (WINDOW + 2 * level) * (WINDOW + 2 * level) * channels
            source = target
            source_stride = channels
            tl.debug_barrier()
        everywhere = _gelu(summed / sites)

        for start in range(0, sites, BLOCK_S):
            site = start + tl.arange(0, BLOCK_S)
            inside = (site < sites)[:, None] & (c < channels)[None, :]
            gathered = everywhere[None, :] * _gate(gates, site, gates_stride, LEVELS, site < sites)
            gathered = _add_stored(
                gathered, scratch, gates, site, c, first, frames * sites, channels, gates_stride, site < sites, LEVELS
            )
            tl.store(output + site[:, None] * channels + c[None, :], gathered.to(output.dtype.element_ty), mask=inside)

    # with TRITON_INTERPRET=1 the decorator gives functions that run on any device, slowly
    INTERPRETED = not isinstance(temporal_kernel, triton.JITFunction)
else:
    temporal_kernel = spatial_kernel = None
    INTERPRETED = False
