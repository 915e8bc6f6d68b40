// Latents that are a grid of vectors: a second picture, painted into the first place by place.

import { follow } from "./follow.js"
import { show } from "./pictures.js"
import { latest } from "./turns.js"

const BRUSH = 0.08 // its radius, of the picture's sides
const within = (share) => Math.min(0.999, Math.max(0, share))

export function grid(app, draw) {
  const surface = document.getElementById("surface")
  const paint = document.getElementById("paint")
  let own = null // the picture's latents
  let z = null // what became of them
  let other = null // the second picture's
  let shape = null
  let place = [0.5, 0.5]

  function dab(x, y) {
    place = [within(x), within(y)]
    if (!z || !other) return
    const [channels, rows, columns] = shape
    const [column, row] = [Math.floor(place[0] * columns), Math.floor(place[1] * rows)]
    for (let cell = 0; cell < rows * columns; cell++) {
      const [dx, dy] = [(cell % columns) - column, Math.floor(cell / columns) - row]
      if (Math.hypot(dx / columns, dy / rows) > BRUSH) continue
      for (let c = 0; c < channels; c++)
        z[c * rows * columns + cell] = other[c * rows * columns + cell]
    }
    draw("decode", z.slice())
  }
  follow(surface, dab, (dx, dy) => {
    if (z) dab(place[0] + dx / shape[2], place[1] + dy / shape[1])
  })

  const choose = latest(app, async (entry) => {
    const [seed] = crypto.getRandomValues(new Uint32Array(1))
    const pixels = await entry.model.sample(1, seed, 1)
    const found = await entry.model.encode(pixels)
    if (entry !== app.entry) return
    other = found
    show(paint.querySelector("canvas"), pixels, entry.frame)
  })
  document.getElementById("another").onclick = () => choose()
  document.getElementById("again").onclick = () => {
    if (!own) return
    z = own.slice()
    draw("decode", own.slice())
  }

  return {
    hide(hidden) {
      surface.hidden = paint.hidden = hidden
    },
    async show(entry, pixels) {
      const found = await entry.model.encode(pixels)
      if (entry !== app.entry) return
      own = found
      z = own.slice()
      draw("decode", own.slice())
      if (shape === entry.model.latents.shape) return // the second picture stays
      shape = entry.model.latents.shape
      other = null
      await choose()
    },
  }
}
