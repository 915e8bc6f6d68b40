// SHA-256 (FIPS 180-4) of a file in pieces: crypto.subtle takes but one, and is not on plain http.

/** The first 32 bits of the fraction of a root. */
const fraction = (root) => Math.floor((root % 1) * 2 ** 32) | 0
const primes = []
for (let n = 2; primes.length < 64; n++) if (primes.every((p) => n % p)) primes.push(n)
const ROUNDS = Int32Array.from(primes, (p) => fraction(Math.cbrt(p)))
const START = Int32Array.from(primes.slice(0, 8), (p) => fraction(Math.sqrt(p)))

export class Sha256 {
  state = START.slice()
  block = new Uint8Array(64) // what is not enough for a round yet
  words = new Int32Array(64)
  length = 0

  update(bytes) {
    const held = this.length % 64
    let at = held ? Math.min(64 - held, bytes.length) : 0
    this.length += bytes.length
    this.block.set(bytes.subarray(0, at), held)
    if (held && held + at < 64) return
    if (held) this.compress(this.block, 0)
    for (; at + 64 <= bytes.length; at += 64) this.compress(bytes, at)
    this.block.set(bytes.subarray(at))
  }

  /** 64 hexadecimal digits. */
  digest() {
    const zeros = (119 - this.length % 64) % 64
    const end = new DataView(new ArrayBuffer(zeros + 9))
    end.setUint8(0, 0x80)
    end.setBigUint64(zeros + 1, 8n * BigInt(this.length))
    this.update(new Uint8Array(end.buffer))
    return Array.from(this.state, (s) => (s >>> 0).toString(16).padStart(8, "0")).join("")
  }

  compress(bytes, at) {
    const w = this.words
    for (let i = 0; i < 16; i++, at += 4) {
      w[i] = (bytes[at] << 24) | (bytes[at + 1] << 16) | (bytes[at + 2] << 8) | bytes[at + 3]
    }
    for (let i = 16; i < 64; i++) {
      const x = w[i - 15], y = w[i - 2]
      w[i] = w[i - 16] + (turn(x, 7) ^ turn(x, 18) ^ (x >>> 3)) +
        w[i - 7] + (turn(y, 17) ^ turn(y, 19) ^ (y >>> 10))
    }
    const s = this.state
    let a = s[0], b = s[1], c = s[2], d = s[3], e = s[4], f = s[5], g = s[6], h = s[7]
    for (let i = 0; i < 64; i++) {
      const choice = (e & f) ^ (~e & g), majority = (a & b) ^ (a & c) ^ (b & c)
      const t = (h + (turn(e, 6) ^ turn(e, 11) ^ turn(e, 25)) + choice + ROUNDS[i] + w[i]) | 0
      h = g
      g = f
      f = e
      e = (d + t) | 0
      d = c
      c = b
      b = a
      a = (t + (turn(a, 2) ^ turn(a, 13) ^ turn(a, 22)) + majority) | 0
    }
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

const turn = (x, n) => (x >>> n) | (x << (32 - n))
