// A model's card as elements of the page: headings, paragraphs, lists, tables, code, bold, links.
// The text comes from a stranger: it only ever becomes text, and nothing that it names is fetched.

const INLINE =
  /`([^`\n]+)`|\*\*([^*\n]+)\*\*|\*([^*\s][^*\n]*)\*|(!?)\[([^[\]\n]*)\]\(([^()\s]*)\)/g
const ITEM = /^\s*[-*] /
const MARKUP = /^(#{1,6}\s|\s*[-*] |\||\s*(`{3,}|~{3,})|!\[[^\]]*\]\([^)]*\)\s*$)/

// `pictures`: name -> what makes an element of a picture that lies beside the card.
export function render(markdown, pictures = {}) {
  const lines = markdown
    .replace(/\r/g, "")
    .replace(/^---\n[^]*?\n---\n/, "")
    .split("<!-- Written by hfvae")[0]
    .split("\n")
  const found = document.createDocumentFragment()
  const put = (name, ...inside) => found.appendChild(element(name, ...inside))
  let i = 0
  // The next lines, as long as they go on like this.
  const more = (goesOn) => {
    const start = i
    while (i < lines.length && goesOn(lines[i])) i++
    return lines.slice(start, i)
  }
  while (i < lines.length) {
    const line = lines[i]
    const fence = line.match(/^\s*(`{3,}|~{3,})/)?.[1]
    const heading = line.match(/^(#{1,6})\s+(.*)/)
    const image = line.match(/^!\[[^\]]*\]\(([\w.-]+)\)\s*$/)
    if (fence) {
      i++
      put("pre", element("code", more((next) => !next.trim().startsWith(fence)).join("\n")))
      i++
    } else if (/^\|/.test(line))
      put("div", table(more((next) => /^\|/.test(next)))).className = "table"
    else if (ITEM.test(line))
      put(
        "ul",
        ...more((next) => ITEM.test(next)).map((item) =>
          element("li", ...inline(item.replace(ITEM, ""))),
        ),
      )
    else if (heading || image || !line.trim()) {
      i++
      if (heading) put(heading[1].length < 3 ? "h2" : "h3", ...inline(heading[2]))
      if (image && Object.hasOwn(pictures, image[1])) {
        found.append(pictures[image[1]]())
        delete pictures[image[1]] // once: the card may be long
      }
    } else {
      i++
      put("p", ...inline([line, ...more((next) => next.trim() && !MARKUP.test(next))].join(" ")))
    }
  }
  return found
}

export function element(name, ...inside) {
  const made = document.createElement(name)
  made.append(...inside)
  return made
}

function table(lines) {
  const rows = lines.map((line) =>
    line
      .replace(/^\||\|\s*$/g, "")
      .split(/(?<!\\)\|/)
      .map((cell) => cell.replaceAll("\\|", "|").trim()),
  )
  const ruled = rows[1]?.every((cell) => /^:?-+:?$/.test(cell))
  const made = document.createElement("table")
  rows.forEach((cells, i) => {
    if ((i === 1 && ruled) || cells.every((cell) => !cell)) return
    made.append(
      element(
        "tr",
        ...cells.map((cell) => element(i === 0 && ruled ? "th" : "td", ...inline(cell))),
      ),
    )
  })
  return made
}

function inline(text) {
  const parts = []
  let end = 0
  for (const match of text.matchAll(INLINE)) {
    const [all, code, bold, slanted, picture, words, address] = match
    parts.push(text.slice(end, match.index))
    end = match.index + all.length
    if (code !== undefined) parts.push(element("code", code))
    else if (bold !== undefined) parts.push(element("strong", bold))
    else if (slanted !== undefined) parts.push(element("em", slanted))
    else if (!picture && /^https:\/\//.test(address))
      parts.push(
        Object.assign(element("a", words), {
          href: address,
          rel: "noopener noreferrer nofollow",
          target: "_blank",
        }),
      )
    else parts.push(words)
  }
  return [...parts, text.slice(end)]
}
