// Flat arrays and their shapes.

export const product = (numbers) => numbers.reduce((a, b) => a * b, 1)

export function equal(a, b) {
  if (a.length !== b.length) return false
  for (let i = 0; i < a.length; i++) if (a[i] !== b[i]) return false
  return true
}

/** Rows one after another. */
export function joined(rows) {
  const all = new Float32Array(rows.reduce((sum, row) => sum + row.length, 0))
  rows.reduce((at, row) => (all.set(row, at), at + row.length), 0)
  return all
}

/** The rows of a batch, told by its length. */
export function rowsOf(batch, shape, what) {
  const data = batch instanceof Float32Array ? batch : Float32Array.from(batch)
  const size = product(shape)
  if (!data.length || data.length % size) {
    throw new RangeError(`expected ${what} of shape (B, ${shape.join(", ")}), got ${data.length} numbers`)
  }
  return Array.from({ length: data.length / size }, (_, i) => data.subarray(i * size, (i + 1) * size))
}
