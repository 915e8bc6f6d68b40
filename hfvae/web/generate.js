// New images from the prior.

import { numbers, show, tile } from "./pictures.js"

const MOST = 2 ** 25 // numbers in all images

export function generate(app) {
  const root = document.getElementById("generate")
  const form = root.querySelector("form")
  const gallery = root.querySelector("ul")
  const { seed, count, temperature } = form.elements
  const dialog = document.getElementById("picked")
  let picked = null
  let newest = null

  // What is still being drawn is given up for it.
  async function draw() {
    const { model, frame } = app.entry
    if (!model.samples) {
      gallery.replaceChildren()
      return app.say("This model has no prior over its latents, so it cannot make new images.")
    }
    const asked = {
      seed: seed.valueAsNumber,
      count: Number(count.value),
      temperature: Number(temperature.value),
    }
    if (!(Number.isInteger(asked.seed) && asked.seed >= 0 && asked.seed < 2 ** 32))
      return app.say("Seed must be a whole number from 0 to 4294967295.")
    app.say("")
    app.remember(asked)
    newest = asked
    while (gallery.children.length < asked.count)
      gallery.append(tile(`Image ${gallery.children.length + 1}`))
    while (gallery.children.length > asked.count) gallery.lastChild.remove()
    const canvases = gallery.querySelectorAll("canvas")
    const each = (pixels, i) => {
      if (asked !== newest) return
      canvases[i].pixels = pixels
      show(canvases[i], pixels, frame)
    }
    delete gallery.dataset.drawn
    const options = { each, purpose: "generate" }
    if (await model.sample(asked.count, asked.seed, asked.temperature, null, options))
      gallery.dataset.drawn = new URLSearchParams(asked)
  }
  const redraw = () => draw().catch(app.failed)

  const write = () =>
    form.querySelectorAll("output").forEach((output) => {
      output.value = output.parentElement.querySelector("input").value
    })
  form.oninput = (event) => {
    write()
    if (event.target !== seed || seed.value !== "") redraw()
  }
  form.onsubmit = (event) => event.preventDefault() // Enter in the seed's field keeps it
  form.querySelector(".primary").onclick = () => {
    seed.value = crypto.getRandomValues(new Uint32Array(1))[0]
    redraw()
  }
  const link = document.getElementById("link")
  link.onclick = async () => {
    try {
      await navigator.clipboard.writeText(location.href)
    } catch {
      return prompt("The link:", location.href) // plain http has no clipboard
    }
    link.textContent = "Copied"
    setTimeout(() => {
      link.textContent = "Copy link"
    }, 1500)
  }

  gallery.onclick = (event) => {
    const canvas = event.target.closest("button")?.firstChild
    if (!canvas?.pixels) return // it is still being drawn
    picked = canvas.pixels
    show(dialog.querySelector("canvas"), picked, app.entry.frame)
    dialog.showModal()
  }
  dialog.onclick = (event) => {
    if (event.target === dialog) return dialog.close()
    const to = event.target.dataset.to
    if (to === undefined) return
    dialog.close()
    if (to === "save")
      dialog
        .querySelector("canvas")
        .toBlob((file) => save(file, `${app.entry.name.replace("/", "-")}.png`))
    else if (to) app.go(to, picked)
  }

  return {
    async show({ first }) {
      if (!first) return
      dialog.close() // what it shows is of another model
      gallery.replaceChildren()
      count.max = Math.min(64, Math.max(2, Math.floor(MOST / numbers(app.entry.frame))))
      for (const input of [seed, count, temperature])
        input.value = app.asked(input.name) ?? input.defaultValue
      seed.value ||= crypto.getRandomValues(new Uint32Array(1))[0]
      write()
      await draw()
    },
  }
}

// A file for the visitor to keep.
export function save(file, name) {
  const link = document.createElement("a")
  link.href = URL.createObjectURL(file)
  link.download = name
  link.click()
  setTimeout(() => URL.revokeObjectURL(link.href), 1000)
}
