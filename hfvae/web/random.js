// Random numbers that a seed repeats on every machine, though not those of torch.

/** xoshiro128**, Blackman & Vigna 2021 (arXiv:1805.01407), seeded by splitmix32. */
export class Random {
  constructor(seed) {
    let s = Math.floor(seed) >>> 0
    this.state = Uint32Array.from({ length: 4 }, () => {
      s = (s + 0x9e3779b9) >>> 0
      let z = Math.imul(s ^ (s >>> 16), 0x21f0aaad)
      z = Math.imul(z ^ (z >>> 15), 0x735a2d97)
      return z ^ (z >>> 15)
    })
  }

  /** U[0, 1), with the 24 bits of a float32. */
  uniform() {
    const s = this.state
    const product = Math.imul(s[1], 5)
    const found = Math.imul((product << 7) | (product >>> 25), 9)
    const t = s[1] << 9
    s[2] ^= s[0]
    s[3] ^= s[1]
    s[1] ^= s[2]
    s[0] ^= s[3]
    s[2] ^= t
    s[3] = (s[3] << 11) | (s[3] >>> 21)
    return (found >>> 8) / 2 ** 24
  }

  /** N(0, 1). Box & Muller 1958. */
  normal() {
    const radius = Math.sqrt(-2 * Math.log(1 - this.uniform()))
    return radius * Math.cos(2 * Math.PI * this.uniform())
  }
}
