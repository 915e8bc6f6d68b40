// p(z): hfvae/priors. One class for each, made by `makePrior`.
//
// A prior draws from numbers that it is given: `draw(random)` makes the `size` of one draw, and
// `rows(noise, n)` finds those of each draw in the flat array that Python's prior draws for n:
//   standard-normal, flow    n · D normals
//   mixture                  n uniform numbers, then n · D normals
//   uniform, autoregressive  n · T uniform numbers, T being the places of the grid, row by row;
//                            over vectors of C numbers, then n · T · C normals

import { product } from "./arrays.js"
import { HubError } from "./errors.js"
import {
  argmax, bounded, gelu, inverse, inverseCdf, layerNorm, silu, softmax, variances,
} from "./functional.js"
import { linear, makeLinear } from "./kernels.js"

export const makePrior = (config, shape, tensors) => new {
  none: NoPrior,
  "standard-normal": StandardNormal,
  mixture: GaussianMixture,
  flow: Flow,
  uniform: Uniform,
  autoregressive: shape.length === 2 ? AutoregressiveCodes : AutoregressiveVectors,
}[config.prior](config, shape, tensors)

class Prior {
  samples = true
  letter = "z" // what an entry of its base is called

  constructor(shape, draw) {
    this.size = product(shape)
    this.draw = (random) => Float32Array.from({ length: this.size }, (_, i) => draw(random, i))
  }

  rows(noise, n) {
    return Array.from({ length: n }, (_, i) => noise.subarray(i * this.size, (i + 1) * this.size))
  }

  /** Multiplications that a draw takes, about, of a prior that holds so many numbers. */
  work(numbers) {
    return numbers
  }

  /** Where ways between latents run: a flow's base space, in which p is N(0, I). */
  toBase(z) {
    return z
  }

  fromBase(u) {
    return u
  }

  /** The prior in whose base ways from a few latents run: this one, where it knows them. */
  around(zs) {
    return this
  }

  /** What each entry of the base carries, from the h of many images. */
  tells(latents, hs) {
    return latents.weights(hs)
  }
}

/** What a new autoencoder has: nothing says where its codes lie. */
class NoPrior extends Prior {
  samples = false

  constructor() {
    super([0])
  }
}

/** p(z) = N(0, I). */
class StandardNormal extends Prior {
  constructor(config, shape) {
    super(shape, (random) => random.normal())
  }

  /** Events from the numbers of a few draws. Temperature multiplies standard deviations. */
  sample(rows, temperature) {
    return rows.map((eps) => eps.map((value) => temperature * value))
  }
}

/** p(z) = Σ_k π_k N(m_k, L_k L_kᵀ). */
class GaussianMixture extends Prior {
  constructor(config, [dim], tensors) {
    super([1 + dim], (random, i) => (i ? random.normal() : random.uniform()))
    const count = config.prior_components
    takeFitted(tensors)
    this.dim = dim
    this.weights = tensors.take("prior.weights", [count])
    this.means = tensors.take("prior.means", [count, dim])
    this.cholesky = tensors.take("prior.cholesky", [count, dim, dim])
    if (this.weights.some((w) => w < 0) || !this.weights.some((w) => w > 0)) {
      throw noDistribution("its weights must be 0 or more, and some of them more")
    }
    for (let at = 0; at < this.cholesky.length; at++) {
      const above = at % dim - Math.floor(at / dim) % dim, value = this.cholesky[at]
      if (above > 0 ? value !== 0 : above === 0 && value <= 0) {
        throw noDistribution("its Cholesky factors must be lower triangles with a positive diagonal")
      }
    }
  }

  rows(noise, n) {
    return Array.from({ length: n }, (_, i) =>
      Float32Array.of(noise[i], ...noise.subarray(n + i * this.dim, n + (i + 1) * this.dim)))
  }

