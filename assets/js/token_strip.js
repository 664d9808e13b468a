// Chips are kept and changed in place: one that is replaced between press and release of the mouse gets no click.
function chipAt(old, gap) {
  if (old && (old.className === "gap") === gap) return old
  const element = document.createElement(gap ? "span" : "button")
  if (!gap) element.append(document.createElement("span"), document.createElement("span"))
  return element
}

export default function ({ data, parentElement, setTriggerValue }) {
  const strip = parentElement.querySelector("#strip")
  if (!strip) return
  strip.setAttribute("aria-label", data.label)
  data.chips.forEach((chip, index) => {
    const old = strip.children[index]
    const element = chipAt(old, Boolean(chip.gap))
    if (!old) strip.append(element)
    else if (old !== element) old.replaceWith(element)
    if (chip.gap) {
      element.className = "gap"
      element.textContent = chip.gap
      return
    }
    const [n, text] = element.children
    element.type = "button"
    element.className = chip.marks.join(" ")
    if (!data.clickable) element.classList.add("quiet")
    element.tabIndex = data.clickable ? 0 : -1
    element.title = chip.title
    element.setAttribute("aria-label", chip.title)
    element.setAttribute("aria-pressed", String(chip.marks.includes("subject")))
    n.className = "n"
    if (n.textContent !== String(chip.position)) n.textContent = chip.position
    text.className = chip.special ? "special" : ""
    if (text.textContent !== chip.text) text.textContent = chip.text
    element.onclick = data.clickable
      ? (event) => setTriggerValue("clicked", { position: chip.position, extend: event.shiftKey })
      : null
  })
  while (strip.children.length > data.chips.length) strip.lastElementChild.remove()
}
