// sdxl.test.mjs - Stable Diffusion XL through the API: a checkpoint, its parts, its LoRAs, and a killed worker.
import { after, before, test } from 'node:test'
import assert from 'node:assert/strict'
import { decodePng } from './picture.mjs'
import { Studio, until } from './studio.mjs'

const XL = 'tiny-sdxl-f32.safetensors'
const small = { prompt: 'a red fox', width: 64, height: 64, steps: 2, seed: 7 }
const slow = { type: 'txt2img', prompt: 'a [red|blue] cube', width: 64, height: 64, steps: 30, seed: 42 }

let s
before(async () => { s = await Studio.start() })
after(() => s.cleanup())

const file = async (url) => Buffer.from(await (await fetch(s.base + url)).arrayBuffer())
const draw = async (more = {}) => {
  const r = await s.post('/v1/images/generations', { ...small, ...more, response_format: 'url' })
  return file(r.data[0].url)
}
const levels = (png) => {
  const p = decodePng(png)
  const all = Array.from({ length: p.height }, (_, y) => Array.from({ length: p.width }, (_, x) => p.at(x, y)).flat()).flat()
  return { width: p.width, height: p.height, span: Math.max(...all) - Math.min(...all) }
}

test('the list says what each file is', async () => {
  const { data } = await s.post('/v1/models/refresh')
  const of = (id) => data.find((m) => m.id === id)
  for (const [id, type, family] of [[XL, 'image', 'sdxl'], ['tiny-sdxl-diffusers', 'image', 'sdxl'], ['tiny-sdxl-refiner-f32.safetensors', 'image', 'sdxl-refiner'],
    ['tiny-ssd-f32.safetensors', 'image', 'sdxl'], ['tiny-sdxl-unet.safetensors', 'diffusion_model', 'sdxl']])
    assert.deepEqual([of(id).type, of(id).family, of(id).supported], [type, family, true], id)
})

test('a checkpoint and its parts make pictures; an empty negative prompt is another one than a space', async () => {
  await s.loadImageModel(XL)
  const whole = await draw()
  const { width, height, span } = levels(whole)
  assert.ok(width === 64 && height === 64 && span > 30)
  assert.ok(!(await draw({ negative_prompt: ' ' })).equals(whole))
  await s.post('/v1/models/load', { model_id: 'tiny-sdxl-unet.safetensors', vae: XL, clip_l: 'tiny-sdxl-clip_l.safetensors', clip_g: 'tiny-sdxl-clip_g.safetensors' })
  assert.ok(levels(await draw()).span > 30)
  const { error } = await s.post('/v1/models/load', { model_id: 'tiny-sdxl-unet.safetensors', vae: XL, clip_l: 'tiny-sdxl-clip_l.safetensors' }, 422)
  assert.match(error.message, /no text encoder clip_g: give one with --clip_g/)
})

test('a LoRA for it comes and goes', async () => {
  await s.loadImageModel(XL)
  const plain = await draw(), worn = await draw({ prompt: 'a red fox<lora:xl-ldm:0.8>' })
  assert.ok(!worn.equals(plain))
  assert.deepEqual(await draw(), plain)
})

const REFINER = 'tiny-sdxl-refiner-f32.safetensors'

test('a refiner takes over within the run; the picture says so, and is read back', async () => {
  await s.loadImageModel(XL)
  const alone = await draw({ steps: 4 }), at = async (switch_at) => draw({ steps: 4, refiner: 'tiny-sdxl-refiner-f32', switch_at })
  const refined = await at(0.5)
  assert.ok(levels(refined).span > 30 && !refined.equals(alone))
  assert.equal((await s.health()).workers.sd.model, XL, 'the model stays the chosen one')
  assert.match(refined.toString('latin1'), /Refiner: tiny-sdxl-refiner-f32, Refiner switch at: 0\.5/)
  const { params } = await s.post('/v1/images/inspect', { image: refined.toString('base64') })
  assert.deepEqual([params.refiner, params.switch_at], [REFINER, 0.5])
  const entry = (await s.get('/v1/history/images?limit=1')).data[0]
  assert.deepEqual([entry.params.refiner, entry.params.switch_at], [REFINER, 0.5])
  const never = decodePng(await at(1)), plain = decodePng(alone)
  for (let y = 0; y < 64; y++) for (let x = 0; x < 64; x++) assert.deepEqual(never.at(x, y), plain.at(x, y))
  for (const [more, status, param, message] of [
    [{ refiner: 'no-such' }, 404, 'refiner', /there is no model 'no-such'/], [{ refiner: 'tiny-sdxl-unet' }, 400, 'refiner', /not a whole checkpoint/],
    [{ refiner: 'tiny-sd1-f16' }, 400, 'refiner', /other latents/], [{ refiner: REFINER, switch_at: 2 }, 400, 'switch_at', /2 is not between 0 and 1/],
  ]) {
    const { error } = await s.post('/v1/images/generations', { ...small, ...more }, status)
    assert.equal(error.param, param, error.message)
    assert.match(error.message, message)
  }
})

test('a worker killed before and behind the switch: the same bytes', async () => {
  const body = { ...slow, refiner: REFINER, switch_at: 0.5 }
  const want = await file((await s.jobEnd((await s.post('/v1/jobs', body, 202)).id, 180000)).results[0].url)
  for (const step of [6, 20]) {
    const broken = await s.post('/v1/jobs', body, 202)
    await until('a checkpoint', async () => (await s.get(`/v1/jobs/${broken.id}`)).step >= step, 60000)
    await s.kill('sd')
    const end = await s.jobEnd(broken.id, 180000)
    assert.deepEqual([end.status, end.attempts], ['done', 2])
    assert.deepEqual(await file(end.results[0].url), want)
  }
})

test('a worker killed in the middle: the same bytes', async () => {
  await s.loadImageModel(XL)
  const whole = await s.jobEnd((await s.post('/v1/jobs', slow, 202)).id, 180000)
  const broken = await s.post('/v1/jobs', slow, 202)
  await until('a checkpoint', async () => (await s.get(`/v1/jobs/${broken.id}`)).step >= 6)
  await s.kill('sd')
  const end = await s.jobEnd(broken.id, 180000)
  assert.deepEqual([end.status, end.attempts], ['done', 2])
  assert.deepEqual(await file(end.results[0].url), await file(whole.results[0].url))
})
