// demo.test.mjs - the demo models: when they are loaded by themselves, and whether what comes is what was asked for.
import { after, before, describe, test } from 'node:test'
import assert from 'node:assert/strict'
import { symlinkSync } from 'node:fs'
import { join } from 'node:path'
import { Studio, demoModels, readChat, tinyModels, until } from './studio.mjs'
import { assertRedOnBlue, decodePng } from './picture.mjs'

const HELLO = /Starting with the demo models; put your own into models\//

// --- the start: which models are loaded does not depend on what is in them, so the tiny ones stand for any -------------

const tiny = (name) => join(tinyModels(), name)
const DEMO = { 'demo/picture.safetensors': tiny('tiny-sd1-f16.safetensors'), 'demo/writer.gguf': tiny('tiny-llm-f16.gguf') }
const OWN = 'mine.safetensors'

const started = (opts = {}) => Studio.start({ models: false, link: DEMO, ...opts })
const chosen = async (s) => Object.values((await s.health()).workers).map((w) => w.model)
async function restart(s, args) {
  await s.stop()
  return Studio.start({ dir: s.dir, args })
}

test('a first start has both demo models and says so, and so has the next one', async () => {
  let s = await started()
  try {
    assert.deepEqual(await s.loaded(), ['demo/picture.safetensors', 'demo/writer.gguf'])
    assert.match(s.log, HELLO)
    const demo = (await s.get('/v1/models')).data
    assert.deepEqual(demo.map((m) => [m.id, m.demo, m.loaded]), [['demo/picture.safetensors', true, true], ['demo/writer.gguf', true, true]])
    s = await restart(s)
    assert.deepEqual(await s.loaded(), ['demo/picture.safetensors', 'demo/writer.gguf'])
    assert.match(s.log, HELLO)
    assert.match(s.log, /Restoring SD model\.\.\./)
  } finally { await s.cleanup() }
})

test('a model of his own replaces the demo with one request, and is what the next start restores', async () => {
  let s = await started()
  try {
    await s.loaded()
    symlinkSync(tiny('tiny-sd1-f32.safetensors'), join(s.models, OWN))
    const mark = s.mark()
    await s.post('/v1/models/load', { model_id: OWN })
    await s.logged(/Saved SD model state/, mark)
    assert.deepEqual(await chosen(s), [OWN, 'demo/writer.gguf'])
    s = await restart(s)
    assert.deepEqual(await s.loaded(), [OWN, 'demo/writer.gguf'])
    assert.doesNotMatch(s.log, HELLO)
  } finally { await s.cleanup() }
})

test('a demo that was unloaded stays away; with both unloaded the next start is a first one', async () => {
  let s = await started()
  try {
    await s.loaded()
    await s.post('/v1/models/unload')
    s = await restart(s)
    await until('the LLM', async () => (await s.health()).workers.llm.loaded)
    assert.deepEqual(await chosen(s), [null, 'demo/writer.gguf'])
    await s.post('/v1/llm/unload')
    s = await restart(s)
    await s.loaded()
    assert.match(s.log, HELLO)
  } finally { await s.cleanup() }
})

for (const [what, opts, models] of [
  ['an own model in the folder', { link: { ...DEMO, [`sub/${OWN}`]: tiny('tiny-sd1-f16.safetensors') } }, [null, null]],
  ['--no-demo', { args: ['--no-demo'] }, [null, null]],
  ['a model of the command line', { args: ['--llm-model', tiny('tiny-llm-slow.gguf')] }, [null, tiny('tiny-llm-slow.gguf')]],
  ['a command line with a model that does not exist', { args: ['--model', 'nowhere.safetensors'] }, [null, null]],
])
  test(`${what} keeps the demo models away`, async () => {
    const s = await started(opts)
    try {
      assert.deepEqual(await chosen(s), models)
      assert.doesNotMatch(s.log, HELLO)
    } finally { await s.cleanup() }
  })

