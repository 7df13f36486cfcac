// controlnet.test.mjs - ControlNets: found and listed, given a picture in every way, refused by name, and taken up again
// after the worker and the server were killed.
import { after, before, test } from 'node:test'
import assert from 'node:assert/strict'
import { readdirSync } from 'node:fs'
import { join } from 'node:path'
import { decodePng, encodePng } from './picture.mjs'
import { Studio, until } from './studio.mjs'

const small = { prompt: 'a red fox', width: 64, height: 64, steps: 3, seed: 7 }
const slow = { type: 'txt2img', prompt: 'a red cube', width: 128, height: 128, steps: 30, seed: 42 }
const args = ['--threads', '1']
const card = encodePng(96, 64, (x, y) => (x - 48) ** 2 + (y - 32) ** 2 < 400 ? [220, 30, 30] : [30, 30, 160 + (x >> 2)])
const image = card.toString('base64')
const model = 'tiny-canny'

let s
before(async () => {
  s = await Studio.start({ args })
  await s.loadImageModel()
})
after(() => s.cleanup())

const file = async (url) => Buffer.from(await (await fetch(s.base + url)).arrayBuffer())
const draw = async (more, status = 200, route = '/v1/images/generations') => {
  const r = await s.post(route, { ...small, ...more, response_format: 'url' }, status)
  return status === 200 ? { ...r, png: await file(r.data[0].url) } : r.error
}
const pixels = ({ png }) => {
  const p = decodePng(png)
  return Array.from({ length: p.height }, (_, y) => Array.from({ length: p.width }, (_, x) => p.at(x, y)).flat()).flat()
}
const differ = (a, b, what) => {
  const p = pixels(a), q = pixels(b), by = p.reduce((sum, v, i) => sum + Math.abs(v - q[i]), 0) / p.length
  assert.ok(by > 2, `${what}: ${by}`)
}

test('they are listed, and what may be asked for', async () => {
  const { data } = await s.get('/v1/controlnets')
  assert.deepEqual(data.map((c) => [c.name, c.id, c.family, c.supported]).sort(), [
    ['tiny-canny', 'controlnet/tiny-canny.safetensors', 'sd1', true],
    ['tiny-diffusers', 'controlnet/tiny-diffusers.safetensors', 'sd1', true],
    ['tiny-xl', 'controlnet/tiny-xl.safetensors', 'sdxl', true]])
  const options = await s.get('/v1/options')
  assert.deepEqual([options.preprocessors, options.control_modes, options.limits.controlnet], [['none', 'canny'], ['balanced', 'prompt', 'control'], 8])
})

test('a picture as base64, as a data URL and by name is the same; each value counts', async () => {
  const plain = await draw({}), first = await draw({ controlnet: [{ model, image }] })
  differ(plain, first, 'with and without')
  const again = await draw((await s.get('/v1/history/images?limit=1')).data[0].params)
  assert.deepEqual(again.png, first.png)
  assert.match(first.parameters.controlnet[0].image, /^upload:/)
  assert.deepEqual(await file(first.parameters.controlnet[0].image.replace('upload:', '/v1/uploads/')), card) // it can be seen again
  await s.get('/v1/uploads/gone.png', 404)
  assert.equal(first.parameters.controlnet[0].model, 'controlnet/tiny-canny.safetensors')
  for (const one of [{ model: 'controlnet/tiny-canny.safetensors', image: `data:image/png;base64,${image}` },
    { model: 'tiny-canny.safetensors', image: first.parameters.controlnet[0].image }])
    assert.deepEqual(pixels(await draw({ controlnet: [one] })), pixels(first))
  assert.deepEqual(pixels(await draw({ controlnet: JSON.stringify([{ model, image }]) })), pixels(first)) // as a form has it
  for (const more of [{ weight: 0.4 }, { end: 0.5 }, { preprocessor: 'canny' }, { mode: 'control' }])
    assert.notDeepEqual(pixels(await draw({ controlnet: [{ model, image, ...more }] })), pixels(first), JSON.stringify(more))
  assert.deepEqual(pixels(await draw({ controlnet: [{ model, image, weight: 0 }] })), pixels(plain))
  const written = first.png.toString('latin1')
  assert.match(written, /ControlNet 0: "Module: none, Model: tiny-canny, Weight: 1, Resize Mode: Crop and Resize, Guidance Start: 0, Guidance End: 1, Control Mode: Balanced"/)
  const { networks } = await s.post('/v1/images/inspect', { image: first.png.toString('base64') })
  assert.deepEqual(networks, { controlnet: [{ ...first.parameters.controlnet[0], image: null }] })
})

