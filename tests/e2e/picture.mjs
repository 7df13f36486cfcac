// picture.mjs - looks at the pictures that the studio writes: PNG of 8 bits, RGB or RGBA, not interlaced. The PNG
// specification (W3C), sections 9 (filters) and 11 (chunks).
import assert from 'node:assert/strict'
import { crc32, deflateSync, inflateSync } from 'node:zlib'

function* chunks(file) {
  for (let at = 8; at < file.length;) {
    const size = file.readUInt32BE(at)
    yield { type: file.toString('latin1', at + 4, at + 8), data: file.subarray(at + 8, at + 8 + size) }
    at += 12 + size
  }
}

const paeth = (a, b, c) => {
  const p = a + b - c, pa = Math.abs(p - a), pb = Math.abs(p - b), pc = Math.abs(p - c)
  return pa <= pb && pa <= pc ? a : pb <= pc ? b : c
}
// What each filter adds, from the bytes to the left (a), above (b), and left above (c).
const FILTERS = [() => 0, (a) => a, (a, b) => b, (a, b) => (a + b) >> 1, paeth]

/** {width, height, at(x, y) -> [r, g, b]} */
export function decodePng(file) {
  const all = [...chunks(Buffer.from(file))]
  const head = all.find((c) => c.type === 'IHDR').data
  const width = head.readUInt32BE(0), height = head.readUInt32BE(4)
  const [depth, kind, , , interlace] = head.subarray(8)
  if (depth !== 8 || (kind !== 2 && kind !== 6) || interlace) throw new Error(`PNG of depth ${depth}, colour type ${kind}, interlace ${interlace}`)
  const channels = kind === 2 ? 3 : 4, row = width * channels
  const raw = inflateSync(Buffer.concat(all.filter((c) => c.type === 'IDAT').map((c) => c.data)))
  const px = Buffer.alloc(row * height)
  for (let y = 0; y < height; y++) {
    const filter = FILTERS[raw[y * (row + 1)]]
    for (let x = 0; x < row; x++) {
      const left = x >= channels, up = y > 0, i = y * row + x
      px[i] = raw[y * (row + 1) + 1 + x] + filter(left ? px[i - channels] : 0, up ? px[i - row] : 0, left && up ? px[i - row - channels] : 0)
    }
  }
  return { width, height, at: (x, y) => [...px.subarray((y * width + x) * channels, (y * width + x) * channels + 3)] }
}

/** The file of a picture whose pixel at (x, y) is px(x, y): [r, g, b] or [r, g, b, a]. */
export function encodePng(width, height, px) {
  const channels = px(0, 0).length, rows = Buffer.alloc(height * (1 + width * channels))
  for (let y = 0; y < height; y++)
    for (let x = 0; x < width; x++) rows.set(px(x, y), y * (1 + width * channels) + 1 + x * channels)
  const chunk = (type, data) => {
    const body = Buffer.concat([Buffer.from(type, 'latin1'), data]), out = Buffer.alloc(body.length + 8)
    out.writeUInt32BE(data.length, 0)
    body.copy(out, 4)
    out.writeUInt32BE(crc32(body), body.length + 4)
    return out
  }
  const head = Buffer.alloc(13)
  head.writeUInt32BE(width, 0)
  head.writeUInt32BE(height, 4)
  head.set([8, channels === 3 ? 2 : 6], 8)
  return Buffer.concat([Buffer.from([0x89, 0x50, 0x4e, 0x47, 13, 10, 26, 10]), chunk('IHDR', head), chunk('IDAT', deflateSync(rows)), chunk('IEND', Buffer.alloc(0))])
}

const isRed = ([r, g, b]) => r > 150 && r > g + 125 && r > b + 90
const isBlue = ([r, g, b]) => b > 110 && b > r + 50 && b > g + 25

/** The share of pixels in a square around (x, y) that `is` says yes to; all lengths as parts of the side. */
function share(png, x, y, half, is) {
  let hits = 0, all = 0
  for (let py = Math.round((y - half) * png.height); py < (y + half) * png.height; py++)
    for (let px = Math.round((x - half) * png.width); px < (x + half) * png.width; px++, all++)
      if (is(png.at(px, py))) hits++
  return hits / all
}

/** The middle of all pixels that `is` says yes to, as parts of the sides. */
function middleOf(png, is) {
  let n = 0, sx = 0, sy = 0
  for (let y = 0; y < png.height; y++)
    for (let x = 0; x < png.width; x++) if (is(png.at(x, y))) { n++; sx += x + 0.5; sy += y + 0.5 }
  return [sx / n / png.width, sy / n / png.height]
}

/** One red thing, in the middle unless it may be anywhere, and blue in all corners; in the size of the demo model. */
export function assertRedOnBlue(file, { anywhere = false } = {}) {
  const png = decodePng(file)
  assert.deepEqual([png.width, png.height], [128, 128], 'the size that the model was made for')
  const near = (x, y) => png.at(Math.floor(x * png.width), Math.floor(y * png.height))
  const [x, y] = anywhere ? middleOf(png, isRed) : [0.5, 0.5]
  assert.ok(Number.isFinite(x), 'something is red')
  const red = share(png, x, y, 0.06, isRed)
  assert.ok(red > 0.8, `it is red at ${x}, ${y}: ${red} of that place, ${near(x, y)}`)
  for (const [cx, cy] of [[0.05, 0.05], [0.95, 0.05], [0.05, 0.95], [0.95, 0.95]]) {
    const blue = share(png, cx, cy, 0.045, isBlue)
    assert.ok(blue > 0.8, `the corner at ${cx}, ${cy} is blue: ${blue} of it, ${near(cx, cy)}`)
  }
}
