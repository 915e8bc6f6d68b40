// p(z): hfvae/priors. One class for each, made by `makePrior`.
//
// A prior draws from numbers that it is given: `draw(random)` makes those of one draw, and
// `rows(noise, n)` finds those of each draw in the flat array that Python's prior would draw for n:
//   standard-normal, flow   n · D normals
//   mixture                 n uniform numbers, then n · D normals
//   uniform, autoregressive n · T uniform numbers, T being the places of the grid, row by row

import { product } from "./arrays.js"
import { HubError } from "./errors.js"
import {
  argmax, bounded, gelu, inverse, inverseCdf, layerNorm, silu, softmax,
} from "./functional.js"
import { linear, makeFilters } from "./kernels.js"

export const makePrior = (config, shape, tensors) => new {
  none: NoPrior,
  "standard-normal": StandardNormal,
  mixture: GaussianMixture,
  flow: Flow,
  uniform: Uniform,
  autoregressive: Autoregressive,
}[config.prior](config, shape, tensors)

/** What a new autoencoder has: nothing says where its codes lie. */
class NoPrior {
  samples = true
  work = 0

  constructor(config, shape) {
    this.samples = config.prior !== "none"
    this.size = product(shape) // numbers of one draw
  }

  draw(random) {
    return Float32Array.from({ length: this.size }, () => random.normal())
  }

  rows(noise, n) {
    return Array.from({ length: n }, (_, i) => noise.subarray(i * this.size, (i + 1) * this.size))
  }

  /** Where ways between latents run: a flow's base space, in which p is N(0, I). */
  toBase(z) {
    return z
  }

  fromBase(u) {
    return u
  }
}

/** p(z) = N(0, I). */
class StandardNormal extends NoPrior {
  /** Events from the numbers of a few draws. Temperature multiplies standard deviations. */
  sample(rows, temperature) {
    return rows.map((eps) => eps.map((value) => temperature * value))
  }
}

/** p(z) = Σ_k π_k N(m_k, L_k L_kᵀ). */
class GaussianMixture extends NoPrior {
  constructor(config, shape, tensors) {
    super(config, shape)
    const [dim] = shape, count = config.prior_components
    takeFitted(tensors)
    this.dim = dim
    this.size = 1 + dim
    this.weights = tensors.take("prior.weights", [count])
    this.means = tensors.take("prior.means", [count, dim])
    this.cholesky = tensors.take("prior.cholesky", [count, dim, dim])
    this.work = count * (1 + dim + dim * dim)
    if (this.weights.some((w) => w < 0) || !this.weights.some((w) => w > 0)) {
      throw noDistribution("its weights must be 0 or more, and some of them more")
    }
    this.cholesky.forEach((value, at) => {
      const row = Math.floor(at / dim) % dim, column = at % dim
      if (column > row ? value !== 0 : column === row && value <= 0) {
        throw noDistribution("its Cholesky factors must be lower triangles with a positive diagonal")
      }
    })
  }

  draw(random) {
    return Float32Array.from({ length: this.size }, (_, i) =>
      i ? random.normal() : random.uniform())
  }

  rows(noise, n) {
    return Array.from({ length: n }, (_, i) => Float32Array.of(
      noise[i], ...noise.subarray(n + i * this.dim, n + (i + 1) * this.dim)))
  }

  sample(rows, temperature) {
    return rows.map(([u, ...eps]) => {
      const k = temperature ? inverseCdf(this.weights, u) : (this.likeliest ??= this.densest())
      const z = this.means.slice(k * this.dim, (k + 1) * this.dim)
      for (let i = 0, at = k * this.dim ** 2; i < this.dim; i++, at += this.dim) {
        for (let j = 0; j <= i; j++) z[i] += temperature * this.cholesky[at + j] * eps[j]
      }
      return z
    })
  }

  /** The component whose mean is the densest of the means. */
  densest() {
    const { dim, means, cholesky, weights } = this
    const total = weights.reduce((sum, w) => sum + w, 0)
    const tiny = 2 ** -23 // where torch.distributions keeps probabilities from 0 and 1
    const densities = new Float64Array(weights.length)
    const log = new Float64Array(weights.length), y = new Float64Array(dim)
    for (let m = 0; m < weights.length; m++) {
      for (let k = 0; k < weights.length; k++) {
        // Solve L y = m_m − m_k: log N = −½ ‖y‖² − Σ log L_ii, up to a constant.
        log[k] = Math.log(Math.min(Math.max(weights[k] / total, tiny), 1 - tiny))
        for (let i = 0, at = k * dim * dim; i < dim; i++, at += dim) {
          let rest = means[m * dim + i] - means[k * dim + i]
          for (let j = 0; j < i; j++) rest -= cholesky[at + j] * y[j]
          y[i] = rest / cholesky[at + i]
          log[k] -= 0.5 * y[i] * y[i] + Math.log(cholesky[at + i])
        }
      }
      const most = Math.max(...log)
      densities[m] = most + Math.log(log.reduce((sum, l) => sum + Math.exp(l - most), 0))
    }
    return argmax(densities)
  }
}

