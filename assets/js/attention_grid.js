// All heads as small pictures on one canvas. Hovering shows a head large, a click locks it (the page is told),
// a double click shows it alone and again all. Everything but the lock stays in the browser.
const NOTHING = 255
const GAP = 4, FRAME = 3, SMALLEST = 18, LARGEST = 76, FLOW = 60, CAPTION = 14, MARGIN = 30, HEADER = 16, ALONE = 220, CARD = 220, NARROW = 600
const memory = new WeakMap() // parent element -> what the user does with this grid between two runs of the page

const headName = (head) => `L${head.layer}H${head.head}`
const sameHead = (one, other) => !!one && !!other && one.layer === other.layer && one.head === other.head

function decode(data) {
  const bytes = Uint8Array.from(atob(data.pixels), (c) => c.charCodeAt(0)), size = data.size * data.size
  return data.heads.map((head, index) => ({ ...head, pixels: bytes.subarray(index * size, (index + 1) * size) }))
}

function painter(data, grey) {
  const small = document.createElement("canvas")
  small.width = small.height = data.size
  const pen = small.getContext("2d"), image = pen.createImageData(data.size, data.size)
  // One 32-bit word per level: red, green, blue and opacity in the order of their bytes.
  const table = new Uint8ClampedArray(4 * 256)
  for (let level = 0; level < 256; level++) {
    const colour = level === NOTHING ? grey : data.colours.slice(level * 3, level * 3 + 3)
    table.set([...colour, 255], level * 4)
  }
  const words = new Uint32Array(table.buffer), pixels = new Uint32Array(image.data.buffer)
  return (context, head, x, y, side) => {
    for (let index = 0; index < pixels.length; index++) pixels[index] = words[head.pixels[index]]
    pen.putImageData(image, 0, 0)
    context.imageSmoothingEnabled = false
    context.drawImage(small, x, y, side, side)
  }
}

// Where every head stands: layers down and heads across, or a flowing row of those that are left.
function layout(data, heads, width, alone) {
  if (alone) {
    const head = heads.find((one) => sameHead(one, alone))
    return { places: head ? [{ head, x: 0, y: 0 }] : [], cell: ALONE, width: ALONE, height: ALONE + CAPTION, named: true }
  }
  if (data.full) {
    const cell = Math.max(SMALLEST, Math.min(LARGEST, Math.floor((width - MARGIN) / data.n_heads)))
    const places = heads.map((head) => ({ head, x: MARGIN + head.head * cell, y: HEADER + head.layer * cell }))
    return { places, cell, width: MARGIN + data.n_heads * cell, height: HEADER + data.n_layers * cell, named: false }
  }
  const columns = Math.max(1, Math.floor(width / FLOW))
  const places = heads.map((head, index) => ({
    head, x: (index % columns) * FLOW, y: Math.floor(index / columns) * (FLOW + CAPTION),
  }))
  const rows = Math.ceil(heads.length / columns)
  return { places, cell: FLOW, width: columns * FLOW, height: rows * (FLOW + CAPTION), named: true }
}

function drawPin(context, x, y, colour, paper) {
  context.fillStyle = colour
  context.strokeStyle = paper
  context.lineWidth = 1.5
  context.beginPath()
  context.arc(x, y, 4.5, 0, 2 * Math.PI)
  context.fill()
  context.stroke()
  context.beginPath()
  context.moveTo(x - 1.5, y + 4)
  context.lineTo(x, y + 11)
  context.lineTo(x + 1.5, y + 4)
  context.fill()
}

