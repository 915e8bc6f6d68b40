// What loading a model raises: a sentence that says why and what to do.

export class HubError extends Error {}
