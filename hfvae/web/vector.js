// Latents that are numbers: sliders for those that tell most, and a map of the first two.

import { element } from "./card.js"
import { nth, numbers, show } from "./pictures.js"
import { latest } from "./turns.js"

const SLIDERS = 6
const COMPARED = 64  // new images, to tell which latents differ most
const MAP = 7  // pictures along each side of the map
const KEYS = { ArrowLeft: [-0.02, 0], ArrowRight: [0.02, 0], ArrowUp: [0, -0.02], ArrowDown: [0, 0.02] }
const clamp = (v) => Math.min(1, Math.max(0, v))

export function vector(app, draw) {
  const sliders = document.getElementById("latents"), map = document.getElementById("map")
  const canvas = map.querySelector("canvas"), mark = map.querySelector(".mark")
  let z = null, telling = []

  const at = ({ dim, low, high }) => clamp((z[dim] - low) / (high - low))
  const to = ({ dim, low, high }, share) => { z[dim] = low + share * (high - low) }

  function moved() {
    draw(z.slice())
    sliders.querySelectorAll("input").forEach((input, i) => {
      input.value = at(telling[i])
      input.previousSibling.value = z[telling[i].dim].toFixed(2)
    })
    mark.style.left = `${100 * at(telling[0])}%`
    mark.style.top = `${100 * at(telling.at(1) ?? telling[0])}%`
  }
  sliders.oninput = ({ target }) => {
    to(telling[target.dataset.row], Number(target.value))
    moved()
  }
  sliders.onchange = () => background()

  // Pictures all over the plane of the first two, a row at a time, so that what is dragged meanwhile goes on.
  const background = latest(async () => {
    const { entry } = app, { frame } = entry, from = z.slice(), [across, down] = [telling[0], telling.at(1)]
    const one = document.createElement("canvas"), context = canvas.getContext("2d")
    for (let y = 0; y < MAP; y++) {
      const row = new Float32Array(MAP * from.length)
      for (let x = 0; x < MAP; x++) {
        row.set(from, x * from.length)
        row[x * from.length + across.dim] = across.low + (across.high - across.low) * (x + 0.5) / MAP
        if (down) row[x * from.length + down.dim] = down.low + (down.high - down.low) * (y + 0.5) / MAP
      }
      const pixels = await entry.model.decode(row)
      if (entry !== app.entry) return
      for (let x = 0; x < MAP; x++) {
        show(one, nth(pixels, x, frame), frame)
        context.drawImage(one, x * frame.width, y * frame.height)
      }
    }
  }, app.failed)

  function place(x, y) {
    to(telling[0], clamp(x))
    if (telling[1]) to(telling[1], clamp(y))
    moved()
  }
  canvas.onpointerdown = (event) => {
    canvas.setPointerCapture(event.pointerId)
    place(event.offsetX / canvas.clientWidth, event.offsetY / canvas.clientHeight)
  }
  canvas.onpointermove = (event) => event.buttons && canvas.onpointerdown(event)
  canvas.onkeydown = (event) => {
    const step = KEYS[event.key]
    if (!step) return
    event.preventDefault()
    place(at(telling[0]) + step[0], telling[1] ? at(telling[1]) + step[1] : 0)
  }

  return {
    hide(hidden) {
      sliders.hidden = map.hidden = hidden
    },
    async show(entry, pixels) {
      const found = await entry.model.encode(pixels)
      entry.telling ??= entry.samples ? await compare(entry) : around(found)
      if (entry !== app.entry) return
      z = found
      if (telling !== entry.telling) {
        telling = entry.telling
        sliders.replaceChildren(...telling.map(({ label }, i) => {
          const input = Object.assign(element("input"), { type: "range", min: 0, max: 1, step: 0.005 })
          input.dataset.row = i
          return element("label", label, element("output"), input)
        }))
        const names = [telling[0], telling.at(1) ?? telling[0]].map(({ label }) => label.split(" · ").slice(0, -1).join(" · ") || label)
        map.querySelector("figcaption").textContent = `Across ${names[0]}, down ${names[1]}: drag on it`
        canvas.ariaLabel = `A map of ${names.join(" and ")}: the arrow keys move on it`
        canvas.width = MAP * entry.frame.width
        canvas.height = MAP * entry.frame.height
      }
      moved()
      background()
    },
  }
}

// The latents that differ most between new images, by the KL of their posteriors from N(0, I) in nats, or
// by their variance where they have none.
async function compare({ model, frame, measured }) {
  const { mu, logvar } = await model.posterior(await model.sample(COMPARED, 0, 1)), dims = mu.length / COMPARED
  const found = Array.from({ length: dims }, (_, dim) => {
    const values = Array.from({ length: COMPARED }, (_, i) => mu[i * dims + dim])
    const mean = values.reduce((a, b) => a + b) / COMPARED
    const variance = values.reduce((sum, value) => sum + (value - mean) ** 2, 0) / (COMPARED - 1)
    const weight = logvar ? klFromNormal(mu, logvar, dim, dims) : variance
    const spread = 3 * Math.max(1e-3, Math.sqrt(variance))
    return { dim, weight, low: mean - spread, high: mean + spread }
  })
  return found.sort((a, b) => b.weight - a.weight).slice(0, SLIDERS).map((latent) => {
    const factors = Object.keys(measured).filter((key) => key.startsWith("latent_") && measured[key] === latent.dim)
    const names = [`z${latent.dim}`, ...factors.map((key) => key.slice(7)), `${latent.weight.toFixed(1)} ${logvar ? "nats" : "variance"}`]
    return { ...latent, label: names.join(" · ") }
  })
}

// ½ (μ² + σ² − 1 − log σ²), averaged over the images: Kingma & Welling 2014, appendix B.
function klFromNormal(mu, logvar, dim, dims) {
  let sum = 0
  for (let i = dim; i < mu.length; i += dims) sum += 0.5 * (mu[i] ** 2 + Math.exp(logvar[i]) - 1 - logvar[i])
  return sum / (mu.length / dims)
}

// Of a model that cannot draw images to compare: the first latents, around where they are.
function around(z) {
  const spread = 3 * Math.max(1e-3, Math.hypot(...z) / Math.sqrt(z.length))
  return Array.from(z.subarray(0, SLIDERS), (value, dim) => ({ dim, low: value - spread, high: value + spread, label: `z${dim}` }))
}
