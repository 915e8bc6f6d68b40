// The encoder and the decoder: hfvae/networks.py, with BatchNorm folded into the layer before it.

import { product } from "./arrays.js"
import { HubError } from "./errors.js"
import { silu } from "./functional.js"
import { convolve, convolveTransposed, linear, makeFilters, makeLinear } from "./kernels.js"

const EPSILON = 1e-5 // of BatchNorm

/** Layers in the order in which Python numbers them; each maps (h, w, c) to (h, w, c). */
class Layers {
  next = 0
  layers = []
  multiplications = 0

  /** @param shape [c, h, w] of what comes in */
  constructor(tensors, name, shape) {
    Object.assign(this, { tensors, name, shape, widest: product(shape) })
  }

  run(x) {
    return this.layers.reduce((data, layer) => layer(data), x)
  }

  add(layer, shape, multiplications = 0) {
    this.layers.push(layer)
    this.shape = shape
    this.multiplications += multiplications
    this.widest = Math.max(this.widest, product(shape))
  }

  take(kind, shape) {
    return this.tensors.take(`${this.name}.${this.next}.${kind}`, shape)
  }

  /**
   * What a layer's channels are multiplied by, and what is added then: its bias, or the BatchNorm
   * that stands `after` it, γ (x − mean) / √(var + ε) + β. Ioffe & Szegedy 2015 (arXiv:1502.03167).
   */
  affine(outputs, after) {
    this.next += after
    const shift = this.take("bias", [outputs])
    const scale = after ? this.take("weight", [outputs]) : new Float32Array(outputs).fill(1)
    if (after) {
      const [mean, variance] = ["mean", "var"].map((kind) => this.take(`running_${kind}`, [outputs]))
      const norm = `${this.name}.${this.next}`
      this.tensors.pass(`${norm}.num_batches_tracked`, [], "I64")
      if (variance.some((v) => v < 0)) {
        throw new HubError(`${norm} in model.safetensors has a negative variance.`)
      }
      for (let o = 0; o < outputs; o++) {
        scale[o] /= Math.sqrt(variance[o] + EPSILON)
        shift[o] -= mean[o] * scale[o]
      }
    }
    this.next++
    return [scale, shift]
  }

  silu() {
    this.next++
    this.add(silu, this.shape)
  }

  convolve(outputs, kernel, { stride = 1, padding = [0, 0], norm = 1 }) {
    const { shape } = this
    const [c, h, w] = shape
    const weight = this.take("weight", [outputs, c, kernel, kernel])
    const [scale, bias] = this.affine(outputs, norm)
    const filters = makeFilters(outputs, [kernel, kernel, c], bias, (o, row, column, channel) =>
      scale[o] * weight[((o * c + channel) * kernel + row) * kernel + column])
    const grid = [h, w].map((n, i) => Math.floor((n + 2 * padding[i] - kernel) / stride) + 1)
    const out = [outputs, ...grid]
    this.add((x) => convolve(filters, x, shape, stride, padding, out), out, product(out) * kernel * kernel * c)
  }

  /** 4x4, stride 2, padding 1: row 2i + p of the result sees rows i + p − 1 and i + p of x. */
  convolveTransposed(outputs, norm) {
    const { shape } = this
    const [c, h, w] = shape
    const weight = this.take("weight", [c, outputs, 4, 4])
    const [scale, bias] = this.affine(outputs, norm)
    const phases = [0, 1, 2, 3].map((phase) => {
      const y = 3 - (phase >> 1), x = 3 - (phase & 1)
      return makeFilters(outputs, [2, 2, c], bias, (o, row, column, channel) =>
        scale[o] * weight[((channel * outputs + o) * 4 + y - 2 * row) * 4 + x - 2 * column])
    })
    const out = [outputs, 2 * h, 2 * w]
    this.add((x) => convolveTransposed(phases, x, shape), out, product(out) * 4 * c)
  }

  /** All to all; both sides stand as (c, h, w) in the file. */
  linear(out, after) {
    const inputs = product(this.shape), outputs = product(out)
    const weight = this.take("weight", [outputs, inputs])
    const [scale, shift] = this.affine(out[0], after)
    const from = inChannelsFirst(this.shape), to = inChannelsFirst(out)
    const bias = Float32Array.from(to, (_, o) => shift[o % out[0]])
    const filters = makeLinear(outputs, inputs, bias, (o, i) =>
      scale[o % out[0]] * weight[to[o] * inputs + from[i]])
    this.add((x) => linear(filters, x, 1), out, inputs * outputs)
  }