/** p(z) = N(f(z); 0, I) · |∂f/∂z| for an invertible f. Dinh et al. 2017 (arXiv:1605.08803). */
class Flow extends StandardNormal {
  constructor(config, shape, tensors) {
    super(config, shape)
    const { prior_layers: layers, prior_width: width } = config
    takeFitted(tensors)
    this.layers = Array.from({ length: layers }, (_, i) =>
      new Coupling(tensors, `prior.layers.${i}`, ...shape, width))
    this.work = layers * (2 * shape[0] ** 3 + width * (2 * shape[0] + width))
  }

  toBase(z) {
    return this.layers.reduce((u, layer) => layer.forward(u), z)
  }

  fromBase(u) {
    return this.layers.reduceRight((z, layer) => layer.inverse(z), u)
  }

  sample(rows, temperature) {
    return super.sample(rows, temperature).map((u) => this.fromBase(u))
  }
}

/** (a, b) = z W, then u = (a, b · e^{s(a)} + t(a)): Dinh et al. 2017, eq. 7. */
class Coupling {
  constructor(tensors, name, dim, width) {
    this.kept = Math.floor(dim / 2)
    const mix = tensors.take(`${name}.mix`, [dim, dim])
    const back = inverse(mix, dim)
    if (!back) throw noDistribution("a linear map of the flow has no inverse")
    const transposed = (m) =>
      makeFilters(dim, 1, dim, new Float32Array(dim), (o, _, k) => m[k * dim + o])
    this.mix = transposed(mix)
    this.back = transposed(back)
    const sizes = [this.kept, width, width, 2 * (dim - this.kept)]
    this.net = [0, 1, 2].map((i) =>
      takeLinear(tensors, `${name}.net.${2 * i}`, sizes[i], sizes[i + 1]))
  }

  /** t(a) and e^{s(a)} for each entry of b. */
  terms(a) {
    const [first, second, last] = this.net
    const found = linear(last, silu(linear(second, silu(linear(first, a, 1)), 1)), 1)
    const half = found.length / 2
    return [found.subarray(0, half), found.subarray(half).map((s) => Math.exp(bounded(s)))]
  }

  forward(z) {
    const u = linear(this.mix, z, 1)
    const [shift, scale] = this.terms(u.subarray(0, this.kept))
    for (let i = 0; i < shift.length; i++) u[this.kept + i] = u[this.kept + i] * scale[i] + shift[i]
    return u
  }

  inverse(u) {
    const z = u.slice()
    const [shift, scale] = this.terms(u.subarray(0, this.kept))
    for (let i = 0; i < shift.length; i++) z[this.kept + i] = (u[this.kept + i] - shift[i]) / scale[i]
    return linear(this.back, z, 1)
  }
}

/** Every grid of codes alike. */
class Uniform extends NoPrior {
  constructor(config, shape) {
    super(config, shape)
    this.codebookSize = config.codebook_size
  }

  draw(random) {
    return Float32Array.from({ length: this.size }, () => random.uniform())
  }

  sample(rows, temperature) { // all grids are modes: at temperature 0 the first
    return rows.map((u) => u.map((value) => temperature ? Math.floor(value * this.codebookSize) : 0))
  }
}

/**
 * p(codes) = Π_t p(code_t | codes before it), a causal transformer in row-major order, that keeps
 * keys and values of the past. Vaswani et al. 2017 (arXiv:1706.03762).
 */
