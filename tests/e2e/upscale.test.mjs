// upscale.test.mjs - pictures enlarged: named in every way, without a model, cancelled, and taken up again after a kill.
import { after, before, test } from 'node:test'
import assert from 'node:assert/strict'
import { readdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { crc32, deflateSync } from 'node:zlib'
import { decodePng } from './picture.mjs'
import { Studio, until } from './studio.mjs'

/** A Real-ESRGAN network of the compact kind with numbers up to `most`; zeros leave every pixel as it is. */
function compact({ width, convs, scale, most }) {
  const header = {}, parts = []
  let at = 0, seed = 1
  const add = (name, shape) => {
    const values = Float32Array.from({ length: shape.reduce((a, b) => a * b) }, () => {
      seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0
      return (seed / 2 ** 31 - 1) * most
    })
    const bytes = Buffer.from(values.buffer)
    header[name] = { dtype: 'F32', shape, data_offsets: [at, at += bytes.length] }
    parts.push(bytes)
  }
  for (let i = 0; i <= convs; i++) {
    const last = i === convs, out = last ? 3 * scale ** 2 : width
    add(`body.${2 * i}.weight`, [out, i ? width : 3, 3, 3])
    add(`body.${2 * i}.bias`, [out])
    if (!last) add(`body.${2 * i + 1}.weight`, [out])
  }
  const text = Buffer.from(JSON.stringify(header)), length = Buffer.alloc(8)
  length.writeBigUInt64LE(BigInt(text.length))
  return Buffer.concat([length, text, ...parts])
}

function png(width, height, colour) {
  const raw = Buffer.alloc((1 + 3 * width) * height)
  for (let y = 0; y < height; y++)
    for (let x = 0; x < width; x++) raw.set(colour(x, y), y * (1 + 3 * width) + 1 + 3 * x)
  const chunk = (type, data) => {
    const body = Buffer.concat([Buffer.from(type), data]), n = Buffer.alloc(4), sum = Buffer.alloc(4)
    n.writeUInt32BE(data.length)
    sum.writeUInt32BE(crc32(body))
    return Buffer.concat([n, body, sum])
  }
  const head = Buffer.alloc(13)
  head.writeUInt32BE(width, 0)
  head.writeUInt32BE(height, 4)
  head.set([8, 2, 0, 0, 0], 8)
  return Buffer.concat([Buffer.from([0x89, 0x50, 0x4e, 0x47, 13, 10, 26, 10]), chunk('IHDR', head), chunk('IDAT', deflateSync(raw)), chunk('IEND', Buffer.alloc(0))])
}

const colours = (x, y) => [(x * 7) % 256, (y * 11) % 256, (x * y) % 256]
const large = png(600, 600, colours)
let s
before(async () => {
  s = await Studio.start()
  writeFileSync(join(s.models, 'double.safetensors'), compact({ width: 8, convs: 1, scale: 2, most: 0 }))
  writeFileSync(join(s.models, 'slow.safetensors'), compact({ width: 8, convs: 2, scale: 2, most: 0.2 }))
  await s.post('/v1/models/refresh')
})
after(() => s.cleanup())

const file = async (url) => Buffer.from(await (await fetch(s.base + url)).arrayBuffer())
const enlarge = async (more, status = 200) => {
  const r = await s.post('/v1/images/upscale', { upscaler: 'double', response_format: 'url', ...more }, status)
  return status === 200 ? { ...r, bytes: await file(r.data[0].url) } : r.error
}
/** Each pixel of `from` n x n times. */
function checkRepeated(bytes, from, n) {
  const a = decodePng(bytes), b = decodePng(from)
  assert.deepEqual([a.width, a.height], [b.width * n, b.height * n])
  for (let y = 0; y < a.height; y++)
    for (let x = 0; x < a.width; x++) assert.deepEqual(a.at(x, y), b.at(Math.floor(x / n), Math.floor(y / n)))
}

test('they are listed with their factor', async () => {
  const { data } = await s.get('/v1/upscalers')
  assert.deepEqual(data.map((u) => ({ ...u, size: 0 })), ['double', 'slow'].map((name) => ({ name, id: `${name}.safetensors`,
    family: 'compact-x2', scale: 2, size: 0, supported: true, reason: null })))
})

test('a picture that comes with the request, and no model is loaded', async () => {
  const small = png(20, 12, colours)
  const r = await enlarge({ image: small.toString('base64') })
  checkRepeated(r.bytes, small, 2)
  assert.match(r.bytes.toString('latin1'), /Postprocess upscale by: 2, Postprocess upscaler: double/)
  checkRepeated((await enlarge({ image: `data:image/png;base64,${small.toString('base64')}`, factor: 4 })).bytes, small, 4)
  const third = decodePng((await enlarge({ image: small.toString('base64'), factor: 3 })).bytes)
  assert.deepEqual([third.width, third.height], [60, 36])
  const form = new FormData()
  form.append('image', new Blob([small], { type: 'image/png' }), 'small.png')
  form.append('upscaler', 'double.safetensors')
  const answer = await fetch(`${s.base}/v1/images/upscale`, { method: 'POST', body: form })
  checkRepeated(Buffer.from((await answer.json()).data[0].b64_json, 'base64'), small, 2)
})

test('a picture of the history, by file and by number, keeps how it was made', async () => {
  await s.loadImageModel()
  const made = await s.post('/v1/images/generations', { prompt: 'a red fox', width: 64, height: 64, steps: 2, seed: 7, response_format: 'url' })
  const before = await file(made.data[0].url), entry = (await s.get('/v1/history/images?limit=1')).data[0]
  const byFile = await enlarge({ image: entry.file }), byNumber = await enlarge({ image_id: entry.id, output_format: 'png' })
  checkRepeated(byFile.bytes, before, 2)
  assert.deepEqual(decodePng(byNumber.bytes).at(9, 9), decodePng(byFile.bytes).at(9, 9))
  const text = byFile.bytes.toString('latin1')
  assert.match(text, /a red fox[^]*Seed: 7[^]*, Postprocess upscale by: 2, Postprocess upscaler: double/)
  const now = (await s.get('/v1/history/images?limit=1')).data[0]
  assert.equal(now.prompt, 'a red fox')
  assert.deepEqual([now.width, now.height, now.seed], [128, 128, 7])
  assert.equal(now.params.type, 'upscale')
  assert.deepEqual([now.params.upscaler, now.params.init_image, now.params.steps], ['double.safetensors', entry.file, 2])
  assert.equal((await s.get(`/v1/jobs/${now.job}`)).type, 'upscale')
})

const hires = { prompt: 'a red fox', width: 64, height: 64, steps: 2, seed: 7 }

test('hires fix with a network of the model folder; the picture says so, and is read back', async () => {
  await s.loadImageModel()
  const make = async (more) => {
    const r = await s.post('/v1/images/generations', { ...hires, hires: { scale: 2, steps: 1, ...more }, response_format: 'url' })
    return { file: r.data[0].file, bytes: await file(r.data[0].url), params: r.parameters }
  }
  const nearest = decodePng((await make({ upscaler: 'nearest' })).bytes), made = await make({ upscaler: 'double' })
  const doubled = decodePng(made.bytes)
  assert.deepEqual([doubled.width, doubled.height], [128, 128])
  for (let y = 0; y < 128; y++) for (let x = 0; x < 128; x++) assert.deepEqual(doubled.at(x, y), nearest.at(x, y)) // zeros repeat pixels
  assert.equal(made.params.hires.upscaler, 'double.safetensors')
  assert.match(made.bytes.toString('latin1'), /Hires upscale: 2, Hires steps: 1, Hires upscaler: double/)
  const { params } = await s.post('/v1/images/inspect', { image: made.file })
  assert.deepEqual(params.hires, { upscaler: 'double.safetensors', scale: 2, strength: 0.7, steps: 1 })
  for (const [name, message] of [['magic', /'magic' is none of latent, .*, nor one of \/v1\/upscalers/], ['tiny-vae', /is no upscaler but of type vae/]]) {
    const { error } = await s.post('/v1/images/generations', { ...hires, hires: { scale: 2, upscaler: name } }, 400)
    assert.equal(error.param, 'hires.upscaler')
    assert.match(error.message, message)
  }
})

test('a worker killed while hires fix enlarges: the same bytes', async () => {
  const body = { type: 'txt2img', ...hires, width: 208, hires: { scale: 2, steps: 1, strength: 0.3, upscaler: 'slow' } }
  const whole = await s.jobEnd((await s.post('/v1/jobs', body, 202)).id, 180000)
  assert.equal(whole.status, 'done', JSON.stringify(whole.error))
  const broken = await s.post('/v1/jobs', body, 202)
  await until('enlarging', async () => (await s.get(`/v1/jobs/${broken.id}`)).phase === 'upscaling', 120000)
  await s.kill('sd')
  const end = await s.jobEnd(broken.id, 180000)
  assert.deepEqual([end.status, end.attempts], ['done', 2])
  assert.deepEqual(await file(end.results[0].url), await file(whole.results[0].url))
  await until('no checkpoint is left', () => readdirSync(join(s.dir, 'data/checkpoints')).length === 0)
})

test('what cannot be is said by name', async () => {
  const image = png(8, 8, colours).toString('base64')
  for (const [body, status, param, message] of [
    [{}, 400, 'image', /required/],
    [{ image: 'no-such-picture.png' }, 404, 'image', /no-such-picture/],
    [{ image_id: 123456 }, 404, 'image_id', /there is no picture 123456/],
    [{ image_id: 'x' }, 400, 'image_id', /number of a picture/],
    [{ image, factor: 9 }, 400, 'factor', /9 is not between/],
    [{ image, factor: 0.5 }, 400, 'factor', /0.5 is not between 1 and 8/],
    [{ image, upscaler: 'duoble' }, 400, 'upscaler', /duoble/],
    [{ image, upscaler: 'tiny-vae' }, 400, 'upscaler', /is no upscaler but of type vae/],
  ]) {
    const e = await enlarge(body, status)
    assert.equal(e.param, param, e.message)
    assert.match(e.message, message)
  }
  const e = (await s.post('/v1/jobs', { type: 'upscale', image, tiles: 3 }, 400)).error
  assert.match(e.message, /tiles/)
})

test('a job tells its tiles; cancelled, it ends at once', async () => {
  const job = await s.post('/v1/jobs', { type: 'upscale', image: large.toString('base64'), upscaler: 'slow' }, 202)
  assert.equal(job.type, 'upscale')
  const running = await until('a tile', async () => {
    const j = await s.get(`/v1/jobs/${job.id}`)
    return j.step >= 1 && j
  }, 120000)
  assert.equal(running.phase, 'upscaling')
  assert.ok(running.steps > 3 && running.step < running.steps)
  assert.equal((await s.get('/v1/progress')).phase, 'upscaling')
  await s.post(`/v1/jobs/${job.id}/cancel`)
  assert.equal((await s.jobEnd(job.id)).status, 'cancelled')
})

test('a worker killed in the middle: the picture comes out as if nothing had happened', async () => {
  const body = { type: 'upscale', image: large.toString('base64'), upscaler: 'slow', factor: 2 }
  const whole = await s.jobEnd((await s.post('/v1/jobs', body, 202)).id, 120000)
  assert.equal(whole.status, 'done', JSON.stringify(whole.error))
  const broken = await s.post('/v1/jobs', body, 202)
  await until('some tiles', async () => (await s.get(`/v1/jobs/${broken.id}`)).step >= 2, 120000)
  await s.kill('sd')
  const end = await s.jobEnd(broken.id, 120000)
  assert.deepEqual([end.status, end.attempts], ['done', 2])
  assert.deepEqual(await file(end.results[0].url), await file(whole.results[0].url))
})
