// Latents that are a grid of codes: a click chooses a cell, and another one its code.

import { ARROWS } from "./follow.js"
import { each, show, tile } from "./pictures.js"
import { latest } from "./turns.js"

const SWATCHES = 256
const TOGETHER = 16 // codes that are shown as pictures, and decoded together

export function codes(app, draw) {
  const cells = document.getElementById("cells")
  const side = document.getElementById("codes")
  const number = document.getElementById("code")
  const list = side.querySelector("ul")
  const changed = document.getElementById("changed")
  let grid = null
  let size = 0
  let rows = 0
  let columns = 0
  let cell = 0
  let palette = null

  function set(code) {
    if (!(Number.isInteger(code) && code >= 0 && code < size))
      return app.say(`Code must be a whole number from 0 to ${size - 1}.`)
    app.say("")
    grid[cell] = code
    select(cell)
    draw("decodeCodes", grid.slice())
  }
  const nameOf = (i) => `Cell ${Math.floor(i / columns) + 1}, ${(i % columns) + 1}`
  function select(to) {
    cell = to
    ;[...cells.children].forEach((button, i) => {
      button.setAttribute("aria-selected", i === cell)
      button.tabIndex = i === cell ? 0 : -1
    })
    number.value = grid[cell]
    changed.textContent = `${nameOf(cell)} has code ${grid[cell]} of ${size}`
    ;[...list.children].forEach((item, i) =>
      item.firstChild.setAttribute("aria-current", i === grid[cell]),
    )
  }

  cells.onclick = ({ target }) => target !== cells && select([...cells.children].indexOf(target))
  cells.onkeydown = (event) => {
    const step = ARROWS[event.key]
    if (!step) return
    event.preventDefault()
    const x = ((cell % columns) + step[0] + columns) % columns
    const y = (Math.floor(cell / columns) + step[1] + rows) % rows
    select(y * columns + x)
    cells.children[cell].focus()
  }
  number.onchange = () => set(number.valueAsNumber)
  number.form.onsubmit = (event) => event.preventDefault()
  document.getElementById("random").onclick = () =>
    set((grid[cell] + 1 + Math.floor(Math.random() * (size - 1))) % size)
  list.onclick = ({ target }) =>
    target.closest("button") && set([...list.children].indexOf(target.closest("li")))

  // What each code looks like by itself: the middle of a picture that is made of it alone.
  const fill = latest(app, async (entry) => {
    const { frame, model } = entry
    const one = document.createElement("canvas")
    const [w, h] = [Math.ceil(frame.width / columns), Math.ceil(frame.height / rows)]
    for (let start = 0; start < Math.min(size, SWATCHES); start += TOGETHER) {
      const length = Math.min(TOGETHER, size - start, SWATCHES - start)
      const some = Array.from({ length }, (_, i) => start + i)
      const grids = some.flatMap((code) => Array(grid.length).fill(code))
      const pixels = await model.decodeCodes(Float32Array.from(grids))
      if (entry !== app.entry) return
      each(pixels, frame).forEach((image, i) => {
        show(one, image, frame)
        const canvas = list.children[some[i]].firstChild.firstChild
        canvas
          .getContext("2d")
          .drawImage(one, (frame.width - w) / 2, (frame.height - h) / 2, w, h, 0, 0, w, h)
      })
    }
  })

  return {
    hide(hidden) {
      cells.hidden = side.hidden = changed.hidden = hidden
    },
    async show(entry, pixels) {
      const found = await entry.model.codes(pixels)
      if (entry !== app.entry) return
      grid = found
      if (palette !== entry) {
        palette = entry
        const { latents } = entry.model
        ;[rows, columns] = latents.events
        size = latents.codebookSize
        cells.style.gridTemplate = `repeat(${rows}, 1fr) / repeat(${columns}, 1fr)`
        cells.replaceChildren(
          ...Array.from({ length: rows * columns }, (_, i) => {
            const button = document.createElement("button")
            button.setAttribute("role", "option")
            button.setAttribute("aria-label", nameOf(i))
            return button
          }),
        )
        number.max = size - 1
        list.replaceChildren(
          ...Array.from({ length: Math.min(size, SWATCHES) }, (_, code) => {
            const item = tile(`Code ${code}`)
            item.firstChild.tabIndex = -1 // for keys there is its number
            const canvas = item.querySelector("canvas")
            canvas.width = Math.ceil(entry.frame.width / columns)
            canvas.height = Math.ceil(entry.frame.height / rows)
            return item
          }),
        )
        fill()
        cell = Math.floor(rows / 2) * columns + Math.floor(columns / 2)
      }
      select(Math.min(cell, grid.length - 1))
      draw("decodeCodes", grid.slice())
    },
  }
}
