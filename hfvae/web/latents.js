// What the encoder's h becomes: hfvae/latents. One class for each kind, made by `makeLatents`.
//
// `features` is how many numbers the encoder gives (at each place of a grid), `shape` that of one z
// as the decoder takes it, `events` that of what a prior is over, `view` how a page shows z.

import { product } from "./arrays.js"
import { fsqLevels } from "./configs.js"
import { levelValue, nearest, roundToLevel, variances } from "./functional.js"
import { gridOf } from "./networks.js"

export function makeLatents(config, tensors) {
  if (config.model_type === "autoencoder") return new Point(config.latent_dim)
  if (config.model_type === "vae") {
    return new Gaussian(config.latent_dim, config.spatial ? gridOf(config) : [])
  }
  if (config.quantizer === "fsq") return new FiniteScalarQuantizer(config)
  return new VectorQuantizer(config, tensors)
}

/** z = h, a vector. */
class Point {
  view = "vector"
  spatial = false

  constructor(dim) {
    this.features = dim
    this.shape = this.events = [dim]
  }

  /** z without noise and before any rounding: where ways between images run. */
  mode(h) {
    return h
  }

  /** The nearest latent that the decoder takes. */
  quantize(z) {
    return z
  }

  /** What a prior drew -> z for the decoder. */
  lookup(events) {
    return events
  }

  /** z of a mode with its entry `dim`, counted row by row, set to a value. */
  replace(mode, dim, value) {
    checkDim(dim, mode.length)
    return mode.map((old, i) => (i === dim ? value : old))
  }

  /** What each entry carries, from the h of many images: by how much it differs between them. */
  weights(hs) {
    return [variances(hs), "variance"]
  }
}

/** h = (μ, log σ²) of q(z|x) = N(μ, σ²). Kingma & Welling 2014 (arXiv:1312.6114). */
class Gaussian extends Point {
  /** @param grid [], or (h, w) of a z that is (dim, h, w) */
  constructor(dim, grid) {
    super(dim)
    this.features = 2 * dim
    this.shape = this.events = [dim, ...grid]
    if (grid.length) Object.assign(this, { view: "grid", spatial: true })
  }

  mode(h) {
    return h.slice(0, h.length / 2)
  }

  /** KL(N(μ, σ²) ‖ N(0, 1)) = ½ (μ² + σ² − 1 − log σ²) of each entry, averaged over the images. */
  weights(hs) {
    const kl = this.mode(hs[0]).map((_, i) => hs.reduce((sum, h) => {
      const mu = h[i], logvar = Math.min(Math.max(h[h.length / 2 + i], -20), 20)
      return sum + 0.5 * (mu * mu + Math.exp(logvar) - 1 - logvar) / hs.length
    }, 0))
    return [kl, "nats"]
  }
}

/** A grid of codes, (h, w) whole numbers, each naming a vector: z is (channels, h, w). */
class Codes {
  view = "codes"
  spatial = true

  constructor(features, config) {
    this.features = features
    this.codebookSize = config.codebook_size
    this.events = gridOf(config)
    this.shape = [features, ...this.events]
  }

  mode(h) {
    return h
  }

  /** The code of the vector at each place. */
  codes(h) {
    const cells = product(this.events)
    const vector = new Float32Array(this.features)
    return Float32Array.from({ length: cells }, (_, cell) => {
      for (let i = 0; i < vector.length; i++) vector[i] = h[i * cells + cell]
      return this.code(vector)
    })
  }

  lookup(codes) {
    const z = new Float32Array(this.features * codes.length)
    codes.forEach((code, cell) => {
      for (let i = 0; i < this.features; i++) z[i * codes.length + cell] = this.value(code, i)
    })
    return z
  }

  quantize(z) {
    return this.lookup(this.codes(z))
  }

  replace(mode, dim, value) {
    const codes = this.codes(mode)
    checkDim(dim, codes.length)
    codes[dim] = value
    this.check(codes)
    return this.lookup(codes)
  }

  check(codes) {
    if (!codes.every((code) => Number.isInteger(code) && code >= 0 && code < this.codebookSize)) {
      throw new RangeError(`codes must be whole numbers from 0 to ${this.codebookSize - 1}`)
    }
  }
}

/** The nearest vector of a codebook. van den Oord et al. 2017 (arXiv:1711.00937). */
class VectorQuantizer extends Codes {
  constructor(config, tensors) {
    const { embedding_dim: dim, codebook_size: size } = config
    super(dim, config)
    this.codebook = tensors.take("bottleneck.codebook", [size, dim])
    if (config.ema_decay) tensors.take("bottleneck.ema_sums", [size, dim])
    tensors.take("bottleneck.ema_counts", [size])
  }

  code(vector) {
    return nearest(vector, this.codebook)
  }

  value(code, i) {
    return this.codebook[code * this.features + i]
  }
}

/** Every channel rounded to a few levels. Mentzer et al. 2024 (arXiv:2309.15505). */
class FiniteScalarQuantizer extends Codes {
  constructor(config) {
    const levels = fsqLevels(config.codebook_size)
    super(levels.length, config)
    this.levels = levels
    this.places = levels.map((_, i) => product(levels.slice(0, i)))
  }

  code(vector) {
    return vector.reduce(
      (code, h, i) => code + this.places[i] * roundToLevel(h, this.levels[i]), 0)
  }

  value(code, i) {
    return levelValue(Math.floor(code / this.places[i]) % this.levels[i], this.levels[i])
  }
}

function checkDim(dim, count) {
  if (!(Number.isInteger(dim) && dim >= 0 && dim < count)) {
    throw new RangeError(`dim must be from 0 to ${count - 1}, not ${dim}`)
  }
}
