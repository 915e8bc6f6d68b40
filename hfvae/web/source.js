// Where the files of a model come from: this page, or a public repository of the Hub. Each reads a file
// as bytes, and gives null where there is none.

export const HUB_ID = /^[\w-][\w.-]{0,95}\/[\w-][\w.-]{0,95}$/
const MAX_BYTES = {
  "model.safetensors": 200e6,
  "config.json": 1e5,
  "README.md": 1e5,
  "evaluation.json": 1e5,
  "reconstructions.png": 1e7,
}
export const megabytes = (bytes) => `${(bytes / 1e6).toFixed(bytes < 1e7 ? 1 : 0)} MB`

export class Inlined {
  constructor(element) {
    this.files = JSON.parse(element.textContent) // name -> base64
  }

  async read(file) {
    if (!(file in this.files)) return null
    if (Uint8Array.fromBase64) return Uint8Array.fromBase64(this.files[file])
    return Uint8Array.from(atob(this.files[file]), (letter) => letter.charCodeAt(0))
  }
}

export class Hub {
  constructor(endpoint, name) {
    if (!HUB_ID.test(name))
      throw new Error(
        `There is no model ${JSON.stringify(name.slice(0, 80))} here; the Hub's are called owner/name.`,
      )
    this.name = name
    this.address = `${endpoint}/${name}/resolve/main/`
  }

  // `progress(done, all)` is told the bytes. What is too large is refused before it is fetched.
  async read(file, progress) {
    const most = MAX_BYTES[file]
    const abort = new AbortController()
    // A server of large files may refuse to be asked for the size alone; then the answer below says it.
    if (progress) {
      const announced = bytesOf(await this.ask(file, { method: "HEAD" }).catch(() => null))
      this.check(announced, file, most)
      progress(0, announced)
    }
    const answer = await this.ask(file, { signal: abort.signal })
    if (answer === null) return null
    const all = bytesOf(answer)
    const reader = answer.body.getReader()
    const parts = []
    let done = 0
    try {
      this.check(all, file, most)
      for (;;) {
        const { value, done: ended } = await reader.read().catch(() => {
          throw new Error(`The transfer of ${file} was cut short: try again.`)
        })
        if (ended) break
        parts.push(value)
        this.check((done += value.length), file, most)
        progress?.(done, all)
      }
    } catch (error) {
      abort.abort()
      throw error
    }
    return new Uint8Array(await new Blob(parts).arrayBuffer())
  }

  check(bytes, file, most) {
    if (bytes > most)
      throw new Error(
        `${file} of ${this.name} has ${megabytes(bytes)}; this page loads up to ${megabytes(most)}.`,
      )
  }

  // The answer for a file, or null where the repository has none such.
  async ask(file, options) {
    const answer = await fetch(this.address + file, {
      credentials: "omit",
      referrerPolicy: "no-referrer",
      ...options,
    }).catch(() => {
      throw new Error(`The Hub cannot be reached at ${new URL(this.address).origin}.`)
    })
    if (answer.ok) return answer
    const { status } = answer
    const code = answer.headers.get("x-error-code")
    if (code === "EntryNotFound") return null
    if (code === "GatedRepo" || status === 403)
      throw new Error(
        `Access to ${this.name} is restricted, and this page opens only what everybody may read.`,
      )
    // To a visitor without a token, the Hub does not tell these two apart.
    if (status === 401 || status === 404)
      throw new Error(
        `There is no public model ${this.name} on the Hub: it does not exist, or it is private.`,
      )
    throw new Error(`The Hub answered ${status} for ${this.name}: try again later.`)
  }
}

const bytesOf = (answer) =>
  Number(answer?.headers.get("x-linked-size") ?? answer?.headers.get("content-length") ?? 0)
