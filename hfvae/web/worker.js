// Runs a model beside the page, a step of one call after a step of another, so that a long call,
// which gives its images one by one, keeps no short one waiting.
//
// In:  {id, method, args}: "load", or a method of Model; {cancel}: the id of a call to "sample".
// Out: {id, image} for each image of "sample", and {id, result} or {id, error, name} at the end.

import { load } from "./model.js"

let model
const calls = new Map() // by id, in turn

self.onmessage = ({ data: { id, method, args, cancel } }) => {
  if (cancel !== undefined) {
    // It may have ended already.
    if (calls.delete(cancel)) self.postMessage({ id: cancel, result: null })
    return
  }
  calls.set(id, steps(method, args))
  if (calls.size === 1) run()
}

async function* steps(method, args) {
  if (method === "load") {
    model = await load(...args)
    return model.facts
  }
  if (method === "sample") return yield* model.samples(...args)
  return model[method](...args)
}

async function run() {
  while (calls.size) {
    const [id, call] = calls.entries().next().value
    let answer
    try {
      const { done, value } = await call.next()
      answer = done ? { result: value } : { image: value }
    } catch ({ message, constructor }) {
      answer = { error: message, name: constructor.name }
    }
    if (calls.delete(id)) {
      const numbers = answer.image ?? answer.result
      const given = numbers instanceof Float32Array ? [numbers.buffer] : []
      self.postMessage({ id, ...answer }, given)
      if (answer.image) calls.set(id, call) // behind the others
    }
    await new Promise((resume) => { // hear what came meanwhile
      const { port1, port2 } = new MessageChannel()
      port1.onmessage = resume
      port2.postMessage(null)
    })
  }
}
