// A model from its two files, and what it does: hfvae/base.py.
//
//   const model = await load(configText, weightsBuffer)
//   model.decode(z), model.encode(pixels), model.sample(n, seed, temperature), ...
//
// Pixels are Float32Arrays in (B, C, H, W) order with values in [0, 1], B told by their length;
// z likewise, in (B, ...model.latents.shape) order.

import { equal, joined, product, rowsOf } from "./arrays.js"
import { makeConfig, parseConfig } from "./configs.js"
import { HubError, isObject } from "./errors.js"
import { lerp, slerp } from "./functional.js"
import { makeLatents } from "./latents.js"
import { makeMean } from "./likelihoods.js"
import { Decoder, Encoder } from "./networks.js"
import { makePrior } from "./priors.js"
import { Random } from "./random.js"
import { Safetensors, damaged } from "./safetensors.js"

const MAX_MULTIPLICATIONS = 25e9 // of an image, as in hfvae/demo/work.py: up to ten seconds
const MAX_NUMBERS = 2 ** 22 // in the widest layer of an image
const AT_ONCE = 8 // draws from a prior

/**
 * @param configText config.json as text
 * @param weightsBuffer model.safetensors as an ArrayBuffer
 * @throws HubError saying in a sentence why this is no model, or none that this page can run
 */
export async function load(configText, weightsBuffer) {
  const settings = parseConfig(configText)
  const config = makeConfig(settings)
  const tensors = new Safetensors(weightsBuffer)
  const saved = readMetadata(tensors.metadata)
  if (saved && !same(saved.config, settings)) {
    throw new HubError("config.json and model.safetensors differ: take both files from one save.")
  }
  if (saved && saved.sha256 !== tensors.sha256()) {
    throw damaged("its SHA-256 is not the one it was saved with")
  }
  const model = new Model(config, tensors)
  tensors.finish()
  return model
}

/** What the weights say of themselves; nothing if another program wrote them. */
function readMetadata({ hfvae }) {
  if (hfvae === undefined) return null
  try {
    const saved = JSON.parse(hfvae)
    if (isObject(saved.config) && typeof saved.sha256 === "string") return saved
  } catch {}
  throw damaged("its metadata cannot be read")
}

/** Whether two values of JSON are equal. */
function same(a, b) {
  if (typeof a !== "object" || typeof b !== "object" || !a || !b) return a === b
  const names = Object.keys(b)
  return Array.isArray(a) === Array.isArray(b) && Object.keys(a).length === names.length &&
    names.every((name) => Object.hasOwn(a, name) && same(a[name], b[name]))
}

class Model {
  constructor(config, tensors) {
    this.config = config
    const latents = (this.latents = makeLatents(config, tensors))
    const compared = tensors.taken * product(latents.shape.slice(1))
    this.encoder = new Encoder(config, tensors, latents.features, latents.spatial)
    this.decoder = new Decoder(config, tensors, latents.shape[0], latents.spatial)
    this.mean = makeMean(config, tensors)
    const before = tensors.taken
    this.prior = makePrior(config, latents.events, tensors)
    const drawn = this.prior.work(tensors.taken - before)
    const [{ layers: a }, { layers: b }] = [this.encoder, this.decoder]
    /** Of an image: multiplications to draw, decode and encode it; numbers in the widest layer. */
    this.work = {
      multiplications: a.multiplications + b.multiplications + compared + drawn,
      numbers: Math.max(a.widest, b.widest),
    }
    checkWork(this.work)
  }

  /** What a page may want to know of it, as plain data. */
  get facts() {
    const { config, work, latents: { view, shape, events, codebookSize } } = this
    const { samples, letter } = this.prior
    return { config, work, samples, letter, latents: { view, shape, events, codebookSize } }
  }

  /** Images -> the latents that `decode` takes; no noise. */
  encode(pixels) {
    return joined(this.modes(pixels).map((mode) => this.latents.quantize(mode)))
  }

  /** Latents -> the means of p(x|z). */
  decode(z) {
    return joined(rowsOf(z, this.latents.shape, "latents").map((row) => this.image(row)))
  }

  reconstruct(pixels) {
    return this.decode(this.encode(pixels))
  }

  /**
   * n images: means of p(x|z) with z from the prior.
   *
   * The first images of a seed are the same however many are drawn.
   *
   * @param temperature multiplies the prior's standard deviations; 0 is its mode
   * @param noise the numbers to draw with, see priors.js; by default those of the seed
   */
  sample(n, seed, temperature = 1, noise = null) {
    return joined([...this.samples(n, seed, temperature, noise)])
  }

  /** The images of `sample`, one after another. */
  *samples(n, seed, temperature = 1, noise = null) {
    const { prior } = this
    insist(Number.isInteger(n) && n >= 1, `n must be 1 or more, not ${n}`)
    insist(temperature >= 0 && temperature < Infinity,
      `temperature must be 0 or more, not ${temperature}`)
    insist(prior.samples,
      "this model has no prior over its latents, so there is nothing to draw from")
    insist(!noise || noise.length === n * prior.size,
      `noise must have ${n * prior.size} numbers, not ${noise?.length}`)
    const random = new Random(seed)
    const rows = noise ? prior.rows(Float32Array.from(noise), n)
      : Array.from({ length: n }, () => prior.draw(random))
    for (let i = 0; i < n; i += AT_ONCE) {
      for (const event of prior.sample(rows.slice(i, i + AT_ONCE), temperature)) {
        yield this.image(this.latents.lookup(event))
      }
    }
  }

