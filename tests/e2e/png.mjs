// png.mjs - reads the pictures that the studio writes: 8 bits, RGB or RGBA, not interlaced. The PNG specification (W3C),
// sections 7 (filters) and 11 (chunks).
import { inflateSync } from 'node:zlib'

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
