// What was measured of a model, and its card.

import { joined } from "./arrays.js"
import { element, render } from "./card.js"
import { GAP, each, show } from "./pictures.js"

// Some of hfvae.hub.card.METRICS, with shorter names where there is little room.
const MEASURED = {
  bits_per_dim: ["−ELBO", "bits/dim", 3],
  nll_bits_per_dim: ["−log p(x)", "bits/dim", 3],
  kl: ["KL", "nats", 1],
  psnr: ["PSNR", "dB", 1],
  ssim: ["SSIM", "", 3],
  active_units: ["active units", "", 0],
  perplexity: ["perplexity", "codes", 0],
  mig: ["MIG", "", 2],
  factor_vae_score: ["FactorVAE", "", 2],
}
const DRAWN = 16

export function about(app) {
  const list = document.getElementById("numbers")
  const card = document.getElementById("card")

  // Pictures side by side, as hfvae.images.grid puts them.
  function grid(images, columns, frame) {
    const { width, height } = frame
    const canvas = document.createElement("canvas")
    const one = document.createElement("canvas")
    const context = canvas.getContext("2d")
    canvas.width = columns * (width + GAP) - GAP
    canvas.height = Math.ceil(images.length / columns) * (height + GAP) - GAP
    images.forEach((pixels, i) => {
      show(one, pixels, frame)
      const [x, y] = [i % columns, Math.floor(i / columns)]
      context.drawImage(one, x * (width + GAP), y * (height + GAP))
    })
    return canvas
  }

  // In the places of the card's own pictures: new draws, and held-out images over their copies.
  function pictures({ model, frame, heldOut }) {
    const later = (label, make) => () => {
      const place = element("div")
      make().then((canvas) => {
        canvas.setAttribute("role", "img")
        canvas.setAttribute("aria-label", label)
        place.append(canvas)
      }, app.failed)
      return place
    }
    const found = {}
    if (model.samples)
      found["samples.png"] = later("New images", async () => {
        return grid(each(await model.sample(DRAWN, 0), frame), 8, frame)
      })
    if (heldOut.length)
      found["reconstructions.png"] = later(
        "Held-out images, and below them what the model made of them",
        async () => {
          const copies = await model.reconstruct(joined(heldOut))
          return grid([...heldOut, ...each(copies, frame)], heldOut.length, frame)
        },
      )
    return found
  }

  return {
    show({ first }) {
      if (!first) return
      const { entry } = app
      list.replaceChildren(
        ...Object.entries(MEASURED)
          .filter(([key]) => key in entry.measured)
          .map(([key, [name, unit, digits]]) =>
            element(
              "div",
              element("dt", name),
              element("dd", `${entry.measured[key].toFixed(digits)} `, element("small", unit)),
            ),
          ),
      )
      card.replaceChildren(
        entry.card ? render(entry.card, pictures(entry)) : "This model has no card.",
      )
    },
  }
}
