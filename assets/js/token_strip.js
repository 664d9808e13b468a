export default function ({ data, parentElement, setTriggerValue }) {
  const strip = parentElement.querySelector("#strip")
  if (!strip) return
  strip.setAttribute("aria-label", data.label)
  const chips = data.chips.map((chip) => {
    if (chip.gap) {
      const gap = document.createElement("span")
      gap.className = "gap"
      gap.textContent = chip.gap
      return gap
    }
    const button = document.createElement("button")
    button.type = "button"
    button.className = chip.marks.join(" ")
    if (!data.clickable) button.classList.add("quiet")
    if (!data.clickable) button.tabIndex = -1
    button.title = chip.title
    button.setAttribute("aria-label", chip.title)
    button.setAttribute("aria-pressed", String(chip.marks.includes("subject")))
    const n = document.createElement("span")
    n.className = "n"
    n.textContent = chip.position
    const text = document.createElement("span")
    text.textContent = chip.text
    if (chip.special) text.className = "special"
    button.append(n, text)
    if (data.clickable) {
      button.onclick = (event) => setTriggerValue("clicked", { position: chip.position, extend: event.shiftKey })
    }
    return button
  })
  const focused = [...strip.children].indexOf(strip.getRootNode().activeElement)
  strip.replaceChildren(...chips)
  if (focused >= 0 && strip.children[focused]) strip.children[focused].focus()
}
