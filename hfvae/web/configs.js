// config.json, checked before anything is built from it: the checks of hfvae/configs.py.

import { HubError, isObject, quoted } from "./errors.js"

const FORMAT_VERSION = 2 // the newest that is read
const MAX_CONFIG_BYTES = 100_000
const MAX_DIMS = 2 ** 26 // numbers in an image

const demand = (good, words) => {
  if (!good) throw new HubError(`config.json: ${words}.`)
}

// Checks: (name, value), or words.

const between = (low, high, kind, is) => (name, value) => {
  demand(is(value), `${name} must be a ${kind}, not ${quoted(value)}`)
  demand(low <= value && value <= high, `${name} must be from ${low} to ${high}, not ${value}`)
}
const integer = (low, high) => between(low, high, "whole number", Number.isInteger)
const number = (low, high) => between(low, high, "number", (x) => typeof x === "number")
const oneOf = (...words) => (name, value) =>
  demand(words.includes(value), `${name} must be one of ${words.join(", ")}; not ${quoted(value)}`)
const optional = (check) => (name, value) => value === null || check(name, value)
const several = (check, low, high) => (name, value) => {
  demand(Array.isArray(value), `${name} must be a list, not ${quoted(value)}`)
  demand(low <= value.length && value.length <= high,
    `${name} must have ${low} to ${high} entries, not ${value.length}`)
  value.forEach((item) => check(name, item))
}
const side = integer(8, 4096)
const size = (name, value) => (Array.isArray(value) ? several(side, 2, 2) : side)(name, value)

// Every setting: what it is where a config does not say, and its check.

const SHARED = {
  image_size: [32, size],
  channels: [3, integer(1, 256)],
  likelihood: ["discretized-logistic", oneOf("discretized-logistic", "gaussian", "bernoulli")],
  scale: [null, optional(number(1e-3, 1e3))],
  widths: [[], several(integer(1, 4096), 0, 12)],
  blocks: [0, integer(0, 64)],
  hidden: [null, optional(integer(0, 65536))],
}
const VECTOR = {
  ...SHARED,
  latent_dim: [32, integer(1, 65536)],
  prior_components: [10, integer(1, 1000)],
}
export const FAMILIES = {
  autoencoder: { ...VECTOR, prior: ["none", oneOf("none", "mixture")] },
  vae: {
    ...VECTOR,
    prior: ["standard-normal", oneOf("standard-normal", "mixture", "flow")],
    beta: [1, number(0, 1e6)],
    prior_layers: [8, integer(1, 64)],
    prior_width: [128, integer(1, 4096)],
  },
  "vq-vae": {
    ...SHARED,
    prior: ["uniform", oneOf("uniform", "autoregressive")],
    blocks: [2, integer(0, 64)],
    hidden: [0, integer(0, 0)],
    quantizer: ["vq", oneOf("vq", "fsq")],
    codebook_size: [512, integer(3, 65536)],
    embedding_dim: [16, integer(1, 4096)],
    commitment: [0.25, number(0, 1e6)],
    ema_decay: [0.99, number(0, 0.99999)],
    prior_width: [128, integer(8, 4096)],
    prior_layers: [4, integer(1, 64)],
  },
}

/** The settings in a config.json as they are. */
export function parseConfig(text) {
  demand(text.length <= MAX_CONFIG_BYTES, `it is larger than ${MAX_CONFIG_BYTES} bytes`)
  let settings
  try {
    settings = JSON.parse(text)
  } catch {
    demand(false, "it is not valid JSON")
  }
  demand(isObject(settings) && Object.hasOwn(settings, "model_type"),
    "it has no model_type, so this is no hfvae model")
  return settings
}

/** Every setting of a model, checked, with what follows from them: `size`, `widths`, `hidden`. */
export function makeConfig({ model_type, format_version, custom_parts = [], ...values }) {
  demand(Number.isInteger(format_version), "it has no format_version, so this is no hfvae model")
  demand(format_version <= FORMAT_VERSION,
    `it was saved in format ${format_version}, and this page reads up to ${FORMAT_VERSION}`)
  demand(typeof model_type === "string" && Object.hasOwn(FAMILIES, model_type),
    `unknown model_type ${quoted(model_type)}; this page knows ${Object.keys(FAMILIES).join(", ")}`)
  several(oneOf("encoder", "decoder"), 0, 2)("custom_parts", custom_parts)
  demand(!custom_parts.length,
    `this model was made with its own ${custom_parts.join(" and ")}, which only Python can run`)
  const settings = FAMILIES[model_type]
  const config = { model_type, format_version }
  for (const name of Object.keys(values)) {
    demand(Object.hasOwn(settings, name), `unknown setting ${quoted(name)}`)
  }
  for (const [name, [otherwise, check]] of Object.entries(settings)) {
    config[name] = Object.hasOwn(values, name) ? values[name] : otherwise
    check(name, config[name])
  }
  const [height, width = height] = [config.image_size].flat()
  config.size = [height, width]
  demand(config.channels * height * width <= MAX_DIMS, `an image is too large (${MAX_DIMS} numbers at most)`)
  if (!config.widths.length) {
    const [finest, coarsest] = model_type === "vq-vae" ? [32, 8] : [16, 4]
    const halvings = Math.max(1, Math.ceil(Math.log2(Math.max(height, width) / coarsest)))
    config.widths = Array.from({ length: halvings }, (_, i) => Math.min(finest * 2 ** i, 256))
  }
  config.hidden ??= config.likelihood === "bernoulli" ? 256 : 0
  if (config.quantizer === "fsq") fsqLevels(config.codebook_size)
  if (config.quantizer) {
    demand(config.prior_width % 8 === 0, "prior_width must be a multiple of 8")
  }
  return config
}

/** The levels of each channel, 3 to 8, whose product is the codebook: as few as will do. */
export function fsqLevels(codebookSize) {
  let options = [[codebookSize, []]]
  while (options.length) {
    const longer = []
    for (const [rest, levels] of options) {
      for (let level = 8; level > 2; level--) {
        if (rest === level) return [...levels, level]
        if (rest % level === 0 && level <= (levels.at(-1) ?? 8)) {
          longer.push([rest / level, [...levels, level]])
        }
      }
    }
    options = longer
  }
  demand(false, `an fsq codebook_size is a product of numbers from 3 to 8, not ${codebookSize}`)
}
