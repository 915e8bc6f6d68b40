// One at a time, and of what was asked meanwhile only the newest: nothing queues up behind a mouse.
export function latest(work, failed) {
  let busy = false
  let next = null
  return async (...asked) => {
    next = asked
    if (busy) return
    busy = true
    try {
      while (next) {
        const now = next
        next = null
        await work(...now)
      }
    } catch (error) {
      failed(error)
    } finally {
      busy = false
    }
  }
}