export default function ({ data, parentElement, setTriggerValue }) {
  const root = parentElement.querySelector("#attention")
  if (!root) return
  const [grid, big, title, list, note, said] = ["#heads", "#big", "#title", "#numbers", "#note", "#said"].map((id) => root.querySelector(id))
  const state = memory.get(parentElement) ?? { alone: null, hovered: null }
  memory.set(parentElement, state)
  const style = getComputedStyle(root)
  const [ink, paper, accent] = ["--st-text-color", "--st-background-color", "--st-primary-color"].map((name) => style.getPropertyValue(name).trim())
  const heads = decode(data), paint = painter(data, data.grey)
  if (!heads.some((head) => sameHead(head, state.alone))) state.alone = null
  if (!heads.some((head) => sameHead(head, state.hovered))) state.hovered = null
  const still = document.createElement("canvas") // the grid without what follows the pointer
  let plan = layout(data, heads, 300, null)

  function draw() {
    const room = root.clientWidth < NARROW ? root.clientWidth : root.clientWidth - CARD // see the stylesheet
    plan = layout(data, heads, room - 4, state.alone)
    const ratio = window.devicePixelRatio || 1
    for (const canvas of [grid, still]) {
      canvas.width = Math.ceil(plan.width * ratio)
      canvas.height = Math.ceil(plan.height * ratio)
    }
    grid.style.width = `${plan.width}px`
    grid.style.height = `${plan.height}px`
    const context = still.getContext("2d")
    context.scale(ratio, ratio)
    context.font = `11px ${style.fontFamily}`
    context.textBaseline = "middle"
    if (data.full && !state.alone) drawLabels(context)
    plan.places.forEach((place) => drawHead(context, place))
    grid.setAttribute("aria-label", `${data.label}, ${plan.places.length} shown. Arrow keys move, Enter locks, space shows one alone.`)
    follow()
  }

  // What changes with the pointer: an outline, and the card.
  function follow() {
    const context = grid.getContext("2d"), ratio = window.devicePixelRatio || 1
    context.setTransform(1, 0, 0, 1, 0, 0)
    context.clearRect(0, 0, grid.width, grid.height)
    context.drawImage(still, 0, 0)
    const place = plan.places.find((one) => sameHead(one.head, state.hovered))
    if (place) {
      const side = plan.cell - GAP
      context.setTransform(ratio, 0, 0, ratio, 0, 0)
      context.strokeStyle = ink
      context.lineWidth = 1.5
      context.setLineDash([4, 2])
      context.strokeRect(place.x + 1.5, place.y + 1.5, side - 3, side - 3)
      context.setLineDash([])
    }
    show()
  }

  function drawLabels(context) {
    context.fillStyle = ink
    context.textAlign = "right"
    const every = Math.ceil(13 / plan.cell)
    for (let layer = 0; layer < data.n_layers; layer += every) context.fillText(`L${layer}`, MARGIN - 6, HEADER + (layer + 0.5) * plan.cell)
    context.textAlign = "center"
    const step = Math.ceil(26 / plan.cell)
    for (let head = 0; head < data.n_heads; head += step) context.fillText(`H${head}`, MARGIN + (head + 0.5) * plan.cell, HEADER / 2)
  }

  function drawHead(context, { head, x, y }) {
    const side = plan.cell - GAP, inner = side - 2 * FRAME
    context.fillStyle = head.shade < 0 ? `rgb(${data.grey})` : `rgb(${data.shades.slice(head.shade * 3, head.shade * 3 + 3)})`
    context.fillRect(x, y, side, side)
    paint(context, head, x + FRAME, y + FRAME, inner)
    if (sameHead(head, data.locked) || data.pinned.some((pin) => sameHead(head, pin))) {
      context.strokeStyle = accent
      context.lineWidth = sameHead(head, data.locked) ? 3 : 1.5
      context.strokeRect(x - 0.5, y - 0.5, side + 1, side + 1)
      drawPin(context, x + side - 6, y + 6, accent, paper)
    }
    if (!plan.named) return
    context.fillStyle = ink
    context.textAlign = "center"
    context.fillText(`${headName(head)} ${plan.cell > 100 ? head.value : ""}`, x + side / 2, y + plan.cell + CAPTION / 2 - GAP)
  }

  // The head under the pointer, else the locked one, large and with its numbers.
  function show() {
    const head = state.hovered ?? heads.find((one) => sameHead(one, data.locked)) ?? heads[0]
    const context = big.getContext("2d")
    context.clearRect(0, 0, big.width, big.height)
    list.replaceChildren()
    if (!head) return
    paint(context, head, 0, 0, big.width)
    title.textContent = headName(head) + (sameHead(head, data.locked) ? ", shown below" : "")
    head.numbers.forEach((number, index) => {
      const term = document.createElement("dt"), text = document.createElement("dd")
      term.textContent = data.metrics[index]
      text.textContent = number
      if (index === data.metric) term.className = text.className = "shade"
      list.append(term, text)
    })
    note.textContent = `${head.scale} ${state.alone ? "Double-click to see all heads again." : ""}`
    big.setAttribute("aria-label", `Attention of ${headName(head)}, queries down, keys across. ${head.scale}`)
  }

  function hover(head, announce) {
    if (head === state.hovered || sameHead(head, state.hovered)) return
    state.hovered = head
    follow()
    if (announce && head) said.textContent = `${headName(head)}, ${data.metrics[data.metric]} ${head.value}`
  }

  function under(event) {
    const box = grid.getBoundingClientRect(), x = event.clientX - box.left, y = event.clientY - box.top
    const cell = plan.cell // the gap beside a picture belongs to it
    return plan.places.find((place) => x >= place.x && x < place.x + cell && y >= place.y && y < place.y + cell)?.head ?? null
  }

  const lock = (head) => head && setTriggerValue("locked", { layer: head.layer, head: head.head })
  const toggleAlone = (head) => {
    state.alone = state.alone ? null : head
    draw()
  }

  function move(event) {
    const places = plan.places, now = places.findIndex((place) => sameHead(place.head, state.hovered ?? data.locked))
    if (event.key === "Enter") lock(places[now]?.head)
    else if (event.key === " ") toggleAlone(places[now]?.head ?? null)
    else if (event.key === "Escape") hover(null, true)
    else {
      const [dx, dy] = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key] ?? [0, 0]
      if (!dx && !dy) return
      const columns = places.filter((place) => place.y === places[0].y).length || 1
      const next = now < 0 ? 0 : now + dx + dy * columns
      if (places[next]) hover(places[next].head, true)
    }
    event.preventDefault()
  }

  grid.onpointermove = (event) => hover(under(event), false)
  grid.onpointerleave = () => hover(null, false)
  grid.onclick = (event) => lock(under(event))
  grid.ondblclick = (event) => toggleAlone(under(event))
  grid.onkeydown = move
  const watch = new ResizeObserver(draw)
  watch.observe(root)
  draw()
  return () => watch.disconnect()
}
