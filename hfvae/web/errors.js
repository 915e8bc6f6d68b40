// What loading a model raises: a sentence that says why.

export class HubError extends Error {}

/** What a file says, as part of a sentence: short, and all of it printable. */
export const quoted = (value) => (JSON.stringify(value) ?? String(value)).slice(0, 80).replace(
  /[^ -~]/g, (c) => `\\u${c.charCodeAt(0).toString(16).padStart(4, "0")}`)

export const isObject = (x) => typeof x === "object" && x !== null && !Array.isArray(x)
