// A model's card as elements of the page: headings, paragraphs, lists, tables, code, bold, links. The text
// comes from a stranger: it only ever becomes text, and the page fetches nothing that it names.

const INLINE = /`([^`\n]+)`|\*\*([^*\n]+)\*\*|\*([^*\s][^*\n]*)\*|(!?)\[([^\]\n]*)\]\(([^()\s]*)\)/g
const MARKUP = /^(#{1,6}\s|\s*[-*] |\||\s*(`{3,}|~{3,})|!\[[^\]]*\]\([^)]*\)\s*$)/

// `pictures`: name -> what makes an element of a picture that lies beside the card.
export function render(markdown, pictures = {}) {
  const lines = markdown.replace(/\r/g, "").replace(/^---\n[^]*?\n---\n/, "").split("<!-- Written by hfvae")[0].split("\n")
  const found = document.createDocumentFragment()
  const put = (name, ...inside) => found.appendChild(element(name, ...inside))
  while (lines.length) {
    const line = lines.shift(), fence = line.match(/^\s*(`{3,}|~{3,})/)?.[1]
    const heading = line.match(/^(#{1,6})\s+(.*)/), image = line.match(/^!\[[^\]]*\]\(([\w.-]+)\)\s*$/)
    const while_ = (pattern) => {
      const more = [line]
      while (lines.length && pattern.test(lines[0])) more.push(lines.shift())
      return more
    }
    if (fence) {
      const end = lines.findIndex((other) => other.trim().startsWith(fence))
      const code = lines.splice(0, end < 0 ? lines.length : end + 1)
      put("pre", element("code", (end < 0 ? code : code.slice(0, -1)).join("\n")))
    } else if (heading) put(heading[1].length < 3 ? "h2" : "h3", ...inline(heading[2]))
    else if (/^\|/.test(line)) put("div", table(while_(/^\|/))).className = "table"
    else if (/^\s*[-*] /.test(line)) put("ul", ...while_(/^\s*[-*] /).map((item) => element("li", ...inline(item.replace(/^\s*[-*] /, "")))))
    else if (image) { if (Object.hasOwn(pictures, image[1])) found.append(pictures[image[1]]()) }
    else if (line.trim()) {
      const more = [line]
      while (lines.length && lines[0].trim() && !MARKUP.test(lines[0])) more.push(lines.shift())
      put("p", ...inline(more.join(" ")))
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
  const rows = lines.map((line) => line.replace(/^\||\|\s*$/g, "").split(/(?<!\\)\|/).map((cell) => cell.replaceAll("\\|", "|").trim()))
  const ruled = rows[1]?.every((cell) => /^:?-+:?$/.test(cell)), made = document.createElement("table")
  rows.forEach((cells, i) => {
    if ((i === 1 && ruled) || cells.every((cell) => !cell)) return
    made.append(element("tr", ...cells.map((cell) => element(i === 0 && ruled ? "th" : "td", ...inline(cell)))))
  })
  return made
}

function inline(text) {
  const parts = []
  let end = 0
  for (const { 0: all, 1: code, 2: bold, 3: slanted, 4: picture, 5: words, 6: address, index } of text.matchAll(INLINE)) {
    parts.push(text.slice(end, index))
    end = index + all.length
    if (code !== undefined) parts.push(element("code", code))
    else if (bold !== undefined) parts.push(element("strong", bold))
    else if (slanted !== undefined) parts.push(element("em", slanted))
    else if (!picture && /^https:\/\//.test(address)) parts.push(Object.assign(element("a", words), { href: address, rel: "noopener noreferrer nofollow", target: "_blank" }))
    else parts.push(words)
  }
  return [...parts, text.slice(end)]
}
