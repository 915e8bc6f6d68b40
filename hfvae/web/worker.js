// Runs a model beside the page, one step of one call after another, so that a long call, which
// gives its images one by one, never keeps a short one waiting.
//
// In:  {id, method, args}; method "load", one of Model's, or "cancel" with the id of a call.
// Out: {id, part} for each image of `sample`, then {id, result} or {id, error, name}.

import { load } from "./model.js"

let model
const calls = new Map() // by id, in turn

self.onmessage = ({ data: { id, method, args } }) => {
  if (method === "cancel") return calls.delete(args[0])
  calls.set(id, steps(method, args))
  if (calls.size === 1) turn()
}

async function* steps(method, args) {
  if (method === "load") {
    model = await load(...args)
    return model.facts
  }
  if (method === "samples") {
    for (const image of model.samples(...args)) yield image
    return null
  }
  return model[method](...args)
}

async function turn() {
  while (calls.size) {
    const [id, call] = calls.entries().next().value
    try {
      const { done, value } = await call.next()
      if (!calls.delete(id)) continue // cancelled meanwhile
      self.postMessage(done ? { id, result: value } : { id, part: value }, buffers(value))
      if (!done) calls.set(id, call) // behind the others
    } catch (error) {
      calls.delete(id)
      self.postMessage({ id, error: error.message, name: error.constructor.name })
    }
    await new Promise((resume) => {
      const { port1, port2 } = new MessageChannel()
      port1.onmessage = resume
      port2.postMessage(null)
    })
  }
}

const buffers = (value) => (value instanceof Float32Array ? [value.buffer] : [])