  sample(rows, temperature) {
    const { dim, means, cholesky, weights } = this
    return rows.map(([u, ...eps]) => {
      const k = temperature ? inverseCdf(weights, u) : (this.densest ??= argmax(this.densities()))
      const z = means.slice(k * dim, (k + 1) * dim)
      for (let i = 0, at = k * dim * dim; i < dim; i++, at += dim) {
        for (let j = 0; j <= i; j++) z[i] += temperature * cholesky[at + j] * eps[j]
      }
      return z
    })
  }

  /** log p at each of the means, up to a constant. */
  densities() {
    const { dim, means, cholesky, weights } = this
    const total = weights.reduce((sum, w) => sum + w, 0)
    const tiny = 2 ** -23 // where torch.distributions keeps probabilities from 0 and 1
    const log = new Float64Array(weights.length), y = new Float64Array(dim)
    return weights.map((_, m) => {
      for (let k = 0; k < weights.length; k++) {
        // log N = −½ ‖y‖² − Σ log L_ii for L y = m_m − m_k.
        log[k] = Math.log(Math.min(Math.max(weights[k] / total, tiny), 1 - tiny))
        for (let i = 0, at = k * dim * dim; i < dim; i++, at += dim) {
          y[i] = means[m * dim + i] - means[k * dim + i]
          for (let j = 0; j < i; j++) y[i] -= cholesky[at + j] * y[j]
          y[i] /= cholesky[at + i]
          log[k] -= 0.5 * y[i] * y[i] + Math.log(cholesky[at + i])
        }
      }
      const most = Math.max(...log)
      return most + Math.log(log.reduce((sum, l) => sum + Math.exp(l - most), 0))
    })
  }
}

const UNKNOWN = 8 // times as far out as draws of N(0, I): held-out avatars lie within two

/** p(z) = N(f(z); 0, I) · |∂f/∂z| for an invertible f. Dinh et al. 2017 (arXiv:1605.08803). */
class Flow extends StandardNormal {
  letter = "u"

  constructor(config, shape, tensors) {
    super(config, shape)
    this.aside = new StandardNormal(config, shape) // whose base is z: for what this does not know
    takeFitted(tensors)
    const count = config.prior_layers, area = this.size ** 2
    const maps = tensors.take("prior.maps", [count, this.size, this.size])
    this.layers = Array.from({ length: count }, (_, i) =>
      new Coupling(tensors, `prior.layers.${i}`, maps.subarray(i * area, (i + 1) * area),
        this.size, config.prior_width))
    // What turns the base, which the first files do not say.
    const axes = tensors.has("prior.axes")
      ? tensors.take("prior.axes", [this.size, this.size])
      : Float32Array.from({ length: area }, (_, i) => Number(i % (this.size + 1) === 0))
    this.layers.push(new LinearMap(axes, this.size))
  }

  work(numbers) {
    return numbers + this.layers.length * this.size ** 3
  }

  toBase(z) {
    return this.layers.reduce((u, layer) => layer.forward(u), z)
  }

  tells(latents, hs) {
    return [variances(hs.map((h) => this.toBase(latents.mode(h)))), "variance"]
  }

  fromBase(u) {
    return this.layers.reduceRight((z, layer) => layer.inverse(z), u)
  }

  around(zs) {
    const far = UNKNOWN * Math.sqrt(this.size)
    return zs.every((z) => Math.hypot(...this.toBase(z)) <= far) ? this : this.aside
  }

  sample(rows, temperature) {
    return super.sample(rows, temperature).map((u) => this.fromBase(u))
  }
}

/** z W for a W (dim, dim), and back. */
class LinearMap {
  constructor(map, dim) {
    const back = inverse(map, dim)
    if (!back) throw noDistribution("a linear map of the flow has no inverse")
    const [W, inverseW] = [map, back].map((m) =>
      makeLinear(dim, dim, new Float32Array(dim), (o, i) => m[i * dim + o]))
    this.forward = (z) => linear(W, z, 1)
    this.inverse = (u) => linear(inverseW, u, 1)
  }
}

