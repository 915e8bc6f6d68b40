// Pictures to pixels and back, as hfvae.images does it. Pixels are a Float32Array (C, H, W) in [0, 1];
// a frame says what they are of: {channels, height, width}.

const LARGEST = 1024 // of a side, before a picture is resized here: more of a photograph is not needed
const LIKENESS = ["Little alike.", "A rough likeness.", "Recognisable.", "Close.", "All but equal."]
const FAR = 8 // dB below the usual: so are 3 held-out images in 1000, and most of other kinds
const STRANGE =
  "This is not the kind of picture that this model knows: what you see is the nearest thing " +
  "that it can draw."
const UNPACKED = 16e6 // pixels of a grid of held-out images: a few bytes can unpack to gigabytes
const WHITE = 2 ** 32 - 1 // the four bytes of such a pixel
export const GAP = 2 // white pixels between the images of a grid

export const numbers = (frame) => frame.channels * frame.height * frame.width

// Many images one by one.
export const each = (pixels, frame) =>
  Array.from({ length: pixels.length / numbers(frame) }, (_, i) =>
    pixels.slice(i * numbers(frame), (i + 1) * numbers(frame)),
  )

export function toImageData(pixels, { channels, height, width }) {
  const image = new ImageData(width, height)
  const size = height * width
  for (let i = 0; i < size; i++)
    for (let c = 0; c < 4; c++)
      image.data[4 * i + c] =
        c === 3 && channels < 4 ? 255 : 255 * pixels[(channels < 3 ? 0 : c * size) + i]
  return image
}

export function show(canvas, pixels, frame) {
  canvas.width = frame.width
  canvas.height = frame.height
  canvas.getContext("2d").putImageData(toImageData(pixels, frame), 0, 0)
}

// An entry of a list of pictures, to choose from.
export function tile(label) {
  const item = document.createElement("li")
  const button = document.createElement("button")
  button.setAttribute("aria-label", label)
  button.append(document.createElement("canvas"))
  item.append(button)
  return item
}

// A picture as the model sees it. `source` is a file, a canvas or a video; what is turned by EXIF is
// turned upright, transparency put on white, the short side resized, the centre cropped.
export async function preprocess(source, frame, likelihood) {
  const image = await createImageBitmap(source, { imageOrientation: "from-image" })
  const scale = Math.min(1, LARGEST / Math.min(image.width, image.height))
  const canvas = new OffscreenCanvas(
    Math.max(1, Math.round(image.width * scale)),
    Math.max(1, Math.round(image.height * scale)),
  )
  const context = canvas.getContext("2d", { willReadFrequently: true })
  context.imageSmoothingQuality = "high"
  if (frame.channels !== 4) {
    context.fillStyle = "white"
    context.fillRect(0, 0, canvas.width, canvas.height)
  }
  context.drawImage(image, 0, 0, canvas.width, canvas.height)
  image.close()
  const pixels = fit(
    planes(context.getImageData(0, 0, canvas.width, canvas.height), frame.channels),
    canvas,
    frame,
  )
  return likelihood === "bernoulli" ? pixels.map((value) => Number(value > 0.5)) : pixels
}

// Each channel by itself, from 0 to 255; grey as Pillow weighs it.
function planes({ data }, channels) {
  const size = data.length / 4
  return Array.from({ length: channels }, (_, c) => {
    const plane = new Float32Array(size)
    for (let i = 0; i < size; i++)
      plane[i] =
        channels > 1
          ? data[4 * i + c]
          : Math.floor(
              0.299 * data[4 * i] + 0.587 * data[4 * i + 1] + 0.114 * data[4 * i + 2] + 0.5,
            )
    return plane
  })
}

// The largest crop of the frame's shape around the centre, resized to it.
function fit(found, { width: W, height: H }, { height, width }) {
  const wide = W * height >= H * width
  const [w, h] = wide ? [(H * width) / height, H] : [W, (W * height) / width]
  const across = taps(W, width, (W - w) / 2, w)
  const down = taps(H, height, (H - h) / 2, h)
  const pixels = new Float32Array(found.length * height * width)
  found.forEach((plane, c) => {
    const whole = along(along(plane, W, H, across), H, width, down)
    pixels.set(
      whole.map((value) => value / 255),
      c * height * width,
    )
  })
  return pixels
}

