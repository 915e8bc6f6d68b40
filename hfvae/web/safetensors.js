// model.safetensors: eight bytes with the length of a header in JSON, the header, the numbers.
//
// https://huggingface.co/docs/safetensors: offsets count from the header's end, and the tensors
// fill the file without gaps. Nothing is believed before it was checked.

import { HubError } from "./errors.js"
import { Sha256 } from "./sha256.js"

const MAX_HEADER_BYTES = 4_000_000 // the largest model has 2,700 tensors
const TYPES = { // how many bytes a number takes, its name in Python, and how it is read
  F64: [8, "torch.float64", (buffer) => Float32Array.from(new Float64Array(buffer))],
  F32: [4, "torch.float32", (buffer) => new Float32Array(buffer)],
  F16: [2, "torch.float16", (buffer) => Float32Array.from(new Uint16Array(buffer), fromHalf)],
  BF16: [2, "torch.bfloat16", fromBfloat16],
  I64: [8, "torch.int64", null],
  BOOL: [1, "torch.bool", null],
}

export class Safetensors {
  /** @param buffer the whole file, an ArrayBuffer */
  constructor(buffer) {
    const length = buffer.byteLength < 8 ? NaN : Number(new DataView(buffer).getBigUint64(0, true))
    if (!(length <= Math.min(MAX_HEADER_BYTES, buffer.byteLength - 8))) {
      throw damaged("its header is cut off or too long")
    }
    let header
    try {
      header = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(
        new Uint8Array(buffer, 8, length)))
    } catch {
      throw damaged("its header is no JSON")
    }
    if (!isObject(header)) throw damaged("its header is no list of tensors")
    const { __metadata__: metadata = {}, ...entries } = header
    if (!isObject(metadata)) throw damaged("its metadata are no texts")
    this.metadata = metadata
    this.buffer = buffer
    this.entries = new Map(Object.entries(entries))
    let end = 8 + length
    const start = ([, entry]) => entry?.data_offsets?.[0]
    for (const [name, entry] of [...this.entries].sort((a, b) => start(a) - start(b))) {
      const { dtype, shape, data_offsets: offsets } = entry ?? {}
      const type = Object.hasOwn(TYPES, dtype) && TYPES[dtype]
      const whole = (n) => Number.isSafeInteger(n) && n >= 0
      if (!type || !Array.isArray(shape) || !shape.every(whole)) {
        throw damaged(`${quoted(name)} has no shape or dtype that a model can have`)
      }
      const bytes = type[0] * shape.reduce((a, b) => a * b, 1)
      if (!Array.isArray(offsets) || offsets.length !== 2 || 8 + length + offsets[0] !== end ||
          offsets[1] - offsets[0] !== bytes) {
        throw damaged(`${quoted(name)} is not where its header says`)
      }
      entry.start = end
      end += bytes
    }
    if (end !== buffer.byteLength) throw damaged("it is longer or shorter than its header says")
  }

  /** Of all names, shapes, dtypes and values, as hfvae/hub/files.py makes it. */
  sha256() {
    const sha = new Sha256()
    for (const name of [...this.entries.keys()].sort()) {
      const { dtype, shape, start } = this.entries.get(name)
      const [size, python] = TYPES[dtype]
      const tuple = `(${shape.join(", ")}${shape.length === 1 ? "," : ""})`
      sha.update(new TextEncoder().encode(`${name} ${python} ${tuple} `))
      sha.update(new Uint8Array(this.buffer, start, size * shape.reduce((a, b) => a * b, 1)))
    }
    return sha.digest()
  }

  has(name) {
    return this.entries.has(name)
  }

  /** The numbers of a tensor in float32, all finite, which it must have in this shape. */
  take(name, shape) {
    const { dtype, bytes } = this.claim(name, shape)
    const read = TYPES[dtype][2]
    if (!read) throw new HubError(`${name} in model.safetensors has dtype ${dtype}.`)
    const numbers = read(bytes)
    for (let i = 0; i < numbers.length; i++) {
      if (!Number.isFinite(numbers[i])) {
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
      throw unfit(`${name} is (${entry.shape.join(", ").slice(0, 80)}) and should be (${shape.join(", ")})`)
    }
    this.entries.delete(name)
    const size = TYPES[entry.dtype][0] * shape.reduce((a, b) => a * b, 1)
    return { dtype: entry.dtype, bytes: this.buffer.slice(entry.start, entry.start + size) }
  }

  /** Raise if something was not taken. */
  finish() {
    for (const name of this.entries.keys()) throw unfit(`${quoted(name)} is unexpected`)
  }
}

export const damaged = (why) => new HubError(`model.safetensors is damaged: ${why}.`)
export const isObject = (x) => typeof x === "object" && x !== null && !Array.isArray(x)
export const quoted = (x) => (JSON.stringify(x) ?? String(x)).slice(0, 80)
const unfit = (why) => new HubError(`model.safetensors does not fit config.json: ${why}.`)

/** IEEE 754 half precision: 1 sign, 5 exponent and 10 fraction bits. */
function fromHalf(bits) {
  const sign = bits & 0x8000 ? -1 : 1, exponent = (bits >> 10) & 31, fraction = bits & 1023
  if (exponent === 31) return fraction ? NaN : sign * Infinity
  return exponent
    ? sign * 2 ** (exponent - 15) * (1 + fraction / 1024)
    : sign * 2 ** -14 * (fraction / 1024)
}

/** bfloat16: the upper half of a float32. */
function fromBfloat16(buffer) {
  return new Float32Array(Uint32Array.from(new Uint16Array(buffer), (bits) => bits << 16).buffer)
}
