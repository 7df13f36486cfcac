// ip_adapter.test.mjs - a picture as prompt: adapters found and listed, given a picture in every way, refused by name,
// and taken up again after the worker and the server were killed.
import { after, before, test } from 'node:test'
import assert from 'node:assert/strict'
import { decodePng, encodePng } from './picture.mjs'
import { Studio, until } from './studio.mjs'

const small = { prompt: 'a red fox', width: 64, height: 64, steps: 3, seed: 7 }
const slow = { type: 'txt2img', prompt: 'a red cube', width: 96, height: 96, steps: 30, seed: 42 }
const args = ['--threads', '1']
const card = encodePng(96, 64, (x, y) => (x - 48) ** 2 + (y - 32) ** 2 < 400 ? [220, 30, 30] : [30, 30, 160 + (x >> 2)])
const image = card.toString('base64')
const model = 'tiny-ip'

let s
before(async () => {
  s = await Studio.start({ args })
  await s.loadImageModel()
})
after(() => s.cleanup())

const file = async (url) => Buffer.from(await (await fetch(s.base + url)).arrayBuffer())
const draw = async (more, status = 200) => {
  const r = await s.post('/v1/images/generations', { ...small, ...more, response_format: 'url' }, status)
  return status === 200 ? { ...r, png: await file(r.data[0].url) } : r.error
}
const pixels = ({ png }) => {
  const p = decodePng(png)
  return Array.from({ length: p.height }, (_, y) => Array.from({ length: p.width }, (_, x) => p.at(x, y)).flat()).flat()
}
const differ = (a, b, what) => assert.notDeepEqual(pixels(a), pixels(b), what)

test('they are listed, and what may be asked for', async () => {
  const { data, clip_vision } = await s.get('/v1/ip_adapters')
  assert.deepEqual(data.map((a) => [a.name, a.id, a.family, a.supported]).sort(), [
    ['tiny-ip', 'ipadapter/tiny-ip.safetensors', 'sd1', true],
    ['tiny-ip-faceid', 'ipadapter/tiny-ip-faceid.safetensors', 'sd1', false],
    ['tiny-ip-plus', 'ipadapter/tiny-ip-plus.safetensors', 'sd1', true],
    ['tiny-ip-xl', 'ipadapter/tiny-ip-xl.safetensors', 'sdxl', true]])
  assert.match(data.find((a) => !a.supported).reason, /FaceID: not supported/)
  assert.deepEqual(clip_vision.map((a) => [a.id, a.supported]), [['clip_vision/tiny-vision.safetensors', true]])
  assert.deepEqual((await s.get('/v1/options')).limits.ip_adapter_weight, [0, 2])
  const listed = (await s.get('/v1/models')).data
  for (const [id, type] of [['ipadapter/tiny-ip.safetensors', 'ip_adapter'], ['clip_vision/tiny-vision.safetensors', 'clip_vision']])
    assert.equal(listed.find((m) => m.id === id).type, type)
})

test('a picture as base64, as a data URL and by name is the same; each value counts', async () => {
  const plain = await draw({}), first = await draw({ ip_adapter: { model, image } })
  differ(plain, first, 'with and without')
  const again = await draw((await s.get('/v1/history/images?limit=1')).data[0].params)
  assert.deepEqual(again.png, first.png)
  const told = first.parameters.ip_adapter
  assert.match(told.image, /^upload:/)
  assert.deepEqual([told.model, told.clip_vision, told.weight, told.start, told.end],
    ['ipadapter/tiny-ip.safetensors', 'clip_vision/tiny-vision.safetensors', 1, 0, 1])
  for (const one of [{ model: 'ipadapter/tiny-ip.safetensors', image: `data:image/png;base64,${image}` },
    { model: 'tiny-ip.safetensors', clip_vision: 'tiny-vision', image: told.image }])
    assert.deepEqual(pixels(await draw({ ip_adapter: one })), pixels(first))
  assert.deepEqual(pixels(await draw({ ip_adapter: JSON.stringify({ model, image }) })), pixels(first)) // as a form has it
  for (const more of [{ weight: 0.4 }, { end: 0.5 }, { model: 'tiny-ip-plus' }])
    differ(first, await draw({ ip_adapter: { model, image, ...more } }), JSON.stringify(more))
  assert.deepEqual(pixels(await draw({ ip_adapter: { model, image, weight: 0 } })), pixels(plain))
  assert.deepEqual(pixels(await draw({ ip_adapter: null })), pixels(plain))
  const { networks } = await s.post('/v1/images/inspect', { image: first.png.toString('base64') })
  assert.deepEqual(networks, { ip_adapter: { model: told.model, image: null, weight: 1, start: 0, end: 1 } })
  assert.match(first.png.toString('latin1'), /IP-Adapter: "Model: tiny-ip, Weight: 1, Guidance Start: 0, Guidance End: 1"/)
})

test('beside a ControlNet and a LoRA', async () => {
  const control = { controlnet: [{ model: 'tiny-canny', image }], loras: [{ name: 'tiny-lora', weight: 1 }] }
  differ(await draw(control), await draw({ ...control, ip_adapter: { model, image } }), 'all three')
})

test('what cannot be is said by name', async () => {
  for (const [one, param, message, status = 400] of [
    [[], 'ip_adapter', /expected object/],
    [{ image }, 'ip_adapter.model', /model: required/],
    [{ model }, 'ip_adapter.image', /image: required/],
    [{ model: 'tiny-ip-faceid', image }, 'ip_adapter.model', /FaceID: not supported/],
    [{ model: 'tiny-lora', image }, 'ip_adapter.model', /is no IP-Adapter but of type lora/],
    [{ model, image, clip_vision: 'tiny-lora' }, 'ip_adapter.clip_vision', /is no CLIP vision encoder but of type lora/],
    [{ model, image: 'bm90aGluZw==' }, 'ip_adapter.image', /not a PNG, JPEG or WebP/],
    [{ model, image: 'upload:gone.png' }, 'ip_adapter.image', /gone\.png/, 404],
    [{ model, image, weight: 3 }, 'ip_adapter.weight', /3 is not between 0 and 2/],
    [{ model, image, start: 0.8, end: 0.2 }, 'ip_adapter.end', /0\.2 is before start, 0\.8/],
    [{ model: 'tiny-ip-xl', image }, 'ip_adapter.model', /is for sdxl, the model is of sd1/],
  ]) {
    const e = await draw({ ip_adapter: one }, status)
    assert.equal(e.param, param, e.message)
    assert.match(e.message, message)
  }
})

test('worker and server killed in the middle: the picture comes out as if nothing had happened', async () => {
  const job = { ...slow, ip_adapter: { model: 'tiny-ip-plus', image, weight: 0.8 } }
  const whole = await s.jobEnd((await s.post('/v1/jobs', job, 202)).id, 180000)
  const want = await file(whole.results[0].url)
  const broken = await s.post('/v1/jobs', job, 202)
  const step = async (n) => until('a checkpoint', async () => (await s.get(`/v1/jobs/${broken.id}`)).step >= n, 60000)
  await step(8)
  await s.kill('sd')
  await step(14)
  s.process.kill('SIGKILL')
  await s.exited
  const { dir, port } = s
  s = await Studio.start({ dir, port, args })
  const end = await s.jobEnd(broken.id, 180000)
  assert.deepEqual([end.status, end.error], ['done', null])
  assert.deepEqual(await file(end.results[0].url), want)
})