/** (a, b) = z W, then u = (a, b · e^{s(a)} + t(a)): Dinh et al. 2017, eq. 7. */
class Coupling {
  constructor(tensors, name, map, dim, width) {
    this.kept = Math.floor(dim / 2)
    this.map = new LinearMap(map, dim)
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
    const u = this.map.forward(z), b = u.subarray(this.kept)
    const [shift, scale] = this.terms(u.subarray(0, this.kept))
    b.forEach((value, i) => (b[i] = value * scale[i] + shift[i]))
    return u
  }

  inverse(u) {
    const z = u.slice(), b = z.subarray(this.kept)
    const [shift, scale] = this.terms(u.subarray(0, this.kept))
    b.forEach((value, i) => (b[i] = (value - shift[i]) / scale[i]))
    return this.map.inverse(z)
  }
}

/** Every grid of codes alike. */
class Uniform extends Prior {
  constructor(config, shape) {
    super(shape, (random) => random.uniform())
    this.codes = config.codebook_size
  }

  sample(rows, temperature) { // all grids are modes: at temperature 0 the first
    return rows.map((u) => u.map((value) => (temperature ? Math.floor(value * this.codes) : 0)))
  }
}

/**
 * p(z) = Π_t p(cell_t | cells before it), a causal transformer in row-major order that keeps
 * queries, keys and values of the past. Vaswani et al. 2017 (arXiv:1706.03762).
 */
class Autoregressive extends Prior {
  /**
   * @param shape [length, noise], how many cells there are and how many numbers one is drawn with
   * @param held how many numbers a cell holds
   */
  constructor(config, shape, held, draw, tensors) {
    super(shape, draw)
    const width = (this.width = config.prior_width)
    Object.assign(this, { held, length: shape[0] })
    takeFitted(tensors)
    this.start = tensors.take("prior.start", [1, 1, width])
    this.position = tensors.take("prior.position", [1, this.length, width])
    this.layers = Array.from({ length: config.prior_layers }, (_, i) =>
      new TransformerLayer(tensors, `prior.layers.${i}`, width))
    this.norm = takeNorm(tensors, "prior.norm", width)
  }

  work(numbers) { // as in hfvae/priors/autoregressive.py
    const moved = 2 ** 5 * this.length * this.width
    return this.length * (numbers + this.layers.length * (2 ** 18 + moved))
  }

  sample(rows, temperature) {
    const { width, length, held, head, position } = this
    const found = rows.map(() => new Float32Array(held * length))
    const pasts = this.layers.map(() => [])
    let h = new Float32Array(rows.length * width)
    rows.forEach((_, row) => h.set(this.start, row * width))
    for (let t = 0; t < length; t++) {
      for (let i = 0; i < h.length; i++) h[i] += position[t * width + i % width]
      this.layers.forEach((layer, i) => (h = layer.step(h, pasts[i])))
      const told = linear(head, layerNorm(h, width, ...this.norm), rows.length)
      rows.forEach((noise, row) => {
        const own = told.subarray(row * head.outputs, (row + 1) * head.outputs)
        const cell = this.cell(own, noise, t, temperature)
        cell.forEach((value, channel) => (found[row][channel * length + t] = value))
        h.set(this.embed(cell), row * width)
      })
    }
    return found
  }
}

/** A cell is a code, from a softmax. */
class AutoregressiveCodes extends Autoregressive {
  constructor(config, [h, w], tensors) {
    super(config, [h * w, 1], 1, (random) => random.uniform(), tensors)
    const { codebook_size: codes, prior_width: width } = config
    this.embedding = tensors.take("prior.embedding.weight", [codes, width])
    this.head = takeLinear(tensors, "prior.head", width, codes)
  }

  cell(logits, noise, t, temperature) {
    if (!temperature) return [argmax(logits)]
    return [inverseCdf(softmax(logits.map((value) => value / temperature)), noise[t])]
  }

