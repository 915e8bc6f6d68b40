// The mean of p(x|z), from the decoder's numbers: hfvae/likelihoods.py.

import { clippedLogisticMean, sigmoid, softplus } from "./functional.js"

const FLOORS = { gaussian: 1 / (256 * Math.sqrt(12)), "discretized-logistic": 0.1 / 255 }

/** (C, H, W) numbers of the decoder -> the mean image in [0, 1], in place. */
export function makeMean(config, tensors) {
  const { likelihood, channels, scale } = config
  let scales = new Float32Array(channels).fill(scale)
  if (likelihood !== "bernoulli" && scale === null) {
    const raw = tensors.take("likelihood.raw_scale", [channels, 1, 1])
    scales = raw.map((value) => FLOORS[likelihood] * Math.exp(softplus(value)))
  }
  const each = {
    bernoulli: sigmoid,
    gaussian: (x) => Math.min(Math.max(x, 0), 1),
    "discretized-logistic": clippedLogisticMean,
  }[likelihood]
  return (params) => {
    const plane = params.length / channels
    for (let i = 0; i < params.length; i++) {
      params[i] = each(params[i], scales[Math.floor(i / plane)])
    }
    return params
  }
}
