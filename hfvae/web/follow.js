// A place on a surface that a mouse, a finger or the arrow keys move.

export const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }

/** `to(x, y)`: the place, in shares of the surface; `by(dx, dy)`: a key's step from where it was. */
export function follow(surface, to, by) {
  surface.onpointerdown = (event) => {
    surface.setPointerCapture(event.pointerId)
    to(event.offsetX / surface.clientWidth, event.offsetY / surface.clientHeight)
  }
  surface.onpointermove = (event) => event.buttons && surface.onpointerdown(event)
  surface.onkeydown = (event) => {
    const step = ARROWS[event.key]
    if (!step) return
    event.preventDefault()
    by(...step)
  }
}
