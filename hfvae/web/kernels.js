// The one loop in which the time goes, and the layers that are made of it.
//
// Images are (h, w, c) here, not (c, h, w): what a filter sees in a row of an image is then one run
// of memory. Sixteen sums stay in registers, so that each number read takes part in four products.

/**
 * y[to + i·yDown + j·yRight + o] = b[o] + Σ_r Σ_k x[from + i·down + j·right + r·row + k] · W[o, r, k]
 *
 * for i < h and j < w. Where fewer than four are left, the last is done again in their place.
 *
 * @param filters {weight: (outputs, rows, span), bias: (outputs), outputs, rows, span}
 */
function correlate(filters, x, { from, down, right, row }, y, { to, yDown, yRight }, h, w) {
  const { weight, bias, outputs, rows, span } = filters
  const size = rows * span
  for (let o = 0; o < outputs; o += 4) {
    const o1 = Math.min(o + 1, outputs - 1), o2 = Math.min(o + 2, outputs - 1)
    const o3 = Math.min(o + 3, outputs - 1)
    const bias0 = bias[o], bias1 = bias[o1], bias2 = bias[o2], bias3 = bias[o3]
    for (let i = 0; i < h; i++) {
      for (let j = 0; j < w; j += 4) {
        let out = to + i * yDown + j * yRight
        let p = o * size, q = o1 * size, r = o2 * size, s = o3 * size
        let a0 = bias0, a1 = bias1, a2 = bias2, a3 = bias3
        let at = from + i * down + j * right
        if (j === w - 1) { // one alone, as in a layer of a single vector
          for (let n = rows; n--; at += row) {
            for (let k = at; k < at + span; k++) {
              const v = x[k]
              a0 += v * weight[p++]
              a1 += v * weight[q++]
              a2 += v * weight[r++]
              a3 += v * weight[s++]
            }
          }
          put(y, out, o, o1, o2, o3, a0, a1, a2, a3)
          continue
        }
        const n2 = Math.min(2, w - 1 - j), n3 = Math.min(3, w - 1 - j)
        const right2 = n2 * right, right3 = n3 * right
        let b0 = bias0, b1 = bias1, b2 = bias2, b3 = bias3
        let c0 = bias0, c1 = bias1, c2 = bias2, c3 = bias3
        let d0 = bias0, d1 = bias1, d2 = bias2, d3 = bias3
        for (let n = rows; n--; at += row) {
          for (let k = at; k < at + span; k++) {
            const w0 = weight[p++], w1 = weight[q++], w2 = weight[r++], w3 = weight[s++]
            let v = x[k]
            a0 += v * w0
            a1 += v * w1
            a2 += v * w2
            a3 += v * w3
            v = x[k + right]
            b0 += v * w0
            b1 += v * w1
            b2 += v * w2
            b3 += v * w3
            v = x[k + right2]
            c0 += v * w0
            c1 += v * w1
            c2 += v * w2
            c3 += v * w3
            v = x[k + right3]
            d0 += v * w0
            d1 += v * w1
            d2 += v * w2
            d3 += v * w3
          }
        }
        put(y, out, o, o1, o2, o3, a0, a1, a2, a3)
        put(y, out + yRight, o, o1, o2, o3, b0, b1, b2, b3)
        put(y, out + n2 * yRight, o, o1, o2, o3, c0, c1, c2, c3)
        put(y, out + n3 * yRight, o, o1, o2, o3, d0, d1, d2, d3)
      }
    }
  }
  return y
}

function put(y, at, o, o1, o2, o3, a0, a1, a2, a3) {
  y[at + o] = a0
  y[at + o1] = a1
  y[at + o2] = a2
  y[at + o3] = a3
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

/** x Wᵀ + b for `count` rows of x. */
export function linear(filters, x, count) {
  const { span, outputs } = filters
  const input = { from: 0, down: 0, right: span, row: 0 }
  const output = { to: 0, yDown: 0, yRight: outputs }
  return correlate(filters, x, input, new Float32Array(count * outputs), output, 1, count)
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
 * A pixel of the result sees 2x2 of the input, through one of four filters by the parities of its
 * row and column: [even even, even odd, odd even, odd odd]. Shi et al. 2016 (arXiv:1609.07009).
 */
export function convolveTransposed(phases, data, [c, h, w]) {
  const outputs = phases[0].outputs, row = (w + 2) * c
  const x = padded(data, [c, h, w], [1, 1])
  const y = new Float32Array(4 * h * w * outputs)
  phases.forEach((filters, phase) => {
    const down = phase >> 1, right = phase & 1
    const input = { from: down * row + right * c, down: row, right: c, row }
    const to = (down * 2 * w + right) * outputs
    correlate(filters, x, input, y, { to, yDown: 4 * w * outputs, yRight: 2 * outputs }, h, w)
  })
  return y
}
