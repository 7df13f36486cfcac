// taesd.test.mjs - the tiny autoencoder: previews that show the picture, and pictures decoded by it.
import { after, before, test } from 'node:test'
import assert from 'node:assert/strict'
import { decodePng } from './picture.mjs'
import { Studio } from './studio.mjs'

const small = { prompt: 'a red fox', width: 64, height: 96, steps: 3, seed: 7, response_format: 'url' }

let s
before(async () => { s = await Studio.start() })
after(() => s.cleanup())

const draw = async (more) => {
  const r = await s.post('/v1/images/generations', { ...small, ...more })
  return Buffer.from(await (await fetch(s.base + r.data[0].url)).arrayBuffer())
}
const previewsOf = async () => {
  const job = await s.post('/v1/jobs', { type: 'txt2img', prompt: 'a red fox', width: 64, height: 96, steps: 12, seed: 7 }, 202)
  const events = s.events(`/v1/jobs/${job.id}/events`)
  assert.equal((await s.jobEnd(job.id)).status, 'done')
  await events.close()
  return events.list.filter((e) => e.event === 'preview').map((e) => JSON.parse(e.data))
}

test('without one it cannot be asked for, and previews have a pixel for each latent', async () => {
  await s.loadImageModel()
  const e = (await s.post('/v1/images/generations', { ...small, vae: 'taesd' }, 400)).error
  assert.equal(e.code, 'invalid')
  assert.match(e.message, /vae: no TAESD was given when the model was loaded/)
  assert.match((await s.post('/v1/images/generations', { ...small, vae: 'other' }, 400)).error.message, /vae: 'other' is none of full, taesd/)
  for (const p of await previewsOf()) assert.deepEqual([p.width, p.height], [8, 12])
})

test('with one previews are as large as the picture, and it decodes when asked to', async () => {
  const before = await draw({})
  await s.loadImageModel('tiny-sd1-f16.safetensors', { taesd: 'tiny-taesd.safetensors' })
  const previews = await previewsOf()
  assert.ok(previews.length > 0)
  for (const p of previews) assert.deepEqual([p.width, p.height], [64, 96])
  assert.deepEqual(await draw({}), before) // unless it is asked for, nothing is different
  const tiny = await draw({ vae: 'taesd' }), picture = decodePng(tiny)
  assert.deepEqual([picture.width, picture.height], [64, 96])
  assert.notDeepEqual(picture.at(9, 9), decodePng(before).at(9, 9))
  assert.match(tiny.toString('latin1'), /VAE: TAESD/)
  const entry = (await s.get('/v1/history/images?limit=1')).data[0]
  assert.equal(entry.params.vae, 'taesd')
  assert.deepEqual(await draw(entry.params), tiny)
})

test('a file that is none is refused, and the model stays', async () => {
  const e = (await s.post('/v1/models/load', { model_id: 'tiny-sd1-f16.safetensors', taesd: 'tiny-vae.safetensors' }, 422)).error
  assert.match(e.message, /taesd: 'tiny-vae\.safetensors' holds no TAESD/)
  await draw({})
})
