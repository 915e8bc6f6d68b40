// The loop in which the time goes, four numbers at a time: a WebAssembly module of one function,
// written out here, so that there is nothing to build or to fetch.

const PIXELS = [8, 4, 1] // pixels that are summed at once, while there are so many
const I32 = 0x7f, V128 = 0x7b

/**
 * filterRow(x, right, next, rows, span, weight, bias, y, yRight, count)
 *
 *     y[j·yRight + o] = bias[o] + Σ_r Σ_k x[j·right + r·next + k] · weight[r, k, o]
 *
 * for j < count and o < 4. Each is an address or a distance in bytes, but `rows` and `count`.
 */
function assemble() {
  const names = "x right next rows span weight bias y yRight count".split(" ")
  const [x, right, next, rows, span, weight, bias, y, yRight, count] = names.keys()
  const [at, k, end, r, w] = [10, 11, 12, 13, 14], distance = (m) => 15 + m // of pixel m
  const filter = 23, sum = (m) => 24 + m

  // Instructions, as lists of bytes: WebAssembly core specification, section 5.4.
  const constant = (n) => [0x41, n & 0x7f] // −64 to 63
  const get = (local) => [0x20, local]
  const set = (local, value) => [value, 0x21, local]
  const add = (a, b) => [a, b, 0x6a]
  const increase = (local, by) => set(local, add(get(local), by))
  const less = (a, b) => [a, b, 0x49] // unsigned: addresses may be beyond 2 GiB
  const load = (address) => [address, 0xfd, 0x00, 2, 0] // four numbers
  const spread = (address) => [address, 0xfd, 0x09, 2, 0] // one number, four times
  const store = (address, value) => [address, value, 0xfd, 0x0b, 2, 0]
  const addFour = (a, b) => [a, b, 0xfd, 0xe4, 0x01]
  const multiplyFour = (a, b) => [a, b, 0xfd, 0xe6, 0x01]
  const doWhile = (body, condition) => [0x03, 0x40, body, condition, 0x0d, 0, 0x0b]
  const unless = (condition, body) => [0x02, 0x40, condition, 0x0d, 0, body, 0x0b]

  const each = (n, of) => Array.from({ length: n }, (_, m) => of(m))
  const pixels = (n) => unless(less(get(count), constant(n)), doWhile([
    each(n, (m) => set(sum(m), load(get(bias)))),
    set(at, get(x)), set(w, get(weight)), set(r, get(rows)),
    doWhile([
      set(k, get(at)), set(end, add(get(at), get(span))),
      doWhile([
        set(filter, load(get(w))),
        each(n, (m) => {
          const number = spread(add(get(k), get(distance(m))))
          return set(sum(m), addFour(get(sum(m)), multiplyFour(number, get(filter))))
        }),
        increase(w, constant(16)), increase(k, constant(4)),
      ], less(get(k), get(end))),
      increase(at, get(next)), increase(r, constant(-1)),
    ], get(r)),
    each(n, (m) => [store(get(y), get(sum(m))), increase(y, get(yRight)), increase(x, get(right))]),
    increase(count, constant(-n)),
  ], less(constant(n - 1), get(count))))
  const distances = each(7, (m) => set(distance(m + 1), add(get(distance(m)), get(right))))

  // Sections, each of which begins with its length: 5.5.
  const length = (n) => n < 128 ? [n] : [n & 0x7f | 0x80, ...length(n >> 7)]
  const list = (...entries) => [length(entries.length), entries]
  const sized = (...parts) => {
    const bytes = parts.flat(Infinity)
    return [length(bytes.length), bytes]
  }
  const text = (word) => list(...new TextEncoder().encode(word))
  const locals = list([13, I32], [9, V128])
  return Uint8Array.from([
    0, 0x61, 0x73, 0x6d, 1, 0, 0, 0, // "\0asm", version 1
    1, sized(list([0x60, list(...names.map(() => I32)), list()])), // the type of the function
    2, sized(list([text("page"), text("memory"), 2, 0, 1])), // imports
    3, sized(list(0)), // functions, by type
    7, sized(list([text("filterRow"), 0, 0])), // exports
    10, sized(list(sized(locals, distances, PIXELS.map(pixels), 0x0b))), // code
  ].flat(Infinity))
}

export const memory = new WebAssembly.Memory({ initial: 1 }) // pages of 64 KiB
const loop = new WebAssembly.Instance(new WebAssembly.Module(assemble()), { page: { memory } })
export const { filterRow } = loop.exports
