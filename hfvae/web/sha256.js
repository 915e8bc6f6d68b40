// SHA-256 (FIPS 180-4) of a file in pieces, without a copy of it.
//
// crypto.subtle is quicker, but takes one piece, and is missing on plain http.

const root = (p, power) => { // the first 32 bits of the fraction of p^(1/power)
  const x = p ** (1 / power)
  return Math.floor((x - Math.floor(x)) * 2 ** 32) | 0
}
const primes = []
for (let n = 2; primes.length < 64; n++) if (primes.every((p) => n % p)) primes.push(n)
const ROUNDS = Int32Array.from(primes, (p) => root(p, 3))
const START = primes.slice(0, 8).map((p) => root(p, 2))

export class Sha256 {
  constructor() {
    this.state = Int32Array.from(START)
    this.block = new Uint8Array(64)
    this.words = new Int32Array(64)
    this.length = 0
  }

  update(bytes) {
    let at = 0
    const held = this.length % 64
    this.length += bytes.length
    if (held) {
      const some = bytes.subarray(0, 64 - held)
      this.block.set(some, held)
      if (held + some.length < 64) return this
      this.compress(this.block, 0)
      at = some.length
    }
    for (; at + 64 <= bytes.length; at += 64) this.compress(bytes, at)
    this.block.set(bytes.subarray(at))
    return this
  }

  /** 64 hexadecimal digits. */
  digest() {
    const bits = this.length * 8
    const zeros = (119 - this.length % 64) % 64
    const end = new Uint8Array(1 + zeros + 8)
    end[0] = 0x80
    const view = new DataView(end.buffer, 1 + zeros)
    view.setUint32(0, Math.floor(bits / 2 ** 32))
    view.setUint32(4, bits)
    this.update(end)
    return Array.from(this.state, (s) => (s >>> 0).toString(16).padStart(8, "0")).join("")
  }

  compress(bytes, at) {
    const w = this.words
    for (let i = 0; i < 16; i++, at += 4) {
      w[i] = (bytes[at] << 24) | (bytes[at + 1] << 16) | (bytes[at + 2] << 8) | bytes[at + 3]
    }
    for (let i = 16; i < 64; i++) {
      const x = w[i - 15], y = w[i - 2]
      const s0 = ((x >>> 7) | (x << 25)) ^ ((x >>> 18) | (x << 14)) ^ (x >>> 3)
      const s1 = ((y >>> 17) | (y << 15)) ^ ((y >>> 19) | (y << 13)) ^ (y >>> 10)
      w[i] = (w[i - 16] + s0 + w[i - 7] + s1) | 0
    }
    let [a, b, c, d, e, f, g, h] = this.state
    for (let i = 0; i < 64; i++) {
      const s1 = ((e >>> 6) | (e << 26)) ^ ((e >>> 11) | (e << 21)) ^ ((e >>> 25) | (e << 7))
      const t1 = (h + s1 + ((e & f) ^ (~e & g)) + ROUNDS[i] + w[i]) | 0
      const s0 = ((a >>> 2) | (a << 30)) ^ ((a >>> 13) | (a << 19)) ^ ((a >>> 22) | (a << 10))
      const t2 = (s0 + ((a & b) ^ (a & c) ^ (b & c))) | 0
      h = g
      g = f
      f = e
      e = (d + t1) | 0
      d = c
      c = b
      b = a
      a = (t1 + t2) | 0
    }
    const s = this.state
    s[0] += a
    s[1] += b
    s[2] += c
    s[3] += d
    s[4] += e
    s[5] += f
    s[6] += g
    s[7] += h
  }
}
