// Pictures for the mock server: a misty landscape drawn from a seed, as a PNG with A1111 parameters.
import { crc32, deflateSync } from 'node:zlib';

function random(seed) {
  let s = (seed ^ 0x9e3779b9) >>> 0;
  return () => {
    s = (s + 0x6d2b79f5) >>> 0;
    let t = Math.imul(s ^ (s >>> 15), 1 | s);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}
const mix = (a, b, t) => a.map((x, i) => x + (b[i] - x) * t);

function hsl(h, s, l) {
  const f = (n) => {
    const k = (n + h / 30) % 12;
    return 255 * (l - s * Math.min(l, 1 - l) * Math.max(-1, Math.min(k - 3, 9 - k, 1)));
  };
  return [f(0), f(8), f(4)];
}

/** One mountain ridge: height (0..1 from the top) for x in 0..1, as a sum of octaves of value noise. */
function ridge(rand, base, height) {
  const octaves = [3, 7, 15, 31].map((n) => ({ n, v: Array.from({ length: n + 2 }, rand) }));
  return (x) =>
    octaves.reduce((y, { n, v }, i) => {
      const at = x * n,
        k = Math.floor(at),
        t = at - k;
      const smooth = t * t * (3 - 2 * t);
      return y - ((v[k] + (v[k + 1] - v[k]) * smooth) * height) / 2 ** i;
    }, base);
}

function landscape(seed) {
  const rand = random(seed);
  const hue = rand() * 360;
  const sky = [hsl(hue, 0.55, 0.22 + rand() * 0.25), hsl((hue + 40) % 360, 0.75, 0.78)];
  const far = hsl((hue + 30) % 360, 0.35, 0.66);
  const near = hsl((hue + 330) % 360, 0.45, 0.1);
  const sun = {
    x: 0.2 + rand() * 0.6,
    y: 0.2 + rand() * 0.22,
    r: 0.05 + rand() * 0.07,
    c: hsl((hue + 60) % 360, 0.9, 0.9),
  };
  const ridges = Array.from({ length: 6 }, (_, i) => ({
    at: ridge(rand, 0.62 + i * 0.095, 0.2 - i * 0.012),
    c: mix(far, near, (i / 5) ** 0.9),
  }));
  return (x, y, aspect) => {
    let c = mix(sky[0], sky[1], Math.min(1, y * 1.5));
    const d = Math.hypot((x - sun.x) * aspect, y - sun.y);
    c = mix(c, sun.c, d < sun.r ? 1 : 0.75 * Math.exp(-(d - sun.r) * 9));
    for (const [i, r] of ridges.entries()) {
      const top = r.at(x);
      if (y > top) c = mix(r.c, sky[1], Math.min(0.75, (y - top) * 2.6) * (1 - i / 7));
    }
    return c;
  };
}

function chunk(type, data) {
  const body = Buffer.concat([Buffer.from(type, 'latin1'), data]);
  const out = Buffer.alloc(body.length + 8);
  out.writeUInt32BE(data.length, 0);
  body.copy(out, 4);
  out.writeUInt32BE(crc32 ? crc32(body) : crc(body), body.length + 4);
  return out;
}
function crc(buf) {
  let c = ~0;
  for (const b of buf) {
    c ^= b;
    for (let k = 0; k < 8; k++) c = (c >>> 1) ^ (0xedb88320 & -(c & 1));
  }
  return ~c >>> 0;
}

/** `noise` 0..1 covers the picture with grain, as a preview of an early step has it. */
export function png(seed, width, height, { noise = 0, parameters = null } = {}) {
  const at = landscape(seed);
  const grain = random(seed + 1);
  const raw = Buffer.alloc((width * 3 + 1) * height);
  for (let y = 0, o = 0; y < height; y++) {
    raw[o++] = 0;
    for (let x = 0; x < width; x++) {
      const c = at(x / width, y / height, width / height);
      for (let k = 0; k < 3; k++)
        raw[o++] = Math.max(0, Math.min(255, c[k] * (1 - noise) + (noise ? grain() * 255 * noise : 0)));
    }
  }
  const head = Buffer.alloc(13);
  head.writeUInt32BE(width, 0);
  head.writeUInt32BE(height, 4);
  head.set([8, 2, 0, 0, 0], 8);
  return Buffer.concat([
    Buffer.from([0x89, 0x50, 0x4e, 0x47, 0x0d, 0x0a, 0x1a, 0x0a]),
    chunk('IHDR', head),
    ...(parameters ? [chunk('tEXt', Buffer.from(`parameters\0${parameters}`, 'latin1'))] : []),
    chunk('IDAT', deflateSync(raw, { level: 6 })),
    chunk('IEND', Buffer.alloc(0)),
  ]);
}

/** The `parameters` text of a PNG made by A1111 or by us, or null. */
export function readParameters(file) {
  for (let o = 8; o + 8 <= file.length;) {
    const size = file.readUInt32BE(o);
    const text = file.toString('latin1', o + 8, o + 8 + size);
    if (file.toString('latin1', o + 4, o + 8) === 'tEXt' && text.startsWith('parameters\0')) return text.slice(11);
    o += size + 12;
  }
  return null;
}