  /** x + f(x), two 3x3 convolutions. */
  residual() {
    const body = new Layers(this.tensors, `${this.name}.${this.next++}.body`, this.shape)
    for (let i = 0; i < 2; i++) {
      body.silu()
      body.convolve(this.shape[0], 3, { padding: [1, 1] })
    }
    this.add((x) => body.run(x.slice()).map((f, i) => x[i] + f), this.shape, body.multiplications)
  }
}

/** (h, w) of the coarsest feature map. */
export const gridOf = ({ size, widths }) => size.map((n) => Math.ceil(n / 2 ** widths.length))

/** (C, H, W) in [0, 1] -> (features), or of a grid (features, h, w). */
export class Encoder {
  constructor(config, tensors, features, spatial) {
    const { size, channels, widths, blocks, hidden } = config
    this.shape = [channels, ...size]
    const layers = (this.layers = new Layers(tensors, "encoder.body", this.shape))
    // The first convolution pads the image up to a multiple of 2^stages.
    const short = gridOf(config).map((n, i) => n * 2 ** widths.length - size[i])
    widths.forEach((width, i) => {
      const padding = i ? [1, 1] : short.map((n) => 1 + Math.ceil(n / 2))
      layers.convolve(width, 4, { stride: 2, padding })
      layers.silu()
    })
    for (let i = 0; i < blocks; i++) layers.residual()
    if (!spatial) layers.next++ // Flatten
    if (!spatial && hidden) {
      layers.linear([hidden, 1, 1], 1)
      layers.silu()
    }
    if (spatial) layers.convolve(features, 1, { norm: 0 })
    else layers.linear([features, 1, 1], 0)
  }

  run(x) {
    const y = toChannelsLast(x, this.shape).map((value) => 2 * value - 1)
    return toChannelsFirst(this.layers.run(y), this.layers.shape)
  }
}

/** (features), or of a grid (features, h, w) -> (channels, H, W), what the likelihood needs. */
export class Decoder {
  constructor(config, tensors, features, spatial) {
    const { size, channels, blocks, hidden } = config
    const grid = gridOf(config)
    const [first, ...widths] = [...config.widths].reverse()
    this.size = size
    this.shape = spatial ? [features, ...grid] : [features, 1, 1]
    const layers = (this.layers = new Layers(tensors, "decoder.body", this.shape))
    if (!spatial && hidden) {
      layers.linear([hidden, 1, 1], 1)
      layers.silu()
    }
    if (spatial) layers.convolve(first, 1, {})
    else layers.linear([first, ...grid], 2) // Unflatten comes between
    for (let i = 0; i < blocks; i++) layers.residual()
    layers.silu()
    for (const width of widths) {
      layers.convolveTransposed(width, 1)
      layers.silu()
    }
    layers.convolveTransposed(channels, 0)
  }

  run(z) {
    const y = this.layers.run(toChannelsLast(z, this.shape))
    return toChannelsFirst(y, this.layers.shape, this.size)
  }
}

/** Where each number of (h, w, c) stands in (c, h, w). */
function inChannelsFirst([c, h, w]) {
  return Uint32Array.from({ length: c * h * w }, (_, i) => i % c * h * w + Math.floor(i / c))
}

function toChannelsLast(x, [c, h, w]) {
  const y = new Float32Array(c * h * w)
  for (let k = 0, from = 0; k < c; k++) for (let to = k; to < y.length; to += c) y[to] = x[from++]
  return y
}

/** The middle of (h, w, c), of that size, as (c, h, w). */
function toChannelsFirst(x, [c, h, w], size = [h, w]) {
  const y = new Float32Array(c * product(size))
  const top = (h - size[0]) >> 1, left = (w - size[1]) >> 1
  let to = 0
  for (let k = 0; k < c; k++) {
    for (let i = top; i < top + size[0]; i++) {
      for (let j = left; j < left + size[1]; j++) y[to++] = x[(i * w + j) * c + k]
    }
  }
  return y
}