test('two at once, in an edit from a form', async () => {
  const form = new FormData()
  form.set('image', new Blob([card], { type: 'image/png' }), 'a.png')
  for (const [k, v] of Object.entries({ ...small, strength: 0.9, response_format: 'url' })) form.set(k, String(v))
  const send = async () => {
    const r = await fetch(`${s.base}/v1/images/edits`, { method: 'POST', body: form })
    const answer = await r.json()
    assert.equal(r.status, 200, JSON.stringify(answer))
    return { png: await file(answer.data[0].url) }
  }
  const plain = await send()
  form.set('controlnet', JSON.stringify([{ model, image, weight: 0.5 }, { model: 'tiny-diffusers', image, preprocessor: 'canny', low_threshold: 20, high_threshold: 60 }]))
  differ(plain, await send(), 'an edit')
})

test('what cannot be is said by name', async () => {
  for (const [unit, param, message, status = 400] of [
    [{ image }, 'controlnet[0].model', /model: required/],
    [{ model }, 'controlnet[0].image', /image: required/],
    [{ model: 'tiny-cany', image }, 'controlnet[0].model', /there is no model 'tiny-cany'/],
    [{ model: 'tiny-lora', image }, 'controlnet[0].model', /is no ControlNet but of type lora/],
    [{ model, image: 'bm90aGluZw==' }, 'controlnet[0].image', /not a PNG, JPEG or WebP/],
    [{ model, image: 'upload:gone.png' }, 'controlnet[0].image', /gone\.png/, 404],
    [{ model, image, weight: 3 }, 'controlnet[0].weight', /3 is not between 0 and 2/],
    [{ model, image, start: 0.8, end: 0.2 }, 'controlnet[0].end', /0\.2 is before start, 0\.8/],
    [{ model, image, preprocessor: 'depth' }, 'controlnet[0].preprocessor', /none of none, canny/],
    [{ model, image, low_threshold: 300 }, 'controlnet[0].high_threshold', /200 is below low_threshold, 300/],
    [{ model: 'tiny-xl', image }, 'controlnet[0].model', /is for sdxl, the model is of sd1/],
  ]) {
    const e = await draw({ controlnet: [unit] }, status)
    assert.equal(e.param, param, e.message)
    assert.match(e.message, message)
  }
})

test('worker and server killed in the middle: the picture comes out as if nothing had happened', async () => {
  const job = { ...slow, controlnet: [{ model, image, preprocessor: 'canny', low_threshold: 40, high_threshold: 90 }] }
  const whole = await s.jobEnd((await s.post('/v1/jobs', job, 202)).id, 120000)
  const want = await file(whole.results[0].url)
  const broken = await s.post('/v1/jobs', job, 202)
  const step = async (n) => until('a checkpoint', async () => (await s.get(`/v1/jobs/${broken.id}`)).step >= n, 60000)
  await step(8)
  await s.kill('sd')
  await step(14)
  assert.equal(readdirSync(join(s.dir, 'data/uploads')).filter((f) => f.endsWith('.png')).length >= 1, true)
  s.process.kill('SIGKILL')
  await s.exited
  const { dir, port } = s
  s = await Studio.start({ dir, port, args })
  const end = await s.jobEnd(broken.id, 120000)
  assert.deepEqual([end.status, end.error], ['done', null])
  assert.deepEqual(await file(end.results[0].url), want)
})
