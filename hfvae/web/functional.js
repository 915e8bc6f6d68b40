// Equations, with their sources; what hfvae/functional.py has too is named as there.

export const sigmoid = (x) => 1 / (1 + Math.exp(-x))

/** log(1 + e^x), without overflow. Far from 0 the second term is less than rounding. */
export const softplus = (x) =>
  Math.abs(x) > 36 ? Math.max(x, 0) : Math.max(x, 0) + Math.log1p(Math.exp(-Math.abs(x)))

/** x · σ(x), in place. Elfwing et al. 2018 (arXiv:1702.03118). */
export function silu(x) {
  for (let i = 0; i < x.length; i++) x[i] /= 1 + Math.exp(-x[i])
  return x
}

/** x · Φ(x) with Φ the CDF of N(0, 1), in place. Hendrycks & Gimpel 2016 (arXiv:1606.08415). */
export function gelu(x) {
  for (let i = 0; i < x.length; i++) x[i] *= 0.5 * (1 + erf(x[i] * Math.SQRT1_2))
  return x
}

/** To 1.5e-7: Abramowitz & Stegun 1964, 7.1.26. */
function erf(x) {
  const t = 1 / (1 + 0.3275911 * Math.abs(x))
  const p = ((((1.061405429 * t - 1.453152027) * t + 1.421413741) * t - 0.284496736) * t +
    0.254829592) * t
  return Math.sign(x) * (1 - p * Math.exp(-x * x))
}

/** Rows of `width` numbers, each with mean 0 and variance 1, then scaled. Ba et al. 2016. */
export function layerNorm(x, width, scale, shift) {
  const y = new Float32Array(x.length)
  for (let at = 0; at < x.length; at += width) {
    let mean = 0, square = 0
    for (let i = 0; i < width; i++) mean += x[at + i] / width
    for (let i = 0; i < width; i++) square += (x[at + i] - mean) ** 2 / width
    const inverse = 1 / Math.sqrt(square + 1e-5)
    for (let i = 0; i < width; i++) y[at + i] = (x[at + i] - mean) * inverse * scale[i] + shift[i]
  }
  return y
}

/** e^x / Σ e^x, in place. */
export function softmax(x) {
  let max = -Infinity, sum = 0
  for (const value of x) max = Math.max(max, value)
  for (let i = 0; i < x.length; i++) sum += x[i] = Math.exp(x[i] - max)
  for (let i = 0; i < x.length; i++) x[i] /= sum
  return x
}

export function argmax(x) {
  let best = 0
  for (let i = 1; i < x.length; i++) if (x[i] > x[best]) best = i
  return best
}

// What the pixels are

/**
 * E[min(max(X, 0), 1)] for a logistic X: ∫₀¹ P(X > t) dt, in [0, 1].
 * The mean of the discretized logistic (Salimans et al. 2017, arXiv:1701.05517) but for rounding.
 */
export function clippedLogisticMean(mean, scale) {
  const mass = scale * (softplus(mean / scale) - softplus((mean - 1) / scale))
  return Math.min(Math.max(mass, 0), 1)
}

/** How much each entry of some vectors differs between them, over n − 1. */
export const variances = (rows) => rows[0].map((_, i) => {
  const mean = rows.reduce((sum, row) => sum + row[i], 0) / rows.length
  return rows.reduce((sum, row) => sum + (row[i] - mean) ** 2, 0) / (rows.length - 1)
})

// Ways between two latents

/** (1 − t) · a + t · b. */
export const lerp = (a, b, t) => a.map((value, i) => (1 - t) * value + t * b[i])

/**
 * (sin((1 − t)ω) · a + sin(tω) · b) / sin ω, ω the angle between a and b; Shoemake 1985.
 * Where it is undefined, a zero vector or (anti)parallel ones, it is `lerp`.
 */
export function slerp(a, b, t) {
  let dot = 0, aa = 0, bb = 0
  for (let i = 0; i < a.length; i++) {
    dot += a[i] * b[i]
    aa += a[i] * a[i]
    bb += b[i] * b[i]
  }
  const omega = Math.acos(Math.min(Math.max(dot / Math.sqrt(aa * bb), -1), 1))
  const sine = Math.sin(omega)
  if (!(sine >= 1e-3)) return lerp(a, b, t) // NaN too
  const [p, q] = [Math.sin((1 - t) * omega) / sine, Math.sin(t * omega) / sine]
  return a.map((value, i) => p * value + q * b[i])
}

// Discrete latents

/** argmin over e of ‖z − e‖², the codebook's rows being as long as z. van den Oord et al. 2017, eq. 1. */
export function nearest(z, codebook) {
  let best = 0, least = Infinity
  for (let at = 0, code = 0; at < codebook.length; at += z.length, code++) {
    let distance = 0
    for (let i = 0; i < z.length; i++) distance += (z[i] - codebook[at + i]) ** 2
    if (distance < least) [best, least] = [code, distance]
  }
  return best
}

/** Which of L levels σ(z) · L − ½ rounds to, a half to even. Mentzer et al. 2024 (arXiv:2309.15505). */
export function roundToLevel(z, levels) {
  const squashed = sigmoid(z) * levels - 0.5
  let index = Math.round(squashed)
  if (index - squashed === 0.5 && index % 2) index--
  return Math.min(Math.max(index, 0), levels - 1)
}

/** Levels counted from 0 to L − 1, spread evenly over [−1, 1]. */
export const levelValue = (index, levels) => 2 * index / (levels - 1) - 1

/** A draw from K probabilities, which need not sum to one, by a uniform number. */
export function inverseCdf(p, u) {
  const total = p.reduce((sum, value) => sum + value, 0)
  let cdf = 0
  for (let code = 0; code < p.length; code++) {
    cdf += p[code]
    if (Math.fround(cdf) > Math.fround(u * Math.fround(total))) return code
  }
  return p.length - 1
}

// Flows

/** limit · tanh(s / limit): s where it is small, never beyond ±limit. */
export const bounded = (s, limit = 2) => limit * Math.tanh(s / limit)

/** The inverse of a square matrix, row by row, by Gauss and Jordan with pivots; null if there is none. */
export function inverse(matrix, size) {
  const wide = 2 * size // the matrix, and beside it what becomes its inverse
  const a = new Float64Array(size * wide)
  for (let row = 0; row < size; row++) {
    a.set(matrix.subarray(row * size, (row + 1) * size), row * wide)
    a[row * wide + size + row] = 1
  }
  for (let column = 0; column < size; column++) {
    const own = column * wide
    let pivot = own
    for (let row = own + wide; row < a.length; row += wide) {
      if (Math.abs(a[row + column]) > Math.abs(a[pivot + column])) pivot = row
    }
    const divisor = a[pivot + column]
    if (!divisor) return null
    for (let i = 0; i < wide; i++) {
      const value = a[pivot + i] / divisor
      a[pivot + i] = a[own + i]
      a[own + i] = value
    }
    for (let row = 0; row < a.length; row += wide) {
      const factor = a[row + column]
      if (row === own || !factor) continue
      for (let i = 0; i < wide; i++) a[row + i] -= factor * a[own + i]
    }
  }
  const found = new Float64Array(size * size)
  for (let row = 0; row < size; row++) {
    found.set(a.subarray(row * wide + size, (row + 1) * wide), row * size)
  }
  return found.every(Number.isFinite) ? found : null
}
