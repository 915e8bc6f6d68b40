// What the latents of a picture carry: sliders and a map for numbers, a grid to click on
// for codes, a second picture to paint with for a grid of vectors.

import { chooser } from "./choose.js"
import { codes } from "./codes.js"
import { grid } from "./grid.js"
import { show } from "./pictures.js"
import { latest } from "./turns.js"
import { vector } from "./vector.js"

export function explore(app) {
  const root = document.getElementById("explore")
  const stage = root.querySelector(".stage")
  // `method` decodes what a view shows: latents, or codes.
  const draw = latest(app, async (entry, method, ...latents) => {
    const pixels = await entry.model[method](...latents)
    if (entry !== app.entry) return
    show(stage, pixels, entry.frame)
    stage.dataset.draws = Number(stage.dataset.draws ?? 0) + 1
  })
  const views = { vector: vector(app, draw), codes: codes(app, draw), grid: grid(app, draw) }
  let held = null // the model whose latents a view holds
  const read = latest(app, async (entry, pixels) => {
    if (!pixels || held !== entry) for (const name in views) views[name].hide(true)
    if (!pixels) return
    const view = views[entry.model.latents.view]
    await view.show(entry, pixels)
    if (entry !== app.entry) return
    held = entry
    view.hide(false)
  })
  const { begin, leave } = chooser(app, root, ([pixels]) => read(pixels))
  return { show: begin, leave }
}
