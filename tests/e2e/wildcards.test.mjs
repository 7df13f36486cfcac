// wildcards.test.mjs - prompts with choices: each picture its own, by its seed, noted, and the same after a crash.
import { after, before, test } from 'node:test'
import assert from 'node:assert/strict'
import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { decodePng } from './picture.mjs'
import { Studio, until } from './studio.mjs'

const small = { type: 'txt2img', width: 64, height: 64, steps: 3, seed: 7 }
const WAIT = 150000

let s
before(async () => {
  s = await Studio.start()
  mkdirSync(join(s.models, 'wildcards/sub'), { recursive: true })
  writeFileSync(join(s.models, 'wildcards/color.txt'), '# colours\nred\ngreen\nblue\n')
  writeFileSync(join(s.models, 'wildcards/sub/thing.txt'), '__color__ cube\n{round|flat} ball\n')
  await s.loadImageModel()
})
after(() => s.cleanup())

const file = async (url) => Buffer.from(await (await fetch(s.base + url)).arrayBuffer())
const pixels = async (picture) => {
  const p = decodePng(await file(picture.url))
  return Array.from({ length: p.width * p.height }, (_, i) => p.at(i % p.width, Math.floor(i / p.width))).flat()
}
const draw = async (more) => {
  const job = await s.jobEnd((await s.post('/v1/jobs', { ...small, ...more }, 202)).id, WAIT)
  assert.equal(job.status, 'done', JSON.stringify(job.error))
  return job
}
const template = 'a __sub/thing__ in {snow|rain|fog} by {2$$day|night|noon}, [a|b] (c:1.2)'
const negative = '{blurry|dark|__color__}'

test('each picture has its own prompt, which makes it again, and the template is kept beside', async () => {
  const job = await draw({ prompt: template, negative_prompt: negative, n: 3 })
  assert.equal(job.params.prompt, template)
  assert.equal(job.params.prompts.length, 3)
  assert.deepEqual(job.results.map((r) => r.prompt), job.params.prompts.map((p) => p.prompt))
  for (const [i, picture] of job.results.entries()) {
    const p = picture.params
    assert.match(p.prompt, /^a ((red|green|blue) cube|(round|flat) ball) in (snow|rain|fog) by (day|night|noon), (day|night|noon), \[a\|b\] \(c:1\.2\)$/)
    assert.deepEqual([p.prompt_template, p.negative_template, p.prompts, p.seed], [template, negative, undefined, 7 + i])
    assert.match(picture.parameters, new RegExp(`^${p.prompt.replace(/[[\]()|.]/g, '\\$&')}\n`))
  }
  assert.ok(new Set(job.results.map((r) => r.prompt)).size > 1)
  const last = job.results[2], again = await draw({ prompt: last.prompt, negative_prompt: last.negative_prompt, seed: 9 })
  assert.deepEqual(await pixels(again.results[0]), await pixels(last))
  assert.equal(again.results[0].params.prompt_template, undefined)
  const alone = await draw({ prompt: template, negative_prompt: negative, seed: 9 }) // as one of a batch, so by itself
  assert.deepEqual(await file(alone.results[0].url), await file(last.url))
})

test('the same seed says the same; variations of one seed share its prompt', async () => {
  const [one, two, other] = [await draw({ prompt: template }), await draw({ prompt: template }), await draw({ prompt: template, seed: 1234 })]
  assert.equal(one.results[0].prompt, two.results[0].prompt)
  assert.notEqual(one.results[0].prompt, other.results[0].prompt)
  const varied = await draw({ prompt: template, n: 2, subseed: 5, subseed_strength: 0.5 })
  assert.deepEqual(varied.results.map((r) => r.prompt), Array(2).fill(one.results[0].prompt))
})

test('LoRAs may be chosen, too', async () => {
  const job = await draw({ prompt: 'a fox {<lora:tiny-lora:0.8>|<lora:tiny-loha:0.9>|}', n: 4 })
  for (const [i, picture] of job.results.entries()) {
    const alone = await draw({ prompt: picture.prompt, seed: 7 + i })
    assert.deepEqual(await pixels(alone.results[0]), await pixels(picture), picture.prompt)
  }
  assert.ok(new Set(job.results.map((r) => r.prompt)).size > 1)
})

test('what cannot be is said by name', async () => {
  for (const [body, param, message] of [
    [{ prompt: 'a __colour__' }, 'prompt', /there is no wildcard '__colour__'; did you mean '__color__'\?/],
    [{ prompt: 'a', negative_prompt: '{__nowhere__|__nowhere__}' }, 'negative_prompt', /no wildcard '__nowhere__'/],
    [{ prompt: '{<lora:no-such:1>|<lora:no-such:2>}' }, 'prompt', /there is no LoRA 'no-such'/],
  ]) {
    const { error } = await s.post('/v1/jobs', { ...small, ...body }, 400)
    assert.equal(error.param, param, error.message)
    assert.match(error.message, message)
  }
})

test('a worker killed within the batch, and a changed file: the same pictures, each once', async () => {
  const body = { prompt: template, n: 3, steps: 12, seed: 42 }
  const whole = await draw(body)
  const { id } = await s.post('/v1/jobs', { ...small, ...body }, 202)
  await until('the second picture', async () => { const j = await s.get(`/v1/jobs/${id}`); return j.image === 1 && j.step >= 3 }, WAIT)
  writeFileSync(join(s.models, 'wildcards/color.txt'), 'black\n')
  await s.kill('sd')
  const end = await s.jobEnd(id, WAIT)
  assert.deepEqual([end.status, end.attempts, end.results.length], ['done', 2, 3])
  for (const i of [0, 1, 2]) assert.deepEqual(await file(end.results[i].url), await file(whole.results[i].url))
})
