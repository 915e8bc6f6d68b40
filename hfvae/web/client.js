// The model of model.js as promises: it runs in a worker, and the page never waits for it.
//
//   import { load } from "./client.js"
//   const model = await load(configText, weightsBuffer)          // the buffer is given away
//   const pixels = await model.sample(16, seed, 1)
//
// The methods are those of Model, and take what those take; then, where a page wants them, options:
//   purpose: what a call is for. While one for a purpose runs, only the newest other waits; those
//            that it replaces, and a "sample" that runs, end with null.
//   each: of "sample", called with every image and its number as soon as it is there.

import { joined } from "./arrays.js"

const METHODS = [
  "encode", "decode", "reconstruct", "sample", "interpolate", "between", "traverse", "axes",
  "codes", "decodeCodes", "encodeBase", "decodeBase", "baseOf",
]

export const CLOSED = "the model was closed" // what a call hears then

const startWorker = () => new Worker(new URL("./worker.js", import.meta.url), { type: "module" })

/**
 * A model in a worker of its own: its methods, `config`, `latents` {view, shape, events,
 * codebookSize}, `samples` (whether it can), `letter` (of its prior's base), and `close()`.
 *
 * @throws Error named HubError whose message says why this is no model that the page can run
 */
export async function load(configText, weightsBuffer, worker = startWorker()) {
  const client = new Client(worker)
  try {
    const facts = await client.call("load", [configText, weightsBuffer], {}, [weightsBuffer])
    return Object.assign(client, facts)
  } catch (error) {
    client.close()
    throw error
  }
}

class Client {
  #calls = new Map() // those that the worker has, by id
  #running = new Map() // one for each purpose
  #count = 0
  #ended = null // why it takes no more calls
  #worker

  constructor(worker) {
    this.#worker = worker
    worker.onmessage = ({ data }) => this.#hear(data)
    worker.onerror = (event) => this.#fail(event.message)
  }

  close() {
    this.#worker.terminate()
    this.#fail(CLOSED)
  }

  call(method, args, options = {}, transfer = []) {
    return new Promise((resolve, reject) => {
      if (this.#ended !== null) return reject(new Error(this.#ended))
      const call = { id: this.#count++, method, args, options, transfer, resolve, reject, images: [] }
      const running = this.#running.get(options.purpose)
      if (!running) return this.#send(call)
      running.next?.resolve(null)
      running.next = call
      if (running.method === "sample") this.#worker.postMessage({ cancel: running.id })
    })
  }

  #send(call) {
    const { id, method, args, options, transfer } = call
    this.#calls.set(id, call)
    if (options.purpose) this.#running.set(options.purpose, call)
    this.#worker.postMessage({ id, method, args }, transfer)
  }

  #hear({ id, image, result, error, name }) {
    const call = this.#calls.get(id)
    if (image) {
      call.options.each?.(image, call.images.length)
      call.images.push(image)
      return
    }
    this.#calls.delete(id)
    this.#running.delete(call.options.purpose)
    if (call.next) this.#send(call.next)
    if (error !== undefined) call.reject(Object.assign(new Error(error), { name }))
    else call.resolve(result === undefined ? joined(call.images) : result)
  }

  #fail(message) {
    this.#ended = message
    for (const call of this.#calls.values()) {
      call.reject(new Error(message))
      call.next?.reject(new Error(message))
    }
    this.#calls.clear()
  }
}

for (const method of METHODS) {
  Client.prototype[method] = function (...args) {
    const last = args.at(-1)
    const options = last?.constructor === Object ? args.pop() : {}
    return this.call(method, args, options)
  }
}
