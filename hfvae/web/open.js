// A model, and what lies beside it: its card, its numbers, held-out pictures to start from.

import { load } from "./client.js"
import { each, firstRow } from "./pictures.js"
import { megabytes } from "./source.js"

const WORDS = { autoencoder: "autoencoder", vae: "variational autoencoder", "vq-vae": "VQ-VAE" }
const SHOWN = 1e9 // numbers beyond which none is shown
const STARTS = 8 // new pictures to start from, where no held-out ones lie beside the model

// `progress(words, share)` is told how far it is.
export async function open(source, name, progress) {
  progress(`Opening ${name} …`)
  const text = new TextDecoder()
  const config = await source.read("config.json")
  if (!config) throw new Error(`${name} has no config.json: it is no model of hfvae.`)
  const beside = Promise.all(
    ["README.md", "evaluation.json", "reconstructions.png"].map((file) =>
      source.read(file).catch(() => null),
    ),
  )
  const weights = await source.read("model.safetensors", (done, all) =>
    progress(
      `Fetching ${name}: ${all ? `${megabytes(done)} of ${megabytes(all)}` : megabytes(done)}`,
      all ? done / all : undefined,
    ),
  )
  if (!weights) throw new Error(`${name} has no model.safetensors: other weights are never read.`)
  const bytes = weights.length
  progress(`Reading ${name}, ${megabytes(bytes)} …`)
  const model = await load(text.decode(config), weights.buffer)
  const { channels, size } = model.config
  const [height, width] = size
  const frame = { channels, height, width }
  if (![1, 3, 4].includes(channels)) {
    model.close()
    throw new Error(`${name}: no picture has ${channels} channels.`)
  }
  const [card, evaluation, rows] = await beside
  return {
    name,
    model,
    frame,
    card: card ? text.decode(card) : "",
    measured: measured(evaluation && text.decode(evaluation)),
    heldOut: rows ? await firstRow(new Blob([rows]), frame).catch(() => []) : [],
    facts: [
      WORDS[model.config.model_type] ?? model.config.model_type,
      `${height} × ${width} pixels`,
      model.config.prior === "none" ? "no prior" : `prior: ${model.config.prior}`,
      megabytes(bytes),
    ].join(" · "),
  }
}

// Pictures to start from: held-out images, else new ones, else none.
export function starts(entry) {
  const { model, frame, heldOut } = entry
  if (heldOut.length || !model.samples) return heldOut
  return (entry.drawn ??= model.sample(STARTS, 0).then((drawn) => each(drawn, frame)))
}

function measured(json) {
  try {
    return Object.fromEntries(
      Object.entries(JSON.parse(json) ?? {}).filter(
        ([, n]) => Number.isFinite(n) && Math.abs(n) < SHOWN,
      ),
    )
  } catch {
    return {}
  }
}