  embed([code]) {
    return this.embedding.subarray(code * this.width, (code + 1) * this.width)
  }
}

/** A cell is a vector, from a mixture of Gaussians. Tschannen et al. 2024 (arXiv:2312.02116). */
class AutoregressiveVectors extends Autoregressive {
  constructor(config, [channels, h, w], tensors) {
    const draw = (random, i) => (i % (1 + channels) ? random.normal() : random.uniform())
    super(config, [h * w, 1 + channels], channels, draw, tensors)
    const { prior_components: count, prior_width: width } = config
    this.components = count
    this.embedding = takeLinear(tensors, "prior.embedding", channels, width)
    this.head = takeLinear(tensors, "prior.head", width, count * (1 + 2 * channels))
  }

  /** All uniform numbers stand first. */
  rows(noise, n) {
    const { held, length } = this, uniforms = n * length
    return Array.from({ length: n }, (_, row) => {
      const own = new Float32Array(this.size)
      for (let t = 0, from = row * length; t < length; t++, from++) {
        own[t * (1 + held)] = noise[from]
        const eps = noise.subarray(uniforms + from * held, uniforms + (from + 1) * held)
        own.set(eps, t * (1 + held) + 1)
      }
      return own
    })
  }

  cell(told, noise, t, temperature) {
    const { held, components } = this, each = 1 + 2 * held
    const logits = Float32Array.from({ length: components }, (_, k) => told[k * each])
    const u = noise[t * (1 + held)], eps = noise.subarray(t * (1 + held) + 1)
    const k = temperature ? inverseCdf(softmax(logits), u) : argmax(logits)
    const means = k * each + 1, scales = means + held
    return Float32Array.from({ length: held }, (_, i) =>
      told[means + i] + temperature * Math.exp(bounded(told[scales + i], 7)) * eps[i])
  }

  embed(cell) {
    return linear(this.embedding, cell, 1)
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
    const { width, heads } = this, rows = h.length / width
    const attended = new Float32Array(h.length)
    past.push(linear(this.qkv, layerNorm(h, width, ...this.norm1), rows))
    for (let i = 0; i < rows * heads; i++) this.attend(past, Math.floor(i / heads), i % heads, attended)
    h = add(h, linear(this.out, attended, rows))
    const up = gelu(linear(this.up, layerNorm(h, width, ...this.norm2), rows))
    return add(h, linear(this.down, up, rows))
  }

  /** softmax(q kᵀ / √D) v of one head in one row. */
  attend(past, row, head, attended) {
    const depth = this.width / this.heads, to = row * this.width + head * depth
    const q = row * 3 * this.width + head * depth, k = q + this.width, v = k + this.width
    const now = past.at(-1)
    const weights = softmax(Float32Array.from(past, (then) => {
      let dot = 0
      for (let i = 0; i < depth; i++) dot += now[q + i] * then[k + i]
      return dot / Math.sqrt(depth)
    }))
    past.forEach((then, t) => {
      for (let i = 0; i < depth; i++) attended[to + i] += weights[t] * then[v + i]
    })
  }
}

const add = (a, b) => a.map((value, i) => value + b[i])

function takeLinear(tensors, name, inputs, outputs) {
  const weight = tensors.take(`${name}.weight`, [outputs, inputs])
  const bias = tensors.take(`${name}.bias`, [outputs])
  return makeLinear(outputs, inputs, bias, (o, i) => weight[o * inputs + i])
}

const takeNorm = (tensors, name, width) =>
  ["weight", "bias"].map((kind) => tensors.take(`${name}.${kind}`, [width]))

/** Whether the prior was fitted, which the first files do not say. */
function takeFitted(tensors) {
  if (tensors.has("prior.fitted")) tensors.pass("prior.fitted", [], "BOOL")
}

const noDistribution = (why) =>
  new HubError(`The prior in model.safetensors is no distribution: ${why}.`)