// Rows of `width` numbers, resized and turned into columns: twice, and they lie as before.
function along(rows, width, height, pixels) {
  const turned = new Float32Array(pixels.length * height)
  pixels.forEach(({ first, weights }, x) => {
    for (let y = 0; y < height; y++) {
      let sum = 0
      for (let i = 0; i < weights.length; i++) sum += weights[i] * rows[y * width + first + i]
      turned[x * height + y] = Math.min(255, Math.max(0, Math.round(sum)))
    }
  })
  return turned
}

// Which of `from` pixels each of `to` is a mean of, with what weights: Keys' cubic (1981, a = −1/2),
// widened where there are fewer, so that nothing is skipped.
function taps(from, to, start, length) {
  const scale = length / to
  const wide = Math.max(1, scale)
  return Array.from({ length: to }, (_, i) => {
    const centre = start + (i + 0.5) * scale
    const first = Math.max(0, Math.floor(centre - 2 * wide + 0.5))
    const end = Math.min(from, Math.floor(centre + 2 * wide + 0.5))
    const weights = Array.from({ length: end - first }, (_, k) =>
      cubic((first + k - centre + 0.5) / wide),
    )
    const sum = weights.reduce((a, b) => a + b)
    return { first, weights: weights.map((weight) => weight / sum) }
  })
}

function cubic(x) {
  x = Math.abs(x)
  if (x < 1) return (1.5 * x - 2.5) * x * x + 1
  return x < 2 ? ((-0.5 * x + 2.5) * x - 4) * x + 2 : 0
}

// The images in the first row of a grid that may have been enlarged: what train.py saves of held-out
// images, as hfvae.images.first_row finds them; [] if the picture is no such grid.
export async function firstRow(file, { channels, height, width }) {
  const header = new DataView(await file.slice(0, 24).arrayBuffer())
  if (header.getUint32(0) !== 0x89504e47 || header.getUint32(16) * header.getUint32(20) > UNPACKED)
    return [] // no PNG, or one that is too large
  const image = await createImageBitmap(file)
  const canvas = new OffscreenCanvas(image.width, image.height)
  const context = canvas.getContext("2d", { willReadFrequently: true })
  context.drawImage(image, 0, 0)
  const W = image.width
  const { data } = context.getImageData(0, 0, W, image.height)
  for (let factor = Math.floor(W / width); factor > 0; factor--) {
    const [w, h] = [W / factor, image.height / factor]
    if (!fits(w, width) || !fits(h, height)) continue
    if (!repeats(data, W, factor, { height, width })) continue
    return Array.from({ length: (w + GAP) / (width + GAP) }, (_, i) => {
      const pixels = new Float32Array(channels * height * width)
      for (let c = 0; c < channels; c++)
        for (let y = 0; y < height; y++)
          for (let x = 0; x < width; x++)
            pixels[(c * height + y) * width + x] =
              data[4 * factor * (y * W + x + i * (width + GAP)) + c] / 255
      return pixels
    })
  }
  return []
}

const fits = (length, side) => Number.isInteger(length) && (length + GAP) % (side + GAP) === 0

// Whether the picture is made of equal squares of pixels, so many a side, with white gaps.
function repeats(data, W, factor, { height, width }) {
  const words = new Uint32Array(data.buffer)
  for (let i = 0; i < words.length; i++) {
    const x = i % W
    const y = (i - x) / W
    if (words[i] !== words[(y - (y % factor)) * W + x - (x % factor)]) return false
    const left = Math.floor(x / factor) % (width + GAP)
    const top = Math.floor(y / factor) % (height + GAP)
    if ((left >= width || top >= height) && words[i] !== WHITE) return false
  }
  return true
}

// −10 log₁₀ of the mean squared error, in dB, at most 100.
export function psnr(x, y) {
  let sum = 0
  for (let i = 0; i < x.length; i++) sum += (x[i] - y[i]) ** 2
  return -10 * Math.log10(Math.max(1e-10, sum / x.length))
}

// How far a copy is from its picture, in words.
export function likeness(decibels, usual) {
  if (decibels < usual - FAR) return STRANGE
  return LIKENESS[[15, 18, 23, 30].filter((limit) => decibels > limit).length]
}
