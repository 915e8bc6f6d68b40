// The model of model.js as promises: it runs in a worker, and the page never waits for it.
//
//   import { load } from "./client.js"
//   const model = await load(configText, weightsBuffer)          // the buffer is given away
//   const pixels = await model.sample(16, seed, 1)
//
// Every method of Model is here, and takes what that takes. After them, an option
// {purpose: "drag"} says what a call is for: one for the same purpose that has not begun when a
// newer one comes is dropped, and its promise gives null.

const METHODS = [
  "encode", "decode", "reconstruct", "interpolate", "between", "traverse", "axes", "codes",
  "decodeCodes",
]

export const startWorker = () => new Worker(new URL("./worker.js", import.meta.url), { type: "module" })

/**
 * A model in a worker of its own; `model.close()` ends it.
 *
 * @throws Error whose message says in a sentence why this is no model that the page can run
 */
export async function load(configText, weightsBuffer, worker = startWorker()) {
  const client = new Client(worker)
  try {
    Object.assign(client, await client.call("load", [configText, weightsBuffer], {}, [weightsBuffer]))
  } catch (error) {
    client.close()
    throw error
  }
  return client
}

class Client {
  /** config, and of Model.facts: latents {view, shape, events, codebookSize}, samples */
  constructor(worker) {
    this.worker = worker
    this.calls = new Map() // those that the worker has
    this.purposes = new Map() // what is running, and the newest that waits for it
    this.count = 0
    worker.onmessage = ({ data }) => this.hear(data)
    worker.onerror = (event) => this.fail(new Error(event.message ?? "the worker ended"))
  }

  close() {
    this.worker.terminate()
    this.fail(new Error("the model was closed"))
  }

  /**
   * n images, as Model.sample gives them.
   *
   * @param options.each called with each image (C, H, W) and its number as soon as it is there
   * @param options.signal an AbortSignal that ends the call, whose promise then gives null
   */
  async sample(n, seed, temperature = 1, noise = null, { each, ...options } = {}) {
    const images = []
    const part = (image) => {
      each?.(image, images.length)
      images.push(image)
    }
    const done = await this.call("samples", [n, seed, temperature, noise], { ...options, part })
    if (done === DROPPED) return null
    const all = new Float32Array(images.reduce((sum, image) => sum + image.length, 0))
    images.forEach((image, i) => all.set(image, i * image.length))
    return all
  }

  call(method, args, { purpose, part, signal } = {}, transfer = []) {
    return new Promise((resolve, reject) => {
      const call = { method, args, purpose, part, signal, transfer, resolve, reject }
      const running = purpose && this.purposes.get(purpose)
      if (!running) return this.send(call)
      running.next?.resolve(DROPPED)
      running.next = call
    })
  }

  send(call) {
    const id = this.count++
    this.calls.set(id, call)
    if (call.purpose) this.purposes.set(call.purpose, { next: null })
    call.signal?.addEventListener("abort", () => {
      if (!this.calls.has(id)) return
      this.worker.postMessage({ method: "cancel", args: [id] })
      this.end(id, call).resolve(DROPPED)
    })
    this.worker.postMessage({ id, method: call.method, args: call.args }, call.transfer)
  }

  hear({ id, part, result, error, name }) {
    const call = this.calls.get(id)
    if (!call) return
    if (part) return call.part(part)
    this.end(id, call)
    if (error === undefined) return call.resolve(result)
    call.reject(Object.assign(new Error(error), { name }))
  }

  end(id, call) {
    this.calls.delete(id)
    if (call.purpose) {
      const { next } = this.purposes.get(call.purpose)
      this.purposes.delete(call.purpose)
      if (next) this.send(next)
    }
    return call
  }

  fail(error) {
    for (const call of this.calls.values()) call.reject(error)
    for (const { next } of this.purposes.values()) next?.reject(error)
    this.calls.clear()
    this.purposes.clear()
  }
}

const DROPPED = Symbol("dropped")

for (const method of METHODS) {
  Client.prototype[method] = async function (...args) {
    const last = args.at(-1)
    const options = last?.purpose ? args.pop() : {}
    const found = await this.call(method, args, options)
    return found === DROPPED ? null : found
  }
}
