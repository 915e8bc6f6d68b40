// Latents that are a grid of codes: a click chooses a cell, and another one its code.

import { each, show, tile } from "./pictures.js"
import { latest } from "./turns.js"

const SWATCHES = 256
const TOGETHER = 16 // codes that are shown as pictures, and decoded together
const NEXT = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }

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
  function select(to) {
    cell = to
    ;[...cells.children].forEach((button, i) => {
      button.setAttribute("aria-selected", i === cell)
      button.tabIndex = i === cell ? 0 : -1
    })
    number.value = grid[cell]
    changed.textContent = `Cell ${Math.floor(cell / columns) + 1}, ${(cell % columns) + 1} has code ${grid[cell]} of ${size}`
    ;[...list.children].forEach((item, i) =>
      item.firstChild.setAttribute("aria-current", i === grid[cell]),
    )
  }

  cells.onclick = ({ target }) => target !== cells && select([...cells.children].indexOf(target))
  cells.onkeydown = (event) => {
    const step = NEXT[event.key]
    if (!step) return
    event.preventDefault()
    const y = (Math.floor(cell / columns) + step[0] + rows) % rows
    const x = ((cell % columns) + step[1] + columns) % columns
    select(y * columns + x)
    cells.children[cell].focus()
  }
  number.onchange = () => set(Number(number.value))
  number.form.onsubmit = (event) => event.preventDefault()
  document.getElementById("random").onclick = () =>
    set((grid[cell] + 1 + Math.floor(Math.random() * (size - 1))) % size)
  list.onclick = ({ target }) =>
    target.closest("button") && set([...list.children].indexOf(target.closest("li")))

  // What each code looks like by itself: the middle of a picture that is made of it alone.
  const fill = latest(async (entry) => {
    const { frame, model } = entry
    const one = document.createElement("canvas")
    const [w, h] = [Math.ceil(frame.width / columns), Math.ceil(frame.height / rows)]
    for (let start = 0; start < Math.min(size, SWATCHES); start += TOGETHER) {
      const some = Array.from(
        { length: Math.min(TOGETHER, size - start, SWATCHES - start) },
        (_, i) => start + i,
      )
      const pixels = await model.decodeCodes(
        Float32Array.from(
          { length: some.length * grid.length },
          (_, i) => some[Math.floor(i / grid.length)],
        ),
      )
      if (entry !== app.entry) return
      each(pixels, frame).forEach((image, i) => {
        show(one, image, frame)
        const canvas = list.children[some[i]].firstChild.firstChild
        canvas
          .getContext("2d")
          .drawImage(one, (frame.width - w) / 2, (frame.height - h) / 2, w, h, 0, 0, w, h)
      })
    }
  }, app.failed)

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
            button.setAttribute("role", "gridcell")
            button.setAttribute(
              "aria-label",
              `Cell ${Math.floor(i / columns) + 1}, ${(i % columns) + 1}`,
            )
            return button
          }),
        )
        number.max = size - 1
        list.replaceChildren(
          ...Array.from({ length: Math.min(size, SWATCHES) }, (_, code) => {
            const item = tile(`Code ${code}`)
            const canvas = item.querySelector("canvas")
            canvas.width = Math.ceil(entry.frame.width / columns)
            canvas.height = Math.ceil(entry.frame.height / rows)
            return item
          }),
        )
        fill(entry)
        cell = Math.floor(rows / 2) * columns + Math.floor(columns / 2)
      }
      select(Math.min(cell, grid.length - 1))
      draw("decodeCodes", grid.slice())
    },
  }
}
