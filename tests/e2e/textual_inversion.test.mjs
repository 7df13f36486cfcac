// textual_inversion.test.mjs - embeddings named in prompts: found, used, noted, and the same after a crash.
import { after, before, test } from 'node:test'
import assert from 'node:assert/strict'
import { mkdirSync, renameSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { decodePng } from './picture.mjs'
import { Studio, until } from './studio.mjs'

const small = { width: 64, height: 64, steps: 3, seed: 7 }
const slow = { width: 64, height: 64, steps: 30, seed: 42 }

/** A safetensors file of `count` vectors of `width` numbers. */
function write(path, count, width, tensor = 'emb_params') {
  const data = Buffer.from(Float32Array.from({ length: count * width }, (_, i) => Math.sin(i * i + count)).buffer)
  const head = Buffer.from(JSON.stringify({ [tensor]: { dtype: 'F32', shape: [count, width], data_offsets: [0, data.length] } }))
  const length = Buffer.alloc(8)
  length.writeBigUInt64LE(BigInt(head.length))
  writeFileSync(path, Buffer.concat([length, head, data]))
}

let s, folder
before(async () => {
  s = await Studio.start()
  folder = join(s.models, 'embeddings')
  mkdirSync(join(folder, 'sub'), { recursive: true })
  write(join(folder, 'good style.safetensors'), 3, 32)
  write(join(folder, 'sub/Bad_Hands5.safetensors'), 8, 32)
  write(join(folder, 'wide.safetensors'), 2, 768)
  write(join(folder, 'broken.safetensors'), 80, 32)
  await s.post('/v1/models/refresh')
  await s.loadImageModel()
})
after(() => s.cleanup())

const file = async (url) => Buffer.from(await (await fetch(s.base + url)).arrayBuffer())
const draw = async (more) => {
  const r = await s.post('/v1/images/generations', { ...small, ...more, response_format: 'url' })
  const p = decodePng(await file(r.data[0].url)) // without the text beside the pixels
  return { ...r, pixels: Array.from({ length: p.width * p.height }, (_, i) => p.at(i % p.width, Math.floor(i / p.width))).flat() }
}

test('by their names in either prompt, in any case', async () => {
  const plain = await draw({ prompt: 'a fox' })
  assert.equal(plain.parameters.embeddings, undefined)
  const one = await draw({ prompt: 'a fox, good style' })
  const other = await draw({ prompt: 'a fox', negative_prompt: '(bad_hands5:1.2)' })
  assert.deepEqual(one.parameters.embeddings, ['embeddings/good style.safetensors'])
  assert.deepEqual(other.parameters.embeddings, ['embeddings/sub/Bad_Hands5.safetensors'])
  assert.deepEqual((await draw({ prompt: 'a fox, GOOD Style' })).pixels, one.pixels)
  const words = await draw({ prompt: 'a fox, good  other style' }) // named by its words alone: text
  for (const [a, b] of [[plain, one], [plain, other], [one, words]]) assert.notDeepEqual(a.pixels, b.pixels)
  assert.deepEqual((await draw({ prompt: 'a fox' })).pixels, plain.pixels)
})

test('what the picture notes of itself makes it again', async () => {
  const one = await draw({ prompt: 'a [fox:good style:0.5]' })
  const { params } = (await s.get('/v1/history/images?limit=1')).data[0]
  assert.deepEqual(params.embeddings, ['embeddings/good style.safetensors'])
  assert.deepEqual((await draw(params)).pixels, one.pixels)
  const job = await s.jobEnd((await s.post('/v1/jobs', params, 202)).id)
  assert.equal(job.status, 'done')
})

test('one for another model is text, and the log says why; a broken one is listed with its fault', async () => {
  const from = s.mark()
  const named = await draw({ prompt: 'wide' })
  assert.equal(named.parameters.embeddings.length, 1)
  await until('the log says it', () => /'wide\.safetensors' is left out, its name is text: .*768 values/.test(s.log.slice(from)))
  renameSync(join(folder, 'wide.safetensors'), join(s.dir, 'wide.safetensors'))
  await s.post('/v1/models/refresh')
  assert.deepEqual((await draw({ prompt: 'wide' })).pixels, named.pixels)
  const broken = (await s.get('/v1/models')).data.find((m) => m.id === 'embeddings/broken.safetensors')
  assert.deepEqual([broken.type, broken.supported], ['embedding', false])
  assert.match(broken.reason, /80 vectors are more than the 75/)
})

test('the lists have them, by family for clients of A1111', async () => {
  const list = (await s.get('/v1/options')).embeddings
  assert.deepEqual(list.map((l) => [l.name, l.family, l.supported]), [['broken', 'sd1', false], ['good style', 'sd1', true], ['Bad_Hands5', 'sd1', true]])
  const { loaded, skipped } = await s.get('/sdapi/v1/embeddings')
  assert.deepEqual([Object.keys(loaded), Object.keys(skipped)], [['good style', 'Bad_Hands5'], []])
})

test('a worker killed in the middle: the same picture, though a new file has taken a word of the prompt', async () => {
  const job = { type: 'txt2img', ...slow, prompt: 'a red cube in good style' }
  const whole = await s.jobEnd((await s.post('/v1/jobs', job, 202)).id)
  const broken = await s.post('/v1/jobs', job, 202)
  await until('a checkpoint', async () => (await s.get(`/v1/jobs/${broken.id}`)).step >= 6)
  write(join(folder, 'cube.safetensors'), 5, 32)
  await s.post('/v1/models/refresh')
  await s.kill('sd')
  const end = await s.jobEnd(broken.id)
  assert.deepEqual([end.status, end.attempts], ['done', 2])
  assert.deepEqual(await file(end.results[0].url), await file(whole.results[0].url))
  assert.deepEqual((await s.jobEnd((await s.post('/v1/jobs', job, 202)).id)).params.embeddings,
    ['embeddings/cube.safetensors', 'embeddings/good style.safetensors'])
})
