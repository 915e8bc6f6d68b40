// The way from one picture to another through the latents, decoded wherever the mouse is.

import { gif } from "./animation.js"
import { chooser } from "./choose.js"
import { save } from "./generate.js"
import { each, show } from "./pictures.js"
import { latest } from "./turns.js"

const STRIP = 9 // pictures below the one that is shown
const FRAMES = 24 // of an animation, one way
const PAUSE = 60 // milliseconds of each
const STEP = 0.02 // by an arrow key
const SECONDS = 3 // from one end to the other, playing

const NEEDED = "Interpolation needs two pictures."

export function interpolate(app) {
  const root = document.getElementById("interpolate")
  const stage = root.querySelector(".stage")
  const strip = root.querySelector(".strip")
  const place = document.getElementById("place")
  const play = document.getElementById("play")
  let ends = [null, null]
  let playing = 0

  const complete = () => ends[0] && ends[1]

  const follow = latest(app, async (entry) => {
    const [a, b] = ends
    const t = Number(place.value)
    const pixels = await entry.model.between(a, b, [t])
    if (entry !== app.entry) return
    show(stage, pixels, entry.frame)
    stage.dataset.draws = Number(stage.dataset.draws ?? 0) + 1
    stage.dataset.at = t
  })

  const overview = latest(app, async (entry) => {
    const { frame } = entry
    const one = document.createElement("canvas")
    const context = strip.getContext("2d")
    strip.width = STRIP * frame.width
    strip.height = frame.height
    // One by one: the mouse comes in between.
    for (let i = 0; i < STRIP; i++) {
      const pixels = await entry.model.between(...ends, [i / (STRIP - 1)])
      if (entry !== app.entry) return
      show(one, pixels, frame)
      context.drawImage(one, i * frame.width, 0)
    }
  })

  function move(t) {
    place.value = t
    place.setAttribute("aria-valuetext", `${Math.round(100 * place.value)} % of the way`)
    if (complete()) follow()
  }
  function pause() {
    cancelAnimationFrame(playing)
    playing = 0
    play.textContent = "Play"
  }
  function start(rounds) {
    const began = performance.now() - 1000 * SECONDS * place.value
    const step = (now) => {
      const turn = ((now - began) / 1000 / SECONDS) % 2
      if (now - began > 2000 * SECONDS * rounds) return pause()
      move(turn < 1 ? turn : 2 - turn)
      playing = requestAnimationFrame(step)
    }
    playing = requestAnimationFrame(step)
    play.textContent = "Pause"
  }
  play.onclick = () => (playing ? pause() : start(Infinity))
  place.oninput = () => {
    pause()
    move(place.value)
  }
  place.onkeydown = (event) => {
    // Otherwise by the thousandth.
    const step = { ArrowLeft: -STEP, ArrowDown: -STEP, ArrowRight: STEP, ArrowUp: STEP }[event.key]
    if (!step) return
    event.preventDefault()
    pause()
    move(Number(place.value) + step)
  }
  stage.onpointerdown = (event) => {
    stage.setPointerCapture(event.pointerId)
    stage.onpointermove(event)
  }
  stage.onpointermove = (event) => {
    if (event.pointerType !== "mouse" && !event.buttons) return
    pause()
    move(event.offsetX / stage.clientWidth)
  }

  const { begin, leave, take } = chooser(app, root, (pictures) => {
    ends = [...pictures]
    if (!complete()) return
    overview()
    move(place.value)
  })
  document.getElementById("swap").onclick = () => {
    if (!complete()) return app.say(NEEDED)
    const [a, b] = ends
    take(b, 0)
    take(a, 1)
    move(1 - place.value)
  }
  const keep = document.getElementById("save")
  keep.onclick = async () => {
    if (!complete()) return app.say(NEEDED)
    keep.disabled = true
    try {
      const { model, frame, name } = app.entry
      const way = each(await model.interpolate(...ends, FRAMES), frame)
      save(
        await gif([...way, ...way.slice(1, -1).reverse()], frame, PAUSE),
        `${name.replace("/", "-")}.gif`,
      )
    } catch (error) {
      app.failed(error)
    } finally {
      keep.disabled = false
    }
  }

  return {
    async show(how) {
      await begin(how)
      const still = matchMedia("(prefers-reduced-motion: reduce)").matches
      if (how.first && complete() && app.shown === "interpolate" && !still && !playing) start(1)
    },
    leave() {
      pause()
      leave()
    },
  }
}