test('a picture has the size that its model names, unless another is asked for', async () => {
  const s = await started({ link: { 'demo/v.safetensors': tiny('tiny-sd1-v.safetensors') } })
  try {
    await until('the model', async () => (await s.health()).workers.sd.loaded)
    const { width, height } = (await s.get('/v1/models')).data[0]
    assert.deepEqual([width, height], [64, 96])
    const size = async (more) => {
      const answer = await s.post('/v1/images/generations', { prompt: 'a', steps: 1, ...more })
      const png = decodePng(Buffer.from(answer.data[0].b64_json, 'base64'))
      return [png.width, png.height]
    }
    assert.deepEqual(await size({}), [64, 96])
    assert.deepEqual(await size({ size: 'auto' }), [64, 96])
    assert.deepEqual(await size({ width: 128 }), [128, 96])
    assert.deepEqual(await size({ size: '128x64' }), [128, 64])
    const own = await s.post('/v1/jobs', { type: 'txt2img', prompt: 'a', steps: 1 }, 202)
    const [picture] = (await s.jobEnd(own.id)).results
    assert.deepEqual([picture.width, picture.height, picture.params.width, picture.params.height], [64, 96, 64, 96])
  } finally { await s.cleanup() }
})

// --- the shipped models: is it what was asked for? --------------------------------------------------------------------

const shipped = demoModels()

describe('the shipped demo models', { skip: shipped.missing }, () => {
  const PROMPT = 'a red circle on a blue background'
  const ask = { prompt: PROMPT, seed: 7 }
  let s
  before(async () => {
    s = await Studio.start({ models: false, link: shipped.link })
    await s.loaded()
  })
  after(() => s?.cleanup())
  const bytesOf = async (picture) => Buffer.from(await (await fetch(s.base + picture.url)).arrayBuffer())

  test('say what they are', async () => {
    const list = (await s.get('/v1/models')).data
    const image = list.find((m) => m.type === 'image'), text = list.find((m) => m.type === 'llm')
    assert.deepEqual([image.width, image.height, image.demo, image.loaded], [128, 128, true, true])
    assert.ok(image.title && text.title, 'both have a title')
    assert.ok(image.examples.length >= 4 && image.examples.length <= 8, `examples: ${image.examples}`)
  })

  test('make a red circle on a blue background', async () => {
    const answer = await s.post('/v1/images/generations', ask)
    assertRedOnBlue(Buffer.from(answer.data[0].b64_json, 'base64'))
  })

  test('make the same one when the worker is killed in the middle of it', async () => {
    const slow = { ...ask, steps: 60 } // more than a fast machine makes before the kill
    const whole = await s.post('/v1/images/generations', slow)
    const job = await s.post('/v1/jobs', { type: 'txt2img', ...slow }, 202)
    await until('some steps', async () => (await s.get(`/v1/jobs/${job.id}`)).step >= 3)
    await s.kill('sd')
    const done = await s.jobEnd(job.id)
    assert.equal(done.status, 'done', JSON.stringify(done.error))
    assert.equal(done.attempts, 2, 'it was killed while the picture was being made')
    const again = await bytesOf(done.results[0])
    assertRedOnBlue(again)
    assert.ok(again.equals(Buffer.from(whole.data[0].b64_json, 'base64')), 'bit for bit the picture without the kill')
  })

  test('make one of what the Magic Wand wrote', async () => {
    const answer = await readChat(await s.request('POST', '/v1/prompt/enhance', { prompt: PROMPT, stream: true, seed: 1 }))
    assert.ok(answer.done && answer.pieces.length > 3, answer.text)
    assert.match(answer.text, /\bred\b.*\bcircle\b/)
    assert.match(answer.text, /\bblue\b/)
    assert.ok(answer.text.length > PROMPT.length, `richer than what was typed: ${answer.text}`)
    const { data: [picture] } = await s.post('/v1/images/generations', { ...ask, prompt: answer.text, response_format: 'url' })
    assertRedOnBlue(await bytesOf(picture), { anywhere: true }) // the wand may have said where
  })
})