  /** A way from image a to image b, both ends included. @param mode "slerp" or "lerp" */
  interpolate(a, b, steps, mode = "slerp") {
    insist(Number.isInteger(steps) && steps >= 2, `steps must be 2 or more, not ${steps}`)
    return this.between(a, b, Array.from({ length: steps }, (_, i) => i / (steps - 1)), mode)
  }

  /** The images at places on that way, from 0 (a) to 1 (b). */
  between(a, b, places, mode = "slerp") {
    const { start, end, prior, u, v } = this.ends(a, b)
    const path = mode === "lerp" ? lerp : slerp
    return joined(Array.from(places, (t) => {
      const z = t === 0 ? start : t === 1 ? end : prior.fromBase(path(u, v, t))
      return this.image(this.latents.quantize(z))
    }))
  }

  /** The latents of two images, which are kept for the next call: it may be one of many. */
  ends(a, b) {
    if (!this.kept || !equal(this.kept.a, a) || !equal(this.kept.b, b)) {
      const [start, end] = [this.mode(a), this.mode(b)]
      const prior = this.prior.around([start, end])
      const [u, v] = [start, end].map((z) => prior.toBase(z))
      this.kept = { a: a.slice(), b: b.slice(), start, end, prior, u, v }
    }
    return this.kept
  }

  /**
   * What one latent does: the images of encode(pixels) with its entry `dim` set to each of values.
   *
   * @param dim which latent; of a VQ-VAE, which cell of the code grid, row by row
   * @param values what it is set to; of a VQ-VAE, codes
   */
  traverse(pixels, dim, values) {
    const mode = this.mode(pixels)
    return joined(Array.from(values, (value) => this.image(this.latents.replace(mode, dim, value))))
  }

  /** Where images lie in the base that leads from them to likely ones: {letter, u}. */
  baseOf(pixels) {
    const modes = this.modes(pixels), prior = this.prior.around(modes)
    return { letter: prior.letter, u: joined(modes.map((mode) => prior.toBase(mode))) }
  }

  /** Images -> a base: by default the prior's own, "z" but of a flow, which has "u" and "z". */
  encodeBase(pixels, letter = this.prior.letter) {
    return joined(this.modes(pixels).map((mode) => this.based(letter).toBase(mode)))
  }

  decodeBase(u, letter = this.prior.letter) {
    const rows = rowsOf(u, this.latents.shape, "latents")
    return joined(rows.map((row) => this.image(this.based(letter).fromBase(row))))
  }

  /** The entries of a vector in a base that tell most of many images: {dims, weights, unit}. */
  axes(pixels, most, letter = this.prior.letter) {
    const hs = rowsOf(pixels, this.encoder.shape, "images").map((x) => this.encoder.run(x))
    const [weights, unit] = this.based(letter).tells(this.latents, hs)
    const dims = Array.from(weights.keys()).sort((i, j) => weights[j] - weights[i]).slice(0, most)
    return { dims, weights: dims.map((i) => weights[i]), unit }
  }

  /** A prior with the base of that letter. */
  based(letter) {
    return letter === this.prior.letter ? this.prior : this.prior.aside
  }

  /** Images -> their codes, row by row, of a VQ-VAE. */
  codes(pixels) {
    return joined(this.modes(pixels).map((mode) => this.latents.codes(mode)))
  }

  decodeCodes(codes) {
    this.latents.check(codes)
    const grids = rowsOf(codes, this.latents.events, "codes")
    return joined(grids.map((grid) => this.image(this.latents.lookup(grid))))
  }

  image(z) {
    return this.mean(this.decoder.run(z))
  }

  /** Of each image, z without noise and before any rounding. */
  modes(pixels) {
    const wrong = pixels.find((value) => !(value >= 0 && value <= 1))
    insist(wrong === undefined, `expected values in [0, 1], got ${wrong}`)
    const images = rowsOf(pixels, this.encoder.shape, "images")
    return images.map((x) => this.latents.mode(this.encoder.run(x)))
  }

  mode(image) {
    const modes = this.modes(image)
    insist(modes.length === 1, `expected one image, got ${modes.length}`)
    return modes[0]
  }
}

function insist(good, words) {
  if (!good) throw new RangeError(words)
}

function checkWork({ multiplications, numbers }) {
  if (multiplications > MAX_MULTIPLICATIONS) {
    throw new HubError(`This model takes ${(multiplications / 1e9).toFixed(1)} billion ` +
      `multiplications an image; this page does up to ${MAX_MULTIPLICATIONS / 1e9} billion.`)
  }
  if (numbers > MAX_NUMBERS) {
    throw new HubError(`This model has layers of ${(numbers / 1e6).toFixed(1)} million numbers an ` +
      `image; this page takes up to ${(MAX_NUMBERS / 1e6).toFixed(1)} million.`)
  }
}
