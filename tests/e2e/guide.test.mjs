// guide.test.mjs - the testing guide, section by section, against the real programs.
import { after, before, test } from 'node:test'
import assert from 'node:assert/strict'
import { existsSync, readdirSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { BIN, Studio, isAlive, isPng, readChat, sleep, until } from './studio.mjs'

const small = { prompt: 'a red cube on a table', width: 64, height: 64, steps: 4, seed: 42 }
const long = { ...small, steps: 200, width: 128, height: 128 }

let s
before(async () => { s = await Studio.start() })
after(() => s.cleanup())

test('2: build/bin holds the three programs and the page', () => {
  for (const f of ['mysti_server', 'mysti_sd_worker', 'mysti_llm_worker']) assert.ok(statSync(join(BIN, f)).mode & 0o111, f)
  assert.ok(existsSync(join(BIN, 'public/index.html')))
})

test('3.1: startup and connectivity', async () => {
  assert.match(s.log, new RegExp(`Spawning SD Worker\\.\\.\\. on port ${s.port + 1}`))
  assert.match(s.log, new RegExp(`Spawning LLM Worker\\.\\.\\. on port ${s.port + 2}`))
  for (const line of s.log.trim().split('\n')) assert.match(line, /^\[\d\d:\d\d:\d\d\.\d{3}\] \[(DEBUG|INFO|WARN|ERROR)\] \[[\w-]+\] /)
  const page = await fetch(`http://localhost:${s.port}/`)
  assert.equal(page.status, 200)
  assert.match(page.headers.get('content-type'), /text\/html/)
  assert.match(await page.text(), /<div id="app">/)
})

test('3.2: load a model, generate with progress, see it in the gallery', async () => {
  const loaded = await s.loadImageModel()
  assert.equal(loaded.model_id, 'tiny-sd1-f16.safetensors')
  await s.logged(/Saved SD model state/)
  const ev = s.events('/v1/events')
  await until('hello', () => ev.list.some((e) => e.event === 'hello'))
  const job = await s.post('/v1/jobs', { type: 'txt2img', ...small }, 202)
  const done = await s.jobEnd(job.id)
  assert.equal(done.status, 'done', JSON.stringify(done.error))
  const steps = ev.list.filter((e) => e.event === 'job').map((e) => JSON.parse(e.data)).filter((j) => j.id === job.id).map((j) => j.step)
  assert.ok(steps.includes(0) && Math.max(...steps) === 4, `progress seen: ${steps}`)
  assert.ok(ev.list.some((e) => e.event === 'image'))
  await ev.close()
  const gallery = await s.get('/v1/history/images')
  assert.equal(gallery.total, 1)
  assert.equal(gallery.data[0].seed, 42)
  assert.match(gallery.data[0].parameters, /a red cube on a table\n.*Steps: 4, Sampler: Euler a, .*Seed: 42, Size: 64x64/s)
  const png = await fetch(s.base + gallery.data[0].url)
  assert.ok(isPng(await png.arrayBuffer()))
  assert.equal((await fetch(s.base + gallery.data[0].thumb_url)).status, 200)
})

test('3.3: a killed image worker comes back with its model, and the job goes on', async () => {
  const reference = await s.post('/v1/images/generations', { ...small, steps: 20, response_format: 'b64_json' })
  const from = s.mark()
  const job = await s.post('/v1/jobs', { type: 'txt2img', ...small, steps: 20 }, 202)
  await until('some steps', async () => (await s.get(`/v1/jobs/${job.id}`)).step >= 3)
  const ev = s.events('/v1/events')
  await until('hello', () => ev.list.some((e) => e.event === 'hello'))
  const pid = await s.kill('sd')
  await s.logged(/Detected SD Worker failure\. Restarting\.\.\./, from)
  await s.logged(/Spawning SD Worker\.\.\. on port/, from)
  await s.logged(/Restoring SD model\.\.\./, from)
  await s.logged(/SD model restored successfully\./, from)
  await s.ready()
  assert.notEqual(await s.pid('sd'), pid)
  const done = await s.jobEnd(job.id)
  assert.equal(done.status, 'done', JSON.stringify(done.error))
  const again = Buffer.from(await (await fetch(s.base + done.results[0].url)).arrayBuffer())
  assert.ok(again.equals(Buffer.from(reference.data[0].b64_json, 'base64')), 'the picture is the one that an undisturbed run makes')
  const alerts = ev.list.filter((e) => e.event === 'alert').map((e) => JSON.parse(e.data))
  assert.ok(alerts.some((a) => a.level === 'error' && a.worker === 'sd' && /killed by signal 9/.test(a.message)), JSON.stringify(alerts))
  assert.ok(alerts.some((a) => a.job === job.id), 'an alert says what happens to the job')
  await ev.close()
  const next = await s.post('/v1/images/generations', small)
  assert.equal(next.data[0].seed, 42)
})

test('3.3: the same when the worker is idle', async () => {
  const from = s.mark()
  await s.kill('sd')
  await s.logged(/SD model restored successfully\./, from)
  await s.ready()
  await s.post('/v1/images/generations', small)
})

test('3.4: tokens stream; a killed LLM worker comes back with its model', async () => {
  await s.loadLlm()
  await s.logged(/Saved LLM model state/)
  const r = await s.request('POST', '/v1/prompt/enhance', { prompt: 'a red cube', stream: true })
  assert.match(r.headers.get('content-type'), /text\/event-stream/)
  const answer = await readChat(r)
  assert.ok(answer.pieces.length > 3, 'many pieces, not one')
  assert.ok(answer.done)
  const from = s.mark()
  await s.kill('llm')
  await s.logged(/Detected LLM Worker failure\. Restarting\.\.\./, from)
  await s.logged(/Restoring LLM model\.\.\./, from)
  await s.logged(/LLM model restored successfully\./, from)
  await s.ready()
  assert.ok((await readChat(await s.request('POST', '/v1/prompt/enhance', { prompt: 'a red cube', stream: true }))).text)
})

test('3.5: the LLM answers while an image is being made', async () => {
  const job = await s.post('/v1/jobs', { type: 'txt2img', ...long }, 202)
  await until('sampling', async () => (await s.get(`/v1/jobs/${job.id}`)).step >= 1)
  const answer = await readChat(await s.request('POST', '/v1/prompt/enhance', { prompt: 'a red cube', stream: true }))
  assert.ok(answer.pieces.length > 3)
  const j = await s.get(`/v1/jobs/${job.id}`)
  assert.equal(j.status, 'running', 'the picture is still being made')
  await s.post(`/v1/jobs/${job.id}/cancel`)
  assert.equal((await s.jobEnd(job.id)).status, 'cancelled')
})

test('3.6: an active model is listed', async () => {
  const list = await (await fetch(s.base + '/v1/models')).text()
  assert.match(list, /"active":true/)
})

test('3.6: smart fallback for a GGUF given as --model', async () => {
  const other = await Studio.start({ args: ['--model', 'tiny-sd1-unet-f16.gguf', '--vae', 'tiny-vae.safetensors', '--clip_l', 'tiny-clip_l.safetensors'] })
  try {
    await other.logged(/Smart fallback: Moving GGUF from model_path to diffusion_model_path/)
    await other.logged(/Saved SD model state/)
    const r = await other.post('/v1/images/generations', small)
    assert.ok(isPng(Buffer.from(r.data[0].b64_json, 'base64')))
  } finally { await other.cleanup() }
})

test('4: a taken port is named', async () => {
  const other = await Studio.start({ port: s.port, wait: false })
  const { code } = await other.exited
  assert.equal(code, 1)
  assert.match(other.log, new RegExp(`port ${s.port} is taken by .*mysti_server`))
  assert.doesNotMatch(other.log, /Spawning/)
  await other.cleanup()
})

test('no orphans: the workers end with the server', async () => {
  const other = await Studio.start()
  const pids = [await other.pid('sd'), await other.pid('llm')]
  other.process.kill('SIGKILL')
  await other.exited
  await until('both workers gone', () => pids.every((p) => !isAlive(p)), 5000)
  await other.cleanup()
})

test('SIGTERM ends everything with exit code 0', async () => {
  await s.post('/v1/jobs', { type: 'txt2img', ...long }, 202)
  const pids = [await s.pid('sd'), await s.pid('llm')]
  const { code } = await s.stop()
  assert.equal(code, 0)
  assert.ok(pids.every((p) => !isAlive(p)))
  assert.deepEqual(readdirSync(join(s.dir, 'outputs')).filter((f) => f.includes('tmp')), [])
  await sleep(0)
})
