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
const truth = (name, value) =>
  demand(typeof value === "boolean", `${name} must be true or false, not ${quoted(value)}`)
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
const FAMILIES = {
  autoencoder: {
    ...SHARED,
    prior: ["none", oneOf("none", "mixture")],
    latent_dim: [32, integer(1, 65536)],
    prior_components: [10, integer(1, 1000)],
  },
  vae: {
    ...SHARED,
    spatial: [false, truth],
    prior: ["standard-normal", oneOf("standard-normal", "mixture", "flow", "autoregressive")],
    latent_dim: [null, optional(integer(1, 65536))],
    blocks: [null, optional(integer(0, 64))],
    beta: [1, number(0, 1e6)],
    prior_components: [10, integer(1, 1000)],
    prior_layers: [null, optional(integer(1, 64))],
    prior_width: [null, optional(integer(1, 4096))],
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
  const { widths, ...others } = defaults(config)
  if (!config.widths.length) config.widths = widths
  for (const [name, value] of Object.entries(others)) config[name] ??= value
  if (config.spatial) {
    oneOf("standard-normal", "autoregressive")("prior", config.prior)
    integer(0, 0)("hidden", config.hidden)
  } else if (model_type === "vae") {
    oneOf("standard-normal", "mixture", "flow")("prior", config.prior)
  }
  if (config.quantizer === "fsq") fsqLevels(config.codebook_size)
  if (config.quantizer || config.prior === "autoregressive") {
    integer(8, 4096)("prior_width", config.prior_width)
    demand(config.prior_width % 8 === 0, "prior_width must be a multiple of 8")
  }
  return config
}

/** What follows from other settings where it is not given. */
function defaults({ model_type, spatial, likelihood, size }) {
  const halvings = (finest, least, coarsest, widest = 256) => {
    const count = Math.max(least, Math.ceil(Math.log2(Math.max(...size) / coarsest)))
    return Array.from({ length: count }, (_, i) => Math.min(finest * 2 ** i, widest))
  }
  if (spatial) {
    return { widths: halvings(32, 3, 32, 128), hidden: 0, latent_dim: 8, blocks: 2,
      prior_layers: 4, prior_width: 128 }
  }
  const hidden = likelihood === "bernoulli" ? 512 : 0
  if (model_type === "vae") {
    return { widths: halvings(16, 1, 4), hidden, latent_dim: 32, blocks: 0,
      prior_layers: 8, prior_width: 128 }
  }
  return { widths: model_type === "vq-vae" ? halvings(32, 1, 8) : halvings(16, 1, 4), hidden }
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
