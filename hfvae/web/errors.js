// What loading a model raises: a sentence that says why.

export class HubError extends Error {}

export const quoted = (value) => (JSON.stringify(value) ?? String(value)).slice(0, 80)
export const isObject = (x) => typeof x === "object" && x !== null && !Array.isArray(x)
