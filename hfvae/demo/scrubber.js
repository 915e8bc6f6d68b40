// A sheet of decoded frames, drawn on a canvas. Moving never asks the server: neighbouring frames are
// cross-faded. Where the movement rests, `release` asks it for the exact picture.
//
// props.value = {kind, sheet, columns, rows, width, height, at, picture, play, ...}; at = [x, y], from
// 0 to 1; picture = what the server decoded for that place, if it did.
//   "line":    columns frames along x
//   "plane":   columns frames along x, rows along y
//   "sliders": each row is one latent; at = a place for each of them
//   "codes":   one frame and a grid of codes: a click asks for another code
// props.exact = {picture, at}: what the server decoded for a place.
const REST = 250  // milliseconds without movement
const KEYS = {  // how far each goes, across and down
  ArrowLeft: [-0.02, 0], ArrowRight: [0.02, 0], ArrowUp: [0, -0.02], ArrowDown: [0, 0.02],
  Home: [-1, 0], End: [1, 0],
}
const still = matchMedia('(prefers-reduced-motion: reduce)')
const image = new Image()
let meta = null, at = [0, 0], row = 0, ready = false, queued = false, playing = false, timer = 0, held = false

const find = (selector) => element.querySelector(selector)
const clamp = (v) => Math.min(1, Math.max(0, v))

// Where one frame lies in the sheet, and drawing it with a weight.
function frame(context, column, line, weight) {
  const w = image.naturalWidth / meta.columns, h = image.naturalHeight / meta.rows
  context.globalAlpha = weight
  context.drawImage(image, column * w, line * h, w, h, 0, 0, context.canvas.width, context.canvas.height)
}

// Frames around a place, blended one over the other so that the weights come out bilinear.
function blend(context, x, y) {
  const i = Math.min(Math.floor(x), Math.max(0, meta.columns - 2)), a = x - i
  const j = Math.min(Math.floor(y), Math.max(0, meta.rows - 2)), b = y - j
  let sum = 0
  for (const [column, line, weight] of [
    [i, j, (1 - a) * (1 - b)], [i + 1, j, a * (1 - b)], [i, j + 1, (1 - a) * b], [i + 1, j + 1, a * b],
  ]) {
    if (weight <= 0) continue
    sum += weight
    frame(context, column, line, weight / sum)
  }
}

function draw() {
  queued = false
  const canvas = find('canvas')
  if (!ready || !canvas) return
  const context = canvas.getContext('2d')
  context.imageSmoothingEnabled = image.naturalWidth / meta.columns >= 48  // small pixels stay crisp
  const x = at[meta.kind === 'sliders' ? row : 0] * (meta.columns - 1)
  const y = meta.kind === 'sliders' ? row : meta.kind === 'plane' ? at[1] * (meta.rows - 1) : 0
  blend(context, x, y)
  show()
}

// What a screen reader and the tests read.
function show() {
  const box = find('.scrubber')
  const knob = find('.knob')
  if (knob) knob.style.left = 100 * at[0] + '%'
  if (meta.kind === 'line') box.setAttribute('aria-valuenow', Math.round(100 * at[0]))
  if (meta.kind === 'plane')
    box.setAttribute('aria-label', `${props.label}: ${Math.round(100 * at[0])} % across, ${Math.round(100 * at[1])} % down`)
  box.dataset.draws = Number(box.dataset.draws || 0) + 1
}

function ask() {
  if (!queued) { queued = true; requestAnimationFrame(draw) }
}

function moved(place) {
  playing = false
  at = place
  ask()
  clearTimeout(timer)
  if (meta.live) timer = setTimeout(() => trigger('release', { kind: meta.kind, at }), REST)
}

// On opening, a line plays by itself, there and back, until somebody takes it.
function play(time) {
  if (!playing || !ready || !element.isConnected) return
  const turn = (time / (meta.columns * 90)) % 2
  at = [turn < 1 ? turn : 2 - turn, 0]
  draw()
  requestAnimationFrame(play)
}

function load() {
  meta = props.value
  ready = false
  if (!meta) return
  at = meta.at || [0, 0]
  image.onload = () => {
    ready = true
    draw()
    exact(meta)
    playing = Boolean(meta.play) && !still.matches
    if (playing) requestAnimationFrame(play)
  }
  image.src = meta.sheet
}

function exact(found) {
  if (!found?.picture || !meta || JSON.stringify(found.at) !== JSON.stringify(at)) return  // moved on since
  const picture = new Image()
  picture.onload = () => {
    if (JSON.stringify(found.at) !== JSON.stringify(at)) return
    const context = find('canvas').getContext('2d')
    context.globalAlpha = 1
    context.drawImage(picture, 0, 0, context.canvas.width, context.canvas.height)
    find('.scrubber').dataset.exact = JSON.stringify(found.at)
  }
  picture.src = found.picture
}

function under(event) {
  const box = find('canvas').getBoundingClientRect()
  return [clamp((event.clientX - box.left) / box.width), clamp((event.clientY - box.top) / box.height)]
}

element.addEventListener('pointerdown', (event) => {
  if (!meta || !event.target.closest('canvas')) return
  if (meta.kind === 'codes') {
    const [x, y] = under(event)
    const cell = Math.min(meta.grid[0] - 1, Math.floor(y * meta.grid[0])) * meta.grid[1]
      + Math.min(meta.grid[1] - 1, Math.floor(x * meta.grid[1]))
    trigger('release', { kind: meta.kind, codes: meta.codes, cell })
    return
  }
  held = true
  try { event.target.setPointerCapture(event.pointerId) } catch { /* a pointer that is gone */ }
  if (meta.kind !== 'sliders') moved(under(event))
})
element.addEventListener('pointermove', (event) => {
  if (!meta || !['line', 'plane'].includes(meta.kind)) return
  const over = event.pointerType === 'mouse' && event.target.closest('canvas')
  if (held || over) moved(under(event))
})
element.addEventListener('pointerup', () => { held = false })
element.addEventListener('pointercancel', () => { held = false })
element.addEventListener('keydown', (event) => {
  if (!meta || event.target.closest('input')) return
  const step = KEYS[event.key]
  if (!step || !['line', 'plane'].includes(meta.kind)) return
  event.preventDefault()
  moved([clamp(at[0] + step[0]), clamp(at[1] + step[1])])
})
element.addEventListener('input', (event) => {
  if (!meta || !event.target.dataset.row) return
  row = Number(event.target.dataset.row)
  const place = [...at]
  place[row] = Number(event.target.value)
  moved(place)
})
watch('value', load)
watch('exact', () => exact(props.exact))
load()
