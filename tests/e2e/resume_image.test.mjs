// resume_image.test.mjs - a picture whose worker is killed at an awkward moment is the one that it would have been.
import { after, before, test } from 'node:test'
import assert from 'node:assert/strict'
import { existsSync, readFileSync, readdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { Studio, until } from './studio.mjs'

const MODEL = 'tiny-sd1-f16.safetensors', OTHER = 'tiny-sd1-f32.safetensors'
const quick = { prompt: 'a red cube', width: 64, height: 64, steps: 2, seed: 1 }
const args = ['--threads', '1'] // threads that wait for each other are slow where others have the processors

let s
before(async () => {
  s = await Studio.start({ args })
  await s.loadImageModel(MODEL)
})
after(() => s.cleanup())

const replaced = (pid) => until('a new image worker', async () => {
  const w = (await s.health()).workers.sd
  return w.pid && w.pid !== pid && w.state === 'ready' && w.loaded
}, 30000)

const submit = (request) => s.post('/v1/jobs', { type: 'txt2img', ...request }, 202)
const bytesOf = async (job) => Promise.all(job.results.map(async (r) => Buffer.from(await (await fetch(s.base + r.url)).arrayBuffer())))
const isDone = (job) => assert.deepEqual([job.status, job.error], ['done', null])
const strangers = () => readdirSync(join(s.dir, 'outputs'), { recursive: true }).filter((f) => /\.tmp|\.part/.test(f))

/** Kills the image worker once the job's stream shows `seen`; the client of that stream sees an alert, and a whole picture. */
async function hurt(request, seen, want) {
  const all = s.events('/v1/events'), pid = await s.pid('sd')
  await until('hello', () => all.list.length)
  const job = await submit(request)
  const ev = s.events(`/v1/jobs/${job.id}/events`)
  const states = () => all.list.filter((e) => e.event === 'job').map((e) => JSON.parse(e.data)).filter((j) => j.id === job.id)
  await until('the moment', () => states().some(seen), 60000)
  process.kill(pid, 'SIGKILL')
  const end = await s.jobEnd(job.id)
  isDone(end)
  await ev.done
  await all.close()
  const got = await bytesOf(end)
  assert.deepEqual(got.map((b, i) => b.equals(want[i])), want.map(() => true), 'the same picture')
  assert.ok(!states().some((j) => j.error))
  if (end.attempts > 1) {
    const alerts = ev.list.filter((e) => e.event === 'alert').map((e) => JSON.parse(e.data))
    assert.ok(alerts.some((a) => a.code === 'job_interrupted' && a.job === job.id), JSON.stringify(alerts))
  }
  await replaced(pid)
  await s.post('/v1/images/generations', quick)
  assert.deepEqual(strangers(), [])
  return end.attempts
}

test('killed in every phase: encoding, first step, last step, decoding, saving', async (t) => {
  const request = { ...quick, prompt: 'a red cube on a table , '.repeat(30), steps: 5 }
  const end = await s.jobEnd((await submit(request)).id)
  const want = await bytesOf(end)
  const moments = { queued: () => true, encoding: (j) => j.phase === 'encoding', 'first step': (j) => j.phase === 'sampling', 'last step': (j) => j.step >= 4,
    decoding: (j) => j.phase === 'decoding', saving: (j) => j.phase === 'saving' }
  let twice = 0
  for (const [name, seen] of Object.entries(moments)) {
    const attempts = await hurt(request, seen, want)
    t.diagnostic(`${name}: ${attempts} attempts`)
    if (attempts > 1) twice++
  }
  assert.ok(twice >= 3, 'most of them were hit in time')
})

test('killed while the model of the job is loaded', async () => {
  const request = { ...quick, model: OTHER, steps: 4 }
  const want = await bytesOf(await s.jobEnd((await submit(request)).id))
  await s.loadImageModel()
  await hurt(request, (j) => j.phase === 'loading', want)
  const crash = (await s.get('/v1/crashes?limit=1')).data[0]
  assert.deepEqual([crash.model, crash.worker, crash.signal], [OTHER, 'sd', 9], 'the model that was being loaded')
  assert.equal((await s.health()).workers.sd.model, OTHER)
  await s.loadImageModel()
})

test('killed at any moment: a sweep over the whole job', async (t) => {
  const request = { ...quick, steps: 8, n: 2 }
  const first = await s.jobEnd((await submit(request)).id)
  const want = await bytesOf(first), total = first.finished_ms - first.started_ms
  const hits = []
  for (let i = 0; i < 4; i++) {
    const delay = total * (i + 0.5) / 4
    let since = 0
    hits.push(await hurt(request, (j) => { if (j.status === 'running') since ||= performance.now(); return since && performance.now() - since >= delay }, want))
  }
  t.diagnostic(`attempts: ${hits.join(' ')}`)
})

// ---- checkpoints that are of no use -------------------------------------------------------------------------------

test('a damaged checkpoint, and one of other parameters: a line in the log, and the picture is made from the start', async () => {
  const small = { type: 'txt2img', ...quick, steps: 4 }
  let a = await Studio.start({ args })
  try {
    await a.loadImageModel()
    const file = (job) => join(a.dir, 'data/checkpoints', `${job.id}.ckpt`)
    const bytes = async (job) => Buffer.from(await (await fetch(a.base + job.results[0].url)).arrayBuffer())
    const want = await bytes(await a.jobEnd((await a.post('/v1/jobs', small, 202)).id))
    const long = await a.post('/v1/jobs', { ...small, seed: 2, steps: 200 }, 202)
    const spoilt = {
      other: [/it belongs to other parameters or to another model/, (b) => b],
      flipped: [/its checksum is wrong/, (b) => { b[b.length >> 1] ^= 1; return b }],
      short: [/it has 100 bytes instead of \d+/, (b) => b.subarray(0, 100)],
      strange: [/it is no checkpoint/, (b) => b.fill(7)],
    }
    const jobs = {}
    for (const how in spoilt) jobs[how] = await a.post('/v1/jobs', small, 202)
    await until('a checkpoint', () => existsSync(file(long)), 60000)
    a.process.kill('SIGKILL')
    await a.exited
    for (const how in spoilt) writeFileSync(file(jobs[how]), spoilt[how][1](readFileSync(file(long))))
    a = await Studio.start({ dir: a.dir, port: a.port, args })
    await a.post(`/v1/jobs/${long.id}/cancel`)
    for (const [how, [reason]] of Object.entries(spoilt)) {
      const end = await a.jobEnd(jobs[how].id)
      assert.deepEqual([how, end.status, end.error], [how, 'done', null])
      assert.ok((await bytes(end)).equals(want), how)
      await a.logged(new RegExp(`checkpoint '.*${jobs[how].id}\\.ckpt' is ignored, and the work begun anew: ${reason.source}`))
      assert.ok(!existsSync(file(jobs[how])))
    }
  } finally { await a.cleanup() }
})
