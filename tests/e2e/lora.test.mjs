// lora.test.mjs - LoRAs from a prompt's tags and from the list, put on and taken off without loading the model anew.
import { after, before, test } from 'node:test'
import assert from 'node:assert/strict'
import { copyFileSync, mkdirSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { decodePng } from './picture.mjs'
import { Studio, tinyModels, until } from './studio.mjs'

const small = { width: 64, height: 64, steps: 3, seed: 7 }
const slow = { width: 128, height: 128, steps: 40, seed: 42 }

let s
before(async () => {
  s = await Studio.start()
  await s.loadImageModel()
})
after(() => s.cleanup())

const file = async (url) => Buffer.from(await (await fetch(s.base + url)).arrayBuffer())
const draw = async (more, status = 200) => {
  const r = await s.post('/v1/images/generations', { ...small, ...more, response_format: 'url' }, status)
  return status === 200 ? { ...r, png: await file(r.data[0].url) } : r.error
}
/** The pixels, without the text beside them. */
const pixels = ({ png }) => {
  const p = decodePng(png)
  return Array.from({ length: p.height }, (_, y) => Array.from({ length: p.width }, (_, x) => p.at(x, y)).flat()).flat()
}
const difference = (a, b) => {
  const p = pixels(a), q = pixels(b)
  return p.reduce((sum, v, i) => sum + Math.abs(v - q[i]), 0) / p.length
}
const text = (png) => png.toString('utf8')

test('they are listed with the names they go by', async () => {
  const { data } = await s.get('/v1/loras')
  const one = data.find((l) => l.name === 'tiny-lora')
  assert.deepEqual({ ...one, size: 0 }, { name: 'tiny-lora', alias: 'Tiny Style', id: 'loras/tiny-lora.safetensors', title: null,
    family: 'sd1', size: 0, supported: true, reason: null })
  assert.equal(data.find((l) => l.name === 'foreign').family, 'sdxl')
  assert.ok(data.every((l) => !/tiny-(sd|vae|clip|llm)/.test(l.name)))
})

test('on, off, on again: the same bytes each time, and the model is loaded once', async () => {
  const from = s.mark()
  const plain = await draw({ prompt: 'a red fox' })
  const worn = await draw({ prompt: 'a red fox<lora:tiny-lora:0.8>' })
  assert.deepEqual((await draw({ prompt: 'a red fox' })).png, plain.png)
  const other = await draw({ prompt: 'a red fox<lora:tiny-loha:0.8><lora:tiny-dora:-0.5:0.4>' })
  assert.deepEqual((await draw({ prompt: 'a red fox<lora:tiny-lora:0.8>' })).png, worn.png)
  assert.deepEqual((await draw({ prompt: 'a red fox' })).png, plain.png)
  for (const [a, b] of [[plain, worn], [plain, other], [worn, other]]) assert.ok(difference(a, b) > 5, `${difference(a, b)}`)
  assert.doesNotMatch(s.log.slice(from), /loaded 'tiny-sd1/)
  assert.match(text(worn.png), /a red fox<lora:tiny-lora:0\.8>\n/) // as A1111 keeps it
})

test('the list does what tags do, under each name', async () => {
  const plain = await draw({ prompt: 'a fox ' }), tag = await draw({ prompt: 'a fox <lora:tiny-lora:0.25:0.5>' })
  for (const name of ['tiny-lora', 'loras/tiny-lora', 'tiny-lora.safetensors', 'Tiny Style']) {
    const list = await draw({ prompt: 'a fox ', loras: [{ name, weight: 0.5, te_weight: 0.25 }] })
    assert.deepEqual(pixels(list), pixels(tag), name)
    assert.match(text(list.png), /a fox {2}<lora:tiny-lora:0\.25:0\.5>\n/)
    assert.deepEqual(list.parameters.loras, [{ name, weight: 0.5, te_weight: 0.25 }])
  }
  const both = await draw({ prompt: 'a fox <lyco:tiny-lora:0.125:0.25>', loras: [{ name: 'tiny-lora', strength: 0.25, te_weight: 0.125 }] })
  // Half and half is the whole, but for what two sums round in bfloat16, in a network of random weights.
  assert.ok(difference(both, tag) < difference(plain, tag) / 10, `${difference(both, tag)} of ${difference(plain, tag)}`)
  const again = await draw({ ...(await s.get('/v1/history/images?limit=1')).data[0].params })
  assert.deepEqual(again.png, both.png)
})

test('what cannot be is said by name', async () => {
  for (const [body, param, message] of [
    [{ prompt: 'a <lora:tiny-lorra:1>' }, 'prompt', /there is no LoRA 'tiny-lorra'; did you mean 'tiny-lora'/],
    [{ prompt: 'a', loras: ['tiny-lokkr'] }, 'loras[0].name', /no LoRA 'tiny-lokkr'; did you mean 'tiny-lokr'/],
    [{ prompt: 'a <lora:tiny-lora:much>' }, 'prompt', /'<lora:tiny-lora:much>': not a number: much/],
    [{ prompt: 'a', loras: [{ name: 'tiny-lora', weight: 1000 }] }, 'loras[0].weight', /weight: 1000 is not between -100 and 100/],
    [{ prompt: 'a', loras: ['tiny-sd1-f16'] }, 'loras[0].name', /no LoRA 'tiny-sd1-f16'/],
  ]) {
    const e = await draw(body, 400)
    assert.equal(e.param, param, e.message)
    assert.match(e.message, message)
  }
})

test('a LoRA for another family is refused, with both named, and the next picture is right', async () => {
  await s.loadImageModel('tiny-sd2-f32.safetensors')
  const plain = await draw({ prompt: 'a fox' })
  const e = await draw({ prompt: 'a <lora:tiny-lora>' }, 400) // only the worker knows its widths
  assert.equal(e.code, 'unsupported')
  assert.match(e.message, /'tiny-lora\.safetensors', a LoRA for Stable Diffusion 1\.x, the model is Stable Diffusion 2\.x: .* is for a weight of/)
  assert.deepEqual((await draw({ prompt: 'a fox' })).png, plain.png)
  await s.loadImageModel()
})

test('two files of one name: the error lists both, and a path tells them apart', async () => {
  const folder = join(s.models, 'more')
  mkdirSync(folder)
  copyFileSync(join(tinyModels(), 'loras/tiny-lokr.safetensors'), join(folder, 'tiny-lora.safetensors'))
  await s.post('/v1/models/refresh')
  const e = await draw({ prompt: 'a <lora:tiny-lora>' }, 400)
  assert.match(e.message, /LoRA 'tiny-lora' may be 'loras\/tiny-lora\.safetensors', 'more\/tiny-lora\.safetensors'/)
  const one = await draw({ prompt: 'a <lora:more/tiny-lora>' }), same = await draw({ prompt: 'a <lora:tiny-lokr>' })
  assert.deepEqual(pixels(one), pixels(same))
  rmSync(folder, { recursive: true })
  await s.post('/v1/models/refresh')
})

test('a file that has just come is found', async () => {
  copyFileSync(join(tinyModels(), 'loras/tiny-locon.safetensors'), join(s.models, 'fresh one.safetensors'))
  const fresh = await draw({ prompt: 'a <lora:fresh one:0.5>' }), same = await draw({ prompt: 'a <lora:tiny-locon:0.5>' })
  assert.deepEqual(pixels(fresh), pixels(same))
})

test('a worker killed in the middle: the picture comes out as if nothing had happened', async () => {
  const job = { type: 'txt2img', ...slow, prompt: 'a red cube <lora:tiny-lora:0.7>', loras: [{ name: 'tiny-lokr', weight: 0.6 }] }
  const whole = await s.jobEnd((await s.post('/v1/jobs', job, 202)).id)
  const broken = await s.post('/v1/jobs', job, 202)
  await until('a checkpoint', async () => (await s.get(`/v1/jobs/${broken.id}`)).step >= 12)
  await s.kill('sd')
  const end = await s.jobEnd(broken.id)
  assert.deepEqual([end.status, end.attempts], ['done', 2])
  assert.deepEqual(await file(end.results[0].url), await file(whole.results[0].url))
})
