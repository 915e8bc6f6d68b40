// One at a time, and of what was asked meanwhile only the newest: nothing queues up behind a mouse.
// What was asked of a model that is no longer shown is dropped.
export function latest(app, work) {
  let busy = false
  let next = null
  return async (...asked) => {
    next = [app.entry, ...asked]
    if (busy) return
    busy = true
    while (next) {
      const [entry, ...now] = next
      next = null
      try {
        if (entry === app.entry) await work(entry, ...now)
      } catch (error) {
        app.failed(error)
      }
    }
    busy = false
  }
}
