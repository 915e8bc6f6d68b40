// The page: opens models, and shows one of five tabs of the one that is open.

import { about } from "./about.js"
import { CLOSED } from "./client.js"
import { explore } from "./explore.js"
import { generate } from "./generate.js"
import { interpolate } from "./interpolate.js"
import { open } from "./open.js"
import { reconstruct } from "./reconstruct.js"
import { Hub, HUB_ID, Inlined } from "./source.js"

const find = (id) => document.getElementById(id)
const settings = JSON.parse(find("settings").textContent)
const menu = find("model")
const message = find("message")
const loading = find("loading")
const inlined = new Map(
  [...document.querySelectorAll("script[data-model]")].map((e) => [e.dataset.model, e]),
)

// What the tabs share: the model that is open, and what they do to the page around them.
const app = {
  entry: null,
  say(words) {
    message.textContent = words
    message.hidden = !words
  },
  failed({ message }) {
    if (message !== CLOSED) app.say(message) // of a model that is no longer shown
  },
  // Shows a tab, with a picture to go on with if there is one.
  go(name, pixels) {
    for (const tab of document.querySelectorAll("[role=tab]")) {
      const chosen = tab.id === `tab-${name}`
      tab.setAttribute("aria-selected", chosen)
      tab.tabIndex = chosen ? 0 : -1
      find(tab.getAttribute("aria-controls")).hidden = !chosen
    }
    if (app.shown !== name) tabs[app.shown]?.leave?.()
    app.shown = name
    app.remember({ tab: name === "generate" ? null : name })
    if (app.entry) start(name, pixels)
  },
  // The address says what is shown, so that it can be shared. Of a file, only what follows # may
  // change.
  remember(said) {
    for (const [name, value] of Object.entries(said))
      value === null ? asked.delete(name) : asked.set(name, value)
    try {
      history.replaceState(null, "", (location.protocol === "file:" ? "#" : "?") + asked)
    } catch {} // Safari takes 100 in half a minute; the next one will say this, too
  },
  asked: (name) => asked.get(name),
}
const asked = new URLSearchParams(location.search || location.hash.slice(1))
const tabs = {
  generate: generate(app),
  reconstruct: reconstruct(app),
  interpolate: interpolate(app),
  explore: explore(app),
  about: about(app),
}
const started = new Set()

async function start(name, pixels) {
  const first = !started.has(name)
  started.add(name)
  try {
    await tabs[name].show({ first, pixels })
  } catch (error) {
    app.failed(error)
  }
}

let choices = 0
async function choose(name) {
  const mine = ++choices
  app.say("")
  loading.hidden = false
  try {
    if (!inlined.has(name) && !settings.hub)
      throw new Error(`There is no model ${name} in this file.`)
    const source = inlined.has(name) ? new Inlined(inlined.get(name)) : new Hub(settings.hub, name)
    const entry = await open(source, name, (words, share) => {
      if (mine !== choices) return
      find("progress").textContent = words
      const bar = loading.querySelector("progress")
      share === undefined ? bar.removeAttribute("value") : (bar.value = share)
    })
    if (mine !== choices) return entry.model.close()
    app.remember(app.entry ? { model: name, seed: null } : { model: name })
    app.entry?.model.close()
    app.entry = entry
    globalThis.hfvae = { model: entry.model }
    if (![...menu.options].some((option) => option.value === name)) menu.add(new Option(name, name))
    menu.value = name
    find("facts").textContent = entry.facts
    document.documentElement.style.setProperty("--shape", entry.frame.width / entry.frame.height)
    document.title = `${name} · hfvae`
    find("main").inert = false
    // Which empties it as well.
    for (const canvas of document.querySelectorAll(".stage")) canvas.width = entry.frame.width
    started.clear()
    start(app.shown)
  } catch (error) {
    if (mine !== choices) return
    app.failed(error)
    if (app.entry) menu.value = app.entry.name
  } finally {
    if (mine === choices) loading.hidden = true
  }
}

for (const name of settings.models) menu.add(new Option(name, name))
menu.onchange = () => choose(menu.value)
find("open").hidden = !settings.hub
find("open").onsubmit = (event) => {
  event.preventDefault()
  const name = find("id").value.trim()
  if (!HUB_ID.test(name)) return app.say("A model of the Hub is called owner/name.")
  choose(name)
}
const bar = document.querySelector("[role=tablist]")
bar.onclick = ({ target }) => target !== bar && app.go(target.getAttribute("aria-controls"))
bar.onkeydown = (event) => {
  const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key]
  if (!step) return
  const all = [...bar.children]
  const next = all.at((all.indexOf(event.target) + step) % all.length)
  next.focus()
  app.go(next.getAttribute("aria-controls"))
}

app.go(asked.get("tab") in tabs ? asked.get("tab") : "generate")
const first = asked.get("model") ?? settings.models[0]
if (first) choose(first)
