// model.safetensors: eight bytes with the length of a header in JSON, the header, the numbers.
//
// Offsets count from the header's end, and the tensors fill the file without gaps:
// https://huggingface.co/docs/safetensors. Nothing is believed before it was checked.

import { HubError, isObject, quoted } from "./errors.js"
import { product } from "./arrays.js"
import { Sha256 } from "./sha256.js"

const MAX_HEADER_BYTES = 4_000_000 // the largest model has 2,700 tensors
const TYPES = { // as which array a dtype is read, its name in Python, and its bits as a number
  F64: [Float64Array, "torch.float64", (value) => value],
  F32: [Float32Array, "torch.float32", (value) => value],
  F16: [Uint16Array, "torch.float16", (bits) => HALVES[bits]],
  BF16: [Uint16Array, "torch.bfloat16", (bits) => {
    WORD[0] = bits << 16
    return FLOAT[0]
  }],
  I64: [BigInt64Array, "torch.int64"],
  BOOL: [Uint8Array, "torch.bool"],
}

export class Safetensors {
  taken = 0 // how many numbers

  /** @param buffer the whole file, an ArrayBuffer */
  constructor(buffer) {
    const space = buffer.byteLength - 8
    const length = space < 0 ? NaN : Number(new DataView(buffer).getBigUint64(0, true))
    expect(length <= Math.min(MAX_HEADER_BYTES, space), "its header is cut off or too long")
    let header
    try {
      const bytes = new Uint8Array(buffer, 8, length)
      header = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes))
    } catch {}
    expect(isObject(header), "its header is no JSON")
    const { __metadata__: metadata = {}, ...entries } = header
    expect(isObject(metadata), "its metadata are no texts")
    Object.assign(this, { buffer, metadata, entries: new Map(Object.entries(entries)) })
    const start = ([, entry]) => entry?.data_offsets?.[0]
    let end = 0
    for (const [name, entry] of [...this.entries].sort((a, b) => start(a) - start(b))) {
      const { dtype, shape, data_offsets: offsets } = entry ?? {}
      const whole = (n) => Number.isSafeInteger(n) && n >= 0
      expect(Object.hasOwn(TYPES, dtype) && Array.isArray(shape) && shape.every(whole),
        `${quoted(name)} has no shape or dtype that a model can have`)
      entry.length = TYPES[dtype][0].BYTES_PER_ELEMENT * product(shape)
      expect(Array.isArray(offsets) && offsets.length === 2 && offsets[0] === end &&
        offsets[1] === end + entry.length, `${quoted(name)} is not where its header says`)
      entry.start = 8 + length + end
      end += entry.length
    }
    expect(end === space - length, "it is longer or shorter than its header says")
  }

  /** Of all names, shapes, dtypes and values, as hfvae/hub/files.py makes it. */
  sha256() {
    const sha = new Sha256()
    for (const name of [...this.entries.keys()].sort()) {
      const { dtype, shape, start, length } = this.entries.get(name)
      const tuple = `(${shape.join(", ")}${shape.length === 1 ? "," : ""})`
      sha.update(new TextEncoder().encode(`${name} ${TYPES[dtype][1]} ${tuple} `))
      sha.update(new Uint8Array(this.buffer, start, length))
    }
    return sha.digest()
  }

  has(name) {
    return this.entries.has(name)
  }

  /** The numbers of a tensor in float32, all finite, which it must have in this shape. */
  take(name, shape) {
    const { dtype, start, length } = this.claim(name, shape)
    this.taken += product(shape)
    const [Kind, , number] = TYPES[dtype]
    if (!number) throw new HubError(`${name} in model.safetensors has dtype ${dtype}.`)
    const size = Kind.BYTES_PER_ELEMENT
    const stored = start % size // where a number may not begin
      ? new Kind(this.buffer.slice(start, start + length))
      : new Kind(this.buffer, start, length / size)
    const numbers = new Float32Array(stored.length)
    for (let i = 0; i < numbers.length; i++) {
      numbers[i] = number(stored[i])
      if (numbers[i] - numbers[i] !== 0) {
        throw new HubError(`${name} in model.safetensors holds numbers that are not finite.`)
      }
    }
    return numbers
  }

  /** What is there but plays no part here; its dtype is that and no other. */
  pass(name, shape, dtype) {
    const found = this.claim(name, shape).dtype
    if (found !== dtype) throw new HubError(`${name} in model.safetensors has dtype ${found}.`)
  }

  claim(name, shape) {
    const entry = this.entries.get(name)
    if (!entry) throw unfit(`${name} is missing`)
    if (entry.shape.join() !== shape.join()) {
      throw unfit(`${name} is ${quoted(entry.shape)} and should be [${shape}]`)
    }
    this.entries.delete(name)
    return entry
  }

  /** Raise if something was not taken. */
  finish() {
    for (const name of this.entries.keys()) throw unfit(`${quoted(name)} is unexpected`)
  }
}

export const damaged = (why) => new HubError(`model.safetensors is damaged: ${why}.`)
const unfit = (why) => new HubError(`model.safetensors does not fit config.json: ${why}.`)
const expect = (good, why) => {
  if (!good) throw damaged(why)
}

/** All 65,536 numbers of half precision (IEEE 754): 1 sign, 5 exponent and 10 fraction bits. */
const HALVES = Float32Array.from({ length: 2 ** 16 }, (_, bits) => {
  const sign = bits & 0x8000 ? -1 : 1, exponent = (bits >> 10) & 31, fraction = (bits & 1023) / 1024
  if (exponent === 31) return fraction ? NaN : sign * Infinity
  return sign * 2 ** (Math.max(exponent, 1) - 15) * (fraction + (exponent ? 1 : 0))
})

/** bfloat16 is the upper half of a float32. */
const FLOAT = new Float32Array(1), WORD = new Uint32Array(FLOAT.buffer)
