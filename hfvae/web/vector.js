// Latents that are numbers: sliders for those that tell most, and a map of the first two. Here z is
// where the base of the prior around a picture is, as in hfvae/demo/explorers.py.

import { element } from "./card.js"
import { follow } from "./follow.js"
import { show } from "./pictures.js"
import { latest } from "./turns.js"

const SLIDERS = 8
const COMPARED = 32 // new images, to tell which latents differ most
const ENDS = [0.05, 0.95] // of a slider: so many of them lie below
const MAP = 7
const LARGE = 96 // pictures along each side of the map, and pixels that each has at most
const KEY = 0.02 // how far an arrow key goes, in shares of the map
const UNLIKE = "The model knows nothing like this picture: each slider is one latent."
const clamp = (v) => Math.min(1, Math.max(0, v))

export function vector(app, draw) {
  const sliders = document.getElementById("latents")
  const map = document.getElementById("map")
  const canvas = map.querySelector("canvas")
  const mark = map.querySelector(".mark")
  const changed = document.getElementById("changed")
  let z = null
  let letter = null // of that base
  let telling = []

  const at = ({ dim, low, high }) => clamp((z[dim] - low) / (high - low))
  const to = ({ dim, low, high }, share) => {
    z[dim] = low + share * (high - low)
  }

  function moved() {
    draw("decodeBase", z.slice(), letter)
    sliders.querySelectorAll("input").forEach((input, i) => {
      input.value = at(telling[i])
      input.nextSibling.value = z[telling[i].dim].toFixed(2)
    })
    mark.style.left = `${100 * at(telling[0])}%`
    mark.style.top = `${100 * at(telling.at(1) ?? telling[0])}%`
  }
  sliders.oninput = ({ target }) => {
    to(telling[target.dataset.row], Number(target.value))
    moved()
  }
  sliders.onchange = () => background()

  // Pictures all over the plane of the first two, one by one, so that what is dragged goes on.
  const background = latest(app, async (entry) => {
    const { frame } = entry
    const from = z.slice()
    const base = letter
    const [across, down] = telling
    const one = document.createElement("canvas")
    const context = canvas.getContext("2d")
    const [w, h] = [canvas.width / MAP, canvas.height / MAP]
    for (let i = 0; i < MAP * MAP; i++) {
      const x = i % MAP
      const y = Math.floor(i / MAP)
      from[across.dim] = across.low + ((across.high - across.low) * (x + 0.5)) / MAP
      if (down) from[down.dim] = down.low + ((down.high - down.low) * (y + 0.5)) / MAP
      const pixels = await entry.model.decodeBase(from, base)
      if (entry !== app.entry) return
      show(one, pixels, frame)
      context.drawImage(one, x * w, y * h, w, h)
    }
  })

  function place(x, y) {
    to(telling[0], clamp(x))
    if (telling[1]) to(telling[1], clamp(y))
    moved()
  }
  follow(canvas, place, (dx, dy) => {
    const [x, y] = telling.map(at)
    place(x + KEY * dx, (y ?? 0) + KEY * dy)
  })

  return {
    hide(hidden) {
      sliders.hidden = map.hidden = changed.hidden = hidden
    },
    async show(entry, pixels) {
      const { letter: base, u: found } = await entry.model.baseOf(pixels)
      draw("decodeBase", found, base)
      const known = (entry.tellings ??= {})
      const ways = entry.model.samples ? (known[base] ??= await compare(entry, base)) : around(found)
      if (entry !== app.entry) return
      z = found
      letter = base
      changed.textContent = base === entry.model.letter ? "" : UNLIKE
      if (telling !== ways) {
        telling = ways
        sliders.replaceChildren(...telling.map(slider))
        const names = telling.slice(0, 2).map(({ name }) => name)
        map.querySelector("figcaption").textContent = `Across ${names.join(", down ")}: drag on it`
        const label = `A map of ${names.join(" and ")}: the arrow keys move on it`
        canvas.setAttribute("aria-label", label)
        const { width, height } = entry.frame
        const scale = Math.min(1, LARGE / Math.max(width, height))
        canvas.width = MAP * Math.round(width * scale)
        canvas.height = MAP * Math.round(height * scale)
      }
      moved()
      background()
    },
  }
}

function slider({ name, weight }, row) {
  const input = Object.assign(element("input"), { type: "range", min: 0, max: 1, step: 0.005 })
  input.dataset.row = row
  const label = element("span", name, " ", element("small", weight))
  return element("label", label, input, element("output"))
}

// The latents that stand for factors, and those that differ most between new images; and from
// where to where they go.
async function compare({ model, measured }, letter) {
  const images = await model.sample(COMPARED, 0)
  const z = await model.encodeBase(images, letter)
  const size = z.length / COMPARED
  const rows = Array.from({ length: COMPARED }, (_, i) => z.subarray(i * size, (i + 1) * size))
  const { dims, weights, unit } = await model.axes(images, size, letter)
  const keys = letter === model.letter ? Object.keys(measured) : [] // those of a flow's base
  const named = (dim) =>
    keys.filter((key) => key.startsWith("latent_") && measured[key] === dim)
  const ranked = [...dims.keys()].sort((a, b) => !named(dims[a]).length - !named(dims[b]).length)
  return ranked.slice(0, SLIDERS).map((k) => {
    const dim = dims[k]
    const values = Float32Array.from(rows, (row) => row[dim]).sort()
    const [low, high] = ENDS.map((share) => values[Math.round(share * (COMPARED - 1))])
    const factors = named(dim).map((key) => key.slice("latent_".length).replaceAll("_", " "))
    const name = [`${letter}${dim}`, ...factors].join(" · ")
    const weight = `${weights[k].toFixed(1)} ${unit}`
    return { dim, name, weight, low, high: Math.max(high, low + 1e-3) }
  })
}

// Of a model that cannot draw images to compare: the first latents, around where they are.
function around(z) {
  const spread = 3 * Math.max(1e-3, Math.hypot(...z) / Math.sqrt(z.length))
  return Array.from(z.subarray(0, SLIDERS), (value, dim) => {
    const [low, high] = [value - spread, value + spread]
    return { dim, name: `z${dim}`, weight: "", low, high }
  })
}