class Autoregressive extends Uniform {
  constructor(config, shape, tensors) {
    super(config, shape)
    const { prior_width: width, prior_layers: layers, codebook_size: codes } = config
    this.width = width
    this.start = tensors.take("prior.start", [1, 1, width])
    this.embedding = tensors.take("prior.embedding.weight", [codes, width])
    this.position = tensors.take("prior.position", [1, this.size, width])
    this.layers = Array.from({ length: layers }, (_, i) =>
      new TransformerLayer(tensors, `prior.layers.${i}`, width))
    this.norm = takeNorm(tensors, "prior.norm", width)
    this.head = takeLinear(tensors, "prior.head", width, codes)
    // Measured in Python (hfvae/priors/codes.py): all weights at each place, all keys and values
    // before it, and the time of a step through a layer however narrow it is.
    const weights = width * (1 + codes + this.size + 2) + (width + 1) * codes +
      layers * (12 * width * width + 13 * width)
    this.work = this.size * (weights + layers * (2 ** 18 + 2 ** 5 * this.size * width))
  }

  sample(rows, temperature) {
    const { width, codebookSize } = this
    const count = rows.length
    const codes = rows.map((u) => new Float32Array(u.length))
    const pasts = this.layers.map(() => [])
    let h = new Float32Array(count * width)
    for (let row = 0; row < count; row++) h.set(this.start, row * width)
    for (let t = 0; t < this.size; t++) {
      for (let i = 0; i < h.length; i++) h[i] += this.position[t * width + i % width]
      this.layers.forEach((layer, i) => (h = layer.step(h, pasts[i])))
      const logits = linear(this.head, layerNorm(h, width, ...this.norm), count)
      for (let row = 0; row < count; row++) {
        const own = logits.subarray(row * codebookSize, (row + 1) * codebookSize)
        const code = temperature
          ? inverseCdf(softmax(own.map((value) => value / temperature)), rows[row][t])
          : argmax(own)
        codes[row][t] = code
        h.set(this.embedding.subarray(code * width, (code + 1) * width), row * width)
      }
    }
    return codes
  }
}

/** Causal attention and a two-layer perceptron, each normalized first and added. */
class TransformerLayer {
  constructor(tensors, name, width) {
    this.width = width
    this.heads = width >= 256 ? 8 : 4
    this.norm1 = takeNorm(tensors, `${name}.norm1`, width)
    this.norm2 = takeNorm(tensors, `${name}.norm2`, width)
    this.qkv = takeLinear(tensors, `${name}.qkv`, width, 3 * width)
    this.out = takeLinear(tensors, `${name}.out`, width, width)
    this.up = takeLinear(tensors, `${name}.mlp.0`, width, 4 * width)
    this.down = takeLinear(tensors, `${name}.mlp.2`, 4 * width, width)
  }

  /** One more place of each row, (rows · width), given queries, keys and values of those before. */
  step(h, past) {
    const { width } = this, rows = h.length / width
    const qkv = linear(this.qkv, layerNorm(h, width, ...this.norm1), rows)
    const attended = new Float32Array(h.length)
    past.push(qkv)
    for (let row = 0; row < rows; row++) {
      for (let head = 0; head < this.heads; head++) this.attend(past, row, head, attended)
    }
    h = add(h, linear(this.out, attended, rows))
    const up = gelu(linear(this.up, layerNorm(h, width, ...this.norm2), rows))
    return add(h, linear(this.down, up, rows))
  }

  /** softmax(q kᵀ / √D) v of one head in one row. */
  attend(past, row, head, attended) {
    const depth = this.width / this.heads
    const q = row * 3 * this.width + head * depth, k = q + this.width, v = k + this.width
    const qkv = past.at(-1), weights = new Float32Array(past.length)
    for (let t = 0; t < past.length; t++) {
      let dot = 0
      for (let i = 0; i < depth; i++) dot += qkv[q + i] * past[t][k + i]
      weights[t] = dot / Math.sqrt(depth)
    }
    softmax(weights)
    const to = row * this.width + head * depth
    for (let t = 0; t < past.length; t++) {
      for (let i = 0; i < depth; i++) attended[to + i] += weights[t] * past[t][v + i]
    }
  }
}

const add = (a, b) => a.map((value, i) => value + b[i])

const takeLinear = (tensors, name, inputs, outputs) => ({
  weight: tensors.take(`${name}.weight`, [outputs, inputs]),
  bias: tensors.take(`${name}.bias`, [outputs]),
  outputs,
  rows: 1,
  span: inputs,
})

const takeNorm = (tensors, name, width) =>
  ["weight", "bias"].map((kind) => tensors.take(`${name}.${kind}`, [width]))

/** Whether the prior was fitted, which the first files do not say. */
function takeFitted(tensors) {
  if (tensors.has("prior.fitted")) tensors.pass("prior.fitted", [], "BOOL")
}

const noDistribution = (why) =>
  new HubError(`The prior in model.safetensors is no distribution: ${why}.`)
