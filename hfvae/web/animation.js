// An animated GIF, which every place where people talk can show: GIF89a, one palette, LZW.

import { toImageData } from "./pictures.js"

const COLOURS = 256
const BITS = 5 // of a channel, where colours are counted
const SIDE = 256 // pixels that the longer side has at least

// `images`: pixels of one frame each; resolves to a Blob. Pauses often, so that the page goes on.
export async function gif(images, frame, milliseconds) {
  const shown = images.map((pixels) => toImageData(pixels, frame).data)
  const { palette, nearest } = colours(shown)
  const factor = Math.max(1, Math.floor(SIDE / Math.max(frame.width, frame.height)))
  const [w, h] = [frame.width * factor, frame.height * factor]
  const word = (n) => [n & 255, n >> 8]
  const parts = [
    "GIF89a",
    [...word(w), ...word(h), 0xf7, 0, 0],
    palette,
    [0x21, 0xff, 11],
    "NETSCAPE2.0",
    [3, 1, 0, 0, 0], // again and again
  ]
  for (const data of shown) {
    const indices = new Uint8Array(w * h)
    for (let i = 0; i < indices.length; i++) {
      const x = Math.floor((i % w) / factor)
      const y = Math.floor(i / w / factor)
      indices[i] = nearest(data, 4 * (y * frame.width + x))
    }
    parts.push(
      [0x21, 0xf9, 4, 4, ...word(Math.round(milliseconds / 10)), 0, 0],
      [0x2c, 0, 0, 0, 0, ...word(w), ...word(h), 0, 8],
    )
    parts.push(...blocks(lzw(indices)), [0])
    await new Promise((go) => setTimeout(go))
  }
  parts.push([0x3b])
  return new Blob(
    parts.map((part) => (Array.isArray(part) ? new Uint8Array(part) : part)),
    { type: "image/gif" },
  )
}

// Colours by median cut (Heckbert 1982), and which of them is a pixel's: the box that it was cut into.
function colours(shown) {
  const key = (data, i) =>
    ((data[i] >> (8 - BITS)) << (2 * BITS)) |
    ((data[i + 1] >> (8 - BITS)) << BITS) |
    (data[i + 2] >> (8 - BITS))
  const found = new Map() // key -> [count, red, green, blue], summed
  const grey = shown.every((data) =>
    data.every((value, i) => i % 4 === 3 || value === data[i - (i % 4)]),
  )
  if (grey) {
    const palette = Uint8Array.from({ length: 3 * COLOURS }, (_, i) => Math.floor(i / 3))
    return { palette, nearest: (data, i) => data[i] }
  }
  for (const data of shown)
    for (let i = 0; i < data.length; i += 4) {
      const k = key(data, i)
      const sums = found.get(k) ?? [0, 0, 0, 0]
      sums[0]++
      for (let c = 0; c < 3; c++) sums[c + 1] += data[i + c]
      found.set(k, sums)
    }
  const entries = [...found].map(([k, [n, ...sums]]) => ({ k, n, at: sums.map((sum) => sum / n) }))
  const boxes = [box(entries)]
  while (boxes.length < COLOURS) {
    const widest = boxes.reduce((a, b) => (b.spread > a.spread ? b : a))
    if (widest.spread === 0) break
    const { entries, axis, middle } = widest
    const low = entries.filter(({ at }) => at[axis] < middle)
    const high = entries.filter(({ at }) => at[axis] >= middle)
    boxes.splice(boxes.indexOf(widest), 1, box(low), box(high))
  }
  const palette = new Uint8Array(3 * COLOURS)
  const index = new Map()
  boxes.forEach(({ entries, mean }, i) => {
    palette.set(mean.map(Math.round), 3 * i)
    for (const { k } of entries) index.set(k, i)
  })
  return { palette, nearest: (data, i) => index.get(key(data, i)) }
}

// The mean of some colours, and where to cut them: across the axis of the largest squared error.
function box(entries) {
  const n = entries.reduce((sum, entry) => sum + entry.n, 0)
  const moment = (f) =>
    [0, 1, 2].map((c) => entries.reduce((sum, { n, at }) => sum + n * f(at[c], c), 0))
  const mean = moment((value) => value).map((sum) => sum / n)
  const spreads = moment((value, c) => (value - mean[c]) ** 2)
  const spread = entries.length > 1 ? Math.max(...spreads) : 0
  const axis = spreads.indexOf(spread)
  return { entries, mean, spread, axis, middle: mean[axis] }
}

// Codes of 9 to 12 bits, the lowest bit first (Welch 1984, as GIF has it).
function lzw(indices) {
  const clear = COLOURS
  const bytes = []
  let known
  let next
  let size
  let held = 0
  let bits = 0
  const put = (code) => {
    held |= code << bits
    for (bits += size; bits >= 8; bits -= 8, held >>>= 8) bytes.push(held & 255)
  }
  const reset = () => {
    known = new Map()
    next = clear + 2
    size = 9
  }
  reset()
  put(clear)
  let prefix = indices[0]
  for (let i = 1; i < indices.length; i++) {
    const both = (prefix << 8) | indices[i]
    const code = known.get(both)
    if (code !== undefined) {
      prefix = code
      continue
    }
    put(prefix)
    if (next === 4096) {
      put(clear)
      reset()
    } else {
      if (next === 1 << size) size++
      known.set(both, next++)
    }
    prefix = indices[i]
  }
  put(prefix)
  put(clear + 1)
  if (bits) bytes.push(held & 255)
  return bytes
}

function* blocks(bytes) {
  for (let i = 0; i < bytes.length; i += 255) {
    const block = bytes.slice(i, i + 255)
    yield [block.length, ...block]
  }
}
