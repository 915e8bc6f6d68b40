// A picture, what the model makes of it, and how far apart they are.

import { chooser } from "./choose.js"
import { likeness, psnr, show } from "./pictures.js"
import { latest } from "./turns.js"

export function reconstruct(app) {
  const root = document.getElementById("reconstruct")
  const copy = root.querySelector(".stage")
  const apart = document.getElementById("apart")
  const compare = latest(app, async (entry, pixels) => {
    const found = await entry.model.reconstruct(pixels)
    if (entry !== app.entry) return
    show(copy, found, entry.frame)
    const decibels = psnr(pixels, found)
    const usual = entry.measured.psnr
    const usually = usual === undefined ? "" : ` (usually ${usual.toFixed(1)})`
    const words = `${likeness(decibels, usual)} PSNR ${decibels.toFixed(1)} dB${usually}`
    apart.textContent = `${words}: the more, the closer.`
  })
  const { begin, leave } = chooser(app, root, ([pixels]) => {
    apart.textContent = ""
    if (pixels) compare(pixels)
  })
  return { show: begin, leave }
}
