// The layers in which the time goes, made of the one loop of simd.js.
//
// Images are (h, w, c) here, not (c, h, w): what a filter sees in a row of an image is then one run
// of memory. Filters stand in fours, (outputs / 4, rows, span, 4), the last ones filled with zeros.

import { filterRow, memory } from "./simd.js"

const BYTES = 4 // of a number
const PAGE = 65536 // bytes of memory
const inFours = (n) => 4 * Math.ceil(n / 4)

/** Where arrays of so many numbers lie in the loop's memory, which grows to hold them: in bytes. */
function reserve(...lengths) {
  let end = 0
  const starts = lengths.map((length) => (end += BYTES * length) - BYTES * length)
  const missing = end - memory.buffer.byteLength
  if (missing > 0) memory.grow(Math.ceil(missing / PAGE))
  return starts
}

const inMemory = (start, length) => new Float32Array(memory.buffer, start, length)

/**
 * y[to + i·yDown + j·yRight, o] = b[o] + Σ_r Σ_k x[from + i·down + j·right + r·next + k] W[o, r, k]
 *
 * for i < h and j < w. Distances in x are counted in numbers, those in y in pixels.
 *
 * @param phases [{filters, from, to}, ...], filters of one shape
 */
function correlate(phases, x, { down, right, next }, { pixels, yDown, yRight }, h, w) {
  const { weight, bias, outputs, rows, span } = phases[0].filters
  const wide = inFours(outputs)
  const [weightAt, biasAt, xAt, yAt] = reserve(weight.length, wide, x.length, pixels * wide)
  inMemory(xAt, x.length).set(x)
  for (const { filters, from, to } of phases) {
    inMemory(weightAt, weight.length).set(filters.weight)
    inMemory(biasAt, outputs).set(filters.bias)
    for (let o = 0; o < wide; o += 4) {
      for (let i = 0; i < h; i++) {
        filterRow(
          xAt + BYTES * (from + i * down), BYTES * right, BYTES * next, rows, BYTES * span,
          weightAt + BYTES * o * rows * span, biasAt + BYTES * o,
          yAt + BYTES * ((to + i * yDown) * wide + o), BYTES * yRight * wide, w,
        )
      }
    }
  }
  return withoutPadding(inMemory(yAt, pixels * wide), outputs, wide)
}

/** (pixels, wide) -> (pixels, outputs), the first of each. */
function withoutPadding(y, outputs, wide) {
  const found = new Float32Array(y.length / wide * outputs)
  for (let to = 0, from = 0; to < found.length; to += outputs, from += wide) {
    for (let o = 0; o < outputs; o++) found[to + o] = y[from + o]
  }
  return found
}

/** Filters over (rows, columns, channels), from a function: weightAt(o, row, column, channel). */
export function makeFilters(outputs, [rows, columns, channels], bias, weightAt) {
  const span = columns * channels
  const weight = new Float32Array(inFours(outputs) * rows * span)
  for (let o = 0; o < outputs; o++) {
    let at = (o - o % 4) * rows * span + o % 4
    for (let row = 0; row < rows; row++) {
      for (let column = 0; column < columns; column++) {
        for (let c = 0; c < channels; c++, at += 4) weight[at] = weightAt(o, row, column, c)
      }
    }
  }
  return { weight, bias, outputs, rows, span }
}

/** Those of x Wᵀ + b, from weightAt(o, i). */
export const makeLinear = (outputs, inputs, bias, weightAt) =>
  makeFilters(outputs, [1, 1, inputs], bias, (o, row, column, i) => weightAt(o, i))

/** x Wᵀ + b for `count` rows of x. */
export function linear(filters, x, count) {
  const { bias, outputs } = filters
  if (!x.length) return Float32Array.from({ length: count * outputs }, (_, i) => bias[i % outputs])
  const input = { down: 0, right: filters.span, next: 0 }
  const output = { pixels: count, yDown: 0, yRight: 1 }
  return correlate([{ filters, from: 0, to: 0 }], x, input, output, 1, count)
}

/** (h, w, c) with that many rows of zeros above and below, and columns on the left and right. */
function padded(data, [c, h, w], [above, left]) {
  const row = (w + 2 * left) * c
  const found = new Float32Array((h + 2 * above) * row)
  for (let i = 0; i < h; i++) {
    found.set(data.subarray(i * w * c, (i + 1) * w * c), (i + above) * row + left * c)
  }
  return found
}

/** A convolution: [c, h, w] is the shape of what comes in, and [outputs, outH, outW] of the result. */
export function convolve(filters, data, [c, h, w], stride, padding, [, outH, outW]) {
  const next = (w + 2 * padding[1]) * c
  const input = { down: stride * next, right: stride * c, next }
  const output = { pixels: outH * outW, yDown: outW, yRight: 1 }
  const x = padded(data, [c, h, w], padding)
  return correlate([{ filters, from: 0, to: 0 }], x, input, output, outH, outW)
}

/**
 * A transposed convolution, 4x4 with stride 2 and padding 1: (h, w, c) -> (2h, 2w, outputs).
 *
 * A pixel of the result sees 2x2 of the input, through one of four filters by the parities of its
 * row and column: [even even, even odd, odd even, odd odd]. Shi et al. 2016 (arXiv:1609.07009).
 */
export function convolveTransposed(filters, data, [c, h, w]) {
  const next = (w + 2) * c
  const phases = filters.map((f, phase) => {
    const down = phase >> 1, right = phase & 1
    return { filters: f, from: down * next + right * c, to: down * 2 * w + right }
  })
  const output = { pixels: 4 * h * w, yDown: 4 * w, yRight: 2 }
  const x = padded(data, [c, h, w], [1, 1])
  return correlate(phases, x, { down: next, right: c, next }, output, h, w)
}
