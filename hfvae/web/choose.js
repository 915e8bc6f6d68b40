// How a picture gets into a tab: from an example, a file, the clipboard, a drop, a pen, a camera,
// or the prior.

import { starts } from "./open.js"
import { numbers, preprocess, show, tile } from "./pictures.js"
import { latest } from "./turns.js"

const PEN = 18 // pixels wide, of the pad's 280

// Fills the wells of a tab, of which one is next; `changed` is told their pixels, null where there
// are none.
export function chooser(app, root, changed) {
  const wells = [...root.querySelectorAll(".well")]
  const part = document.getElementById("sources").content.firstElementChild.cloneNode(true)
  const doing = (name) => part.querySelector(`[data-do=${name}]`)
  const examples = part.querySelector(".examples")
  const pad = part.querySelector(".pad")
  const sheet = pad.querySelector("canvas")
  const pictures = wells.map(() => null)
  let next = 0
  let video = null
  let starters = []
  root.append(part)

  function take(pixels, which = next) {
    if (pixels.length !== numbers(app.entry.frame)) return // of a model that was left
    pictures[which] = pixels
    show(wells[which].firstChild, pixels, app.entry.frame)
    changed(pictures)
  }
  function turn(to) {
    next = to
    if (wells.length > 1) wells.forEach((well, i) => well.setAttribute("aria-pressed", i === next))
  }
  // A picture that was chosen, and not one of a stream: the other well is next.
  function pick(pixels) {
    app.say("")
    take(pixels)
    turn((next + 1) % wells.length)
  }
  async function read(source) {
    const { frame, model } = app.entry
    return preprocess(source, frame, model.config.likelihood).catch(() => {
      throw new Error("This file cannot be read as a picture.")
    })
  }
  const readFile = (file) => file && read(file).then(pick).catch(app.failed)

  wells.forEach((well, i) => {
    well.onclick = () => (wells.length > 1 ? turn(i) : part.querySelector("input").click())
  })
  part.querySelector("input").onchange = (event) => {
    readFile(event.target.files[0])
    event.target.value = ""
  }
  examples.onclick = (event) => {
    const button = event.target.closest("button")
    if (button) pick(starters[button.dataset.number])
  }
  document.addEventListener("paste", (event) => {
    if (app.entry && !root.hidden) readFile(event.clipboardData.files[0])
  })
  root.ondragover = (event) => {
    event.preventDefault()
    root.classList.add("dropping")
  }
  root.ondragleave = () => root.classList.remove("dropping")
  root.ondrop = (event) => {
    event.preventDefault()
    root.classList.remove("dropping")
    readFile(event.dataTransfer.files[0])
  }
  doing("random").onclick = async () => {
    try {
      pick(await app.entry.model.sample(1, crypto.getRandomValues(new Uint32Array(1))[0], 1))
    } catch (error) {
      app.failed(error)
    }
  }

  // The pen: white on black, as the drawings in data sets are.
  const pen = sheet.getContext("2d", { willReadFrequently: true })
  Object.assign(pen, { lineWidth: PEN, lineCap: "round", lineJoin: "round" })
  Object.assign(pen, { strokeStyle: "white", fillStyle: "black" })
  const drawn = latest(app, async () => take(await read(sheet)))
  const wipe = () => pen.fillRect(0, 0, sheet.width, sheet.height)
  const at = (event) => [
    (event.offsetX * sheet.width) / sheet.clientWidth,
    (event.offsetY * sheet.height) / sheet.clientHeight,
  ]
  wipe()
  doing("wipe").onclick = wipe
  doing("pen").onclick = () => {
    pad.hidden = !pad.hidden
    doing("pen").setAttribute("aria-expanded", !pad.hidden)
  }
  sheet.onpointerdown = (event) => {
    sheet.setPointerCapture(event.pointerId)
    pen.beginPath()
    pen.moveTo(...at(event))
    sheet.onpointermove(event)
  }
  sheet.onpointermove = (event) => {
    if (!event.buttons) return
    pen.lineTo(...at(event))
    pen.stroke()
    drawn()
  }

  // The camera: one picture after the other, until it is pressed again.
  doing("camera").hidden = !navigator.mediaDevices?.getUserMedia
  function stop() {
    video = null
    doing("camera").setAttribute("aria-pressed", false)
  }
  doing("camera").onclick = async () => {
    if (video) return stop()
    const own = Object.assign(document.createElement("video"), { muted: true, playsInline: true })
    const wanted = { video: { facingMode: "user", width: 320 } }
    video = own
    doing("camera").setAttribute("aria-pressed", true)
    try {
      own.srcObject = await navigator.mediaDevices.getUserMedia(wanted)
      if (video === own) await own.play()
      while (video === own) {
        take(await read(own))
        await new Promise(requestAnimationFrame)
      }
    } catch {
      if (video !== own) return // it was stopped meanwhile
      stop()
      app.say("There is no camera, or this page may not use it.")
    } finally {
      own.srcObject?.getTracks().forEach((track) => track.stop())
    }
  }

  return {
    take,
    leave: stop,
    // For a new model: its pictures to start from, one in each well. `pixels` was brought along.
    async begin({ first, pixels }) {
      const { entry } = app
      if (first) {
        pictures.fill(null) // and nothing of the last model is left to be chosen
        starters = []
        examples.replaceChildren()
        changed(pictures)
        turn(0)
        doing("random").hidden = !entry.model.samples
        doing("pen").hidden = entry.frame.channels !== 1
        pad.hidden = true
        starters = await starts(entry)
        if (entry !== app.entry) return
        examples.replaceChildren(
          ...starters.map((picture, i) => {
            const item = tile(`Picture ${i + 1}`)
            item.firstChild.dataset.number = i
            show(item.querySelector("canvas"), picture, entry.frame)
            return item
          }),
        )
        wells.forEach((well, i) => {
          well.firstChild.width = entry.frame.width
          well.firstChild.height = entry.frame.height
          pictures[i] ??= starters[i] ?? null // unless one was chosen meanwhile
        })
      }
      if (pixels) pictures[0] = pixels
      pictures.forEach((picture, i) => picture && show(wells[i].firstChild, picture, entry.frame))
      if (first || pixels) changed(pictures)
    },
  }
}
