// The one loop in which the time goes, and the layers that are made of it.
//
// Images are (h, w, channels) here, not (channels, h, w): what a filter sees in one row of an image
// is then one run of memory. Sixteen sums at a time stay in registers, so that each number that is
// read takes part in four products.

/**
 * Sums of products of patches with filters:
 *
 *   y[to + i·yDown + j·yRight + o] = bias[o] + Σ_r Σ_k x[from + i·down + j·right + r·row + k] · filter[o, r, k]
 *
 * for i < h and j < w. Where fewer than four are left, the last is done again in their place.
 *
 * @param filters {weight: (outputs, rows, span), bias: (outputs), outputs, rows, span}
 */
export function correlate(filters, x, { from, down, right, row }, y, { to, yDown, yRight }, h, w) {
  const { weight, bias, outputs, rows, span } = filters
  const size = rows * span
  for (let o = 0; o < outputs; o += 4) {
    const o1 = Math.min(o + 1, outputs - 1), o2 = Math.min(o + 2, outputs - 1)
    const o3 = Math.min(o + 3, outputs - 1)
    const bias0 = bias[o], bias1 = bias[o1], bias2 = bias[o2], bias3 = bias[o3]
    for (let i = 0; i < h; i++) {
      for (let j = 0; j < w; j += 4) {
        const start = from + i * down + j * right, last = w - 1 - j
        let out = to + i * yDown + j * yRight
        let p = o * size, q = o1 * size, r = o2 * size, s = o3 * size
        let a0 = bias0, a1 = bias1, a2 = bias2, a3 = bias3
        if (last === 0) { // one alone, as in a layer of a single vector
          for (let at = start, n = rows; n--; at += row) {
            for (let k = at; k < at + span; k++) {
              const value = x[k]
              a0 += value * weight[p++]
              a1 += value * weight[q++]
              a2 += value * weight[r++]
              a3 += value * weight[s++]
            }
          }
          y[out + o] = a0
          y[out + o1] = a1
          y[out + o2] = a2
          y[out + o3] = a3
          continue
        }
        const n2 = Math.min(2, last), n3 = Math.min(3, last)
        const right2 = n2 * right, right3 = n3 * right
        let b0 = bias0, b1 = bias1, b2 = bias2, b3 = bias3
        let c0 = bias0, c1 = bias1, c2 = bias2, c3 = bias3
        let d0 = bias0, d1 = bias1, d2 = bias2, d3 = bias3
        for (let at = start, n = rows; n--; at += row) {
          for (let k = at; k < at + span; k++) {
            const w0 = weight[p++], w1 = weight[q++], w2 = weight[r++], w3 = weight[s++]
            let value = x[k]
            a0 += value * w0
            a1 += value * w1
            a2 += value * w2
            a3 += value * w3
            value = x[k + right]
            b0 += value * w0
            b1 += value * w1
            b2 += value * w2
            b3 += value * w3
            value = x[k + right2]
            c0 += value * w0
            c1 += value * w1
            c2 += value * w2
            c3 += value * w3
            value = x[k + right3]
            d0 += value * w0
            d1 += value * w1
            d2 += value * w2
            d3 += value * w3
          }
        }
        y[out + o] = a0
        y[out + o1] = a1
        y[out + o2] = a2
        y[out + o3] = a3
        out += yRight
        y[out + o] = b0
        y[out + o1] = b1
        y[out + o2] = b2
        y[out + o3] = b3
        out += (n2 - 1) * yRight
        y[out + o] = c0
        y[out + o1] = c1
        y[out + o2] = c2
        y[out + o3] = c3
        out += (n3 - n2) * yRight
        y[out + o] = d0
        y[out + o1] = d1
        y[out + o2] = d2
        y[out + o3] = d3
      }
    }
  }
  return y
}

/** Filters from a function: weightAt(o, r, k). */
export function makeFilters(outputs, rows, span, bias, weightAt) {
  const weight = new Float32Array(outputs * rows * span)
  let at = 0
  for (let o = 0; o < outputs; o++) {
    for (let r = 0; r < rows; r++) for (let k = 0; k < span; k++) weight[at++] = weightAt(o, r, k)
  }
  return { weight, bias, outputs, rows, span }
}

/** x W ᵀ + b for rows of x: W (outputs, inputs), as it is stored. */
export const linearFilters = (weight, bias) => ({
  weight, bias, outputs: bias.length, rows: 1, span: weight.length / bias.length,
})

export function linear(filters, x, count = x.length / filters.span) {
  const { span, outputs } = filters
  const input = { from: 0, down: 0, right: span, row: 0 }
  const output = { to: 0, yDown: 0, yRight: outputs }
  return correlate(filters, x, input, new Float32Array(count * outputs), output, 1, count)
}

/** (h, w, c) with zeros around it: `y` above and below, `x` on the left and right. */
export function padded(data, [c, h, w], [y, x]) {
  if (!y && !x) return data
  const row = (w + 2 * x) * c
  const found = new Float32Array((h + 2 * y) * row)
  for (let i = 0; i < h; i++) {
    found.set(data.subarray(i * w * c, (i + 1) * w * c), (i + y) * row + x * c)
  }
  return found
}

/** A convolution of (h, w, c) by filters of `rows` x `rows`, with that padding. */
export function convolve(filters, data, [c, h, w], stride, padding, [outputs, outH, outW]) {
  const row = (w + 2 * padding[1]) * c
  const input = { from: 0, down: stride * row, right: stride * c, row }
  const output = { to: 0, yDown: outW * outputs, yRight: outputs }
  const y = new Float32Array(outH * outW * outputs)
  return correlate(filters, padded(data, [c, h, w], padding), input, y, output, outH, outW)
}

/**
 * A transposed convolution, 4x4 with stride 2 and padding 1: (h, w, c) -> (2h, 2w, outputs).
 *
 * Each of the four kinds of pixel, by the parities of its row and column, sees 2x2 of the input:
 * Shi et al. 2016 (arXiv:1609.07009). `phases` are their filters, [[even, even], [even, odd], ...].
 */
export function convolveTransposed(phases, data, [c, h, w]) {
  const outputs = phases[0].outputs
  const row = (w + 2) * c
  const x = padded(data, [c, h, w], [1, 1])
  const y = new Float32Array(4 * h * w * outputs)
  phases.forEach((filters, phase) => {
    const [down, right] = [phase >> 1, phase & 1]
    const input = { from: down * row + right * c, down: row, right: c, row }
    const to = (down * 2 * w + right) * outputs
    correlate(filters, x, input, y, { to, yDown: 4 * w * outputs, yRight: 2 * outputs }, h, w)
  })
  return y
}
