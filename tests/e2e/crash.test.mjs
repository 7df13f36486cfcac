// crash.test.mjs - whatever dies, whenever: the user's work comes out as if nothing had happened, or fails with the true reason.
import { after, before, test } from 'node:test'
import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { copyFileSync, existsSync, readFileSync, readdirSync, rmSync, statSync, unlinkSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { join } from 'node:path'
import { SmallDisk } from './small_disk.mjs'
import { Studio, isAlive, readChat, sleep, sse, tinyModels, until } from './studio.mjs'

const MODEL = 'tiny-sd1-f16.safetensors', LLM = 'tiny-llm-f16.gguf'
const quick = { prompt: 'a red cube', width: 64, height: 64, steps: 2, seed: 1 }
const slow = { prompt: 'a red cube on a table', width: 128, height: 128, steps: 80, seed: 42 }
const endless = { ...slow, steps: 200 }
/** Threads that wait for each other make no headway where others have the processors. */
const start = (more = {}) => Studio.start({ ...more, args: ['--threads', '1', '--llm-threads', '1', ...(more.args ?? [])] })
const talk = { messages: [{ role: 'user', content: 'tell me a story' }], max_tokens: 600, ignore_eos: true, stream: true }

let s
before(async () => {
  s = await start()
  await s.loadImageModel()
  await s.loadLlm()
})
after(() => s.cleanup())

const fetchBytes = async (studio, url) => Buffer.from(await (await fetch(studio.base + url)).arrayBuffer())
const pictures = (studio, job) => Promise.all(job.results.map((r) => fetchBytes(studio, r.url)))
const submit = (studio, more) => studio.post('/v1/jobs', { type: 'txt2img', ...more }, 202)
const stepOf = async (studio, id) => (await studio.get(`/v1/jobs/${id}`)).step
const strangers = (dir) => readdirSync(dir, { recursive: true }).filter((f) => !/^(\.thumbs|[\w-]+\.(png|webp))$|^\.thumbs\/[\w-]+\.webp$/.test(f))

/** Waits until the worker with this pid has been replaced and is ready. */
const replaced = (studio, worker, pid, ms = 20000) => until(`a new ${worker} worker`, async () => {
  const w = (await studio.health()).workers[worker]
  return w.pid && w.pid !== pid && w.state === 'ready'
}, ms)

/** A success after each death keeps the tally away from safe mode. */
const prove = async (studio, worker) => worker === 'sd' ? studio.post('/v1/images/generations', quick)
  : studio.post('/v1/chat/completions', { ...talk, stream: false, max_tokens: 2 })

async function chat(studio, more = {}) {
  const r = await studio.request('POST', '/v1/chat/completions', { ...talk, ...more })
  return readChat(r)
}

// ---- workers ------------------------------------------------------------------------------------------------------

for (const worker of ['sd', 'llm'])
  test(`${worker}: killed when idle, and while it loads`, async () => {
    let pid = await s.kill(worker)
    await replaced(s, worker, pid)
    const from = s.mark()
    pid = await s.kill(worker)
    await s.logged(new RegExp(`Restoring ${worker.toUpperCase()} model`), from)
    pid = await s.pid(worker) || pid
    try { process.kill(pid, 'SIGKILL') } catch { /* it was quicker */ }
    await replaced(s, worker, pid)
    await prove(s, worker)
  })

test('SIGSEGV: the log has the crash report with job, model and backtrace', async () => {
  const from = s.mark()
  const job = await submit(s, slow)
  await until('sampling', async () => await stepOf(s, job.id) >= 1)
  const pid = await s.kill('sd', 'SIGSEGV')
  await s.logged(new RegExp(`crashed: signal 11 \\(SIGSEGV\\).*job ${job.id}.*model .*${MODEL}`), from)
  await s.logged(/mysti_sd_worker\(.*\[0x[0-9a-f]+\]/, from)
  await replaced(s, 'sd', pid)
  assert.equal((await s.jobEnd(job.id)).status, 'done')
  const crash = (await s.get('/v1/crashes')).data.find((c) => c.pid === pid)
  assert.deepEqual({ ...crash, id: 0, at_ms: 0, last_lines: '', backtrace: [] }, { id: 0, at_ms: 0, pid, worker: 'sd', cause: 'killed by signal 11 (SIGSEGV)',
    signal: 11, exit_code: null, oom: false, model: MODEL, job: job.id, jobs: [job.id], last_lines: '', backtrace: [] })
  assert.match(crash.last_lines, /crashed: signal 11 \(SIGSEGV\)[^]*mysti_sd_worker\(.*\[0x/)
  assert.match(crash.backtrace.join('\n'), /^main\+0x[0-9a-f]+ \[mysti_sd_worker\+0x[0-9a-f]+\]$/m)
})

/** Sends the signal to the thread that computes most, which a kill() cannot choose. */
function hurtBusiestThread(pid) {
  const work = (tid) => Number(readFileSync(`/proc/${pid}/task/${tid}/stat`, 'utf8').replace(/.*\) /s, '').split(' ')[11])
  const tid = readdirSync(`/proc/${pid}/task`).filter((t) => Number(t) !== pid).sort((a, b) => work(b) - work(a))[0]
  execFileSync('/usr/bin/python3', ['-c', `import ctypes; assert ctypes.CDLL(None).tgkill(${pid}, ${tid}, 11) == 0`])
}

test('a crash in the middle of computing names the functions, static ones too', async () => {
  const job = await submit(s, slow)
  await until('sampling', async () => await stepOf(s, job.id) >= 2)
  const pid = await s.pid('sd')
  hurtBusiestThread(pid)
  await replaced(s, 'sd', pid)
  assert.equal((await s.jobEnd(job.id)).status, 'done')
  const crash = (await s.get('/v1/crashes')).data.find((c) => c.pid === pid)
  assert.match(crash.backtrace.join('\n'), /^(engine_main\+0x[0-9a-f]+ \(engine\.c\)|ggml_graph_compute.*) \[mysti_sd_worker\+0x[0-9a-f]+\]$/m)
})

test('a crash of the text worker names the requests that ran', async () => {
  const r = await s.request('POST', '/v1/chat/completions', talk)
  const chunks = sse(r)
  const { id } = JSON.parse((await chunks.next()).value.data)
  const pid = await s.kill('llm', 'SIGSEGV')
  while ((await chunks.next()).value.data !== '[DONE]'); // the answer comes out all the same
  const crash = (await s.get('/v1/crashes')).data.find((c) => c.pid === pid)
  assert.deepEqual([crash.worker, crash.model, crash.job, crash.jobs], ['llm', LLM, id, [id]])
  await replaced(s, 'llm', pid)
  const page = await s.get('/v1/crashes?limit=2')
  const rest = await s.get(`/v1/crashes?limit=1&before=${page.next}`)
  assert.deepEqual([page.data.length, rest.data.length], [2, 1])
  assert.ok(rest.data[0].id < page.data[1].id && page.data[1].id < page.data[0].id)
  for (const bad of ['limit=0', 'limit=201', 'before=-1', 'limit=x']) assert.equal((await s.request('GET', `/v1/crashes?${bad}`)).status, 400, bad)
})

test('SIGSTOP of both workers is noticed, and both are replaced', async () => {
  const pids = [await s.kill('sd', 'SIGSTOP'), await s.kill('llm', 'SIGSTOP')]
  await Promise.all([replaced(s, 'sd', pids[0]), replaced(s, 'llm', pids[1])])
  for (const pid of pids) assert.ok(!isAlive(pid))
  await prove(s, 'sd')
  await prove(s, 'llm')
})

// ---- image jobs ---------------------------------------------------------------------------------------------------

/** Runs the job undisturbed and with a kill in `phase`; the files must be equal, byte for byte. */
async function resumes(request, phase = 'sampling') {
  const reference = await pictures(s, await s.jobEnd((await submit(s, request)).id))
  const job = await submit(s, request)
  const ev = s.events(`/v1/jobs/${job.id}/events`)
  const states = () => ev.list.filter((e) => e.event === 'job').map((e) => JSON.parse(e.data))
  const checkpoint = join(s.dir, 'data/checkpoints', `${job.id}.ckpt`)
  if (phase === 'sampling') await until('a checkpoint', () => existsSync(checkpoint))
  else await until(phase, () => states().some((j) => j.phase === phase))
  const pid = await s.kill('sd')
  const done = await s.jobEnd(job.id)
  assert.equal(done.status, 'done', JSON.stringify(done.error))
  assert.equal(done.attempts, 2)
  await replaced(s, 'sd', pid)
  await ev.done
  const again = await pictures(s, done)
  assert.equal(again.length, reference.length)
  for (const i in reference) assert.ok(again[i].equals(reference[i]), `picture ${i} differs from the undisturbed one`)
  const second = states().filter((j) => j.attempts === 2 && j.step > 0)
  if (phase === 'sampling') assert.ok(second[0].step > 1 || second[0].image > 0, `begun anew: step ${second[0].step}`)
  assert.ok(!existsSync(checkpoint), 'the checkpoint is removed')
}

test('killed while sampling: euler_a goes on, bit for bit', () => resumes({ ...slow, sampler: 'euler_a' }))
test('killed while sampling: dpm++2m goes on, bit for bit', () => resumes({ ...slow, sampler: 'dpm++2m' }))
test('killed while sampling: two pictures', () => resumes({ ...slow, n: 2, steps: 24 }))
test('killed while decoding', () => resumes({ ...slow, steps: 4, width: 256, height: 256 }, 'decoding'))
test('killed while sampling: image to image', async () => {
  const first = await s.jobEnd((await submit(s, quick)).id)
  await resumes({ ...slow, type: 'img2img', width: 128, height: 128, init_image: first.results[0].file, strength: 0.9 })
})

test('a synchronous request sees a pause, not an error', async () => {
  const want = await s.post('/v1/images/generations', slow)
  const answer = s.post('/v1/images/generations', slow)
  await until('sampling', async () => (await s.get('/v1/progress')).step >= 3)
  await s.kill('sd')
  assert.equal((await answer).data[0].b64_json, want.data[0].b64_json)
})

test('two deaths: the job fails with the cause, and the queue goes on', async () => {
  const job = await submit(s, endless), next = await submit(s, quick)
  for (let death = 0; death < 2; death++) {
    await until('sampling', async () => { const j = await s.get(`/v1/jobs/${job.id}`); return j.attempts === death + 1 && j.step >= 1 })
    await s.kill('sd')
  }
  const end = await s.jobEnd(job.id)
  assert.equal(end.status, 'failed')
  assert.match(end.error.message, /died 2 times.*killed by signal 9/)
  assert.equal((await s.jobEnd(next.id)).status, 'done')
})

test('cancelled: queued and running', async () => {
  const running = await submit(s, endless), queued = await submit(s, quick)
  await until('sampling', async () => await stepOf(s, running.id) >= 1)
  for (const j of [queued, running]) await s.post(`/v1/jobs/${j.id}/cancel`)
  assert.equal((await s.jobEnd(queued.id)).status, 'cancelled')
  assert.equal((await s.jobEnd(running.id)).status, 'cancelled')
  await s.post(`/v1/jobs/${running.id}/cancel`, {}, 409)
  await prove(s, 'sd')
})

test('cancelled while its picture is written: it is listed, or there is no file', async () => {
  for (let i = 0; i < 3; i++) {
    const job = await submit(s, { ...quick, width: 256, height: 256, steps: 1, seed: 100 + i })
    const ev = s.events(`/v1/jobs/${job.id}/events`)
    await until('it is saved', () => ev.list.some((e) => e.event === 'job' && JSON.parse(e.data).phase === 'saving'), 60000)
    await s.request('POST', `/v1/jobs/${job.id}/cancel`) // 409 where it was too late
    const end = await s.jobEnd(job.id)
    await ev.done
    await until('the worker is idle', async () => (await s.health()).workers.sd.activity === 'idle')
    const there = readdirSync(join(s.dir, 'outputs'), { recursive: true }).filter((f) => f.includes(`-${job.id.slice(2)}.`) && f.endsWith('.png'))
    assert.deepEqual(there, end.results.map((r) => r.file), end.status)
  }
})

test('the client of a synchronous request goes away: its job is cancelled', async () => {
  const abort = new AbortController()
  const gone = s.request('POST', '/v1/images/generations', endless, { signal: abort.signal }).catch((e) => e.name)
  const job = await until('sampling', async () => { const p = await s.get('/v1/progress'); return p.step >= 1 && p.job })
  abort.abort()
  assert.equal(await gone, 'AbortError')
  assert.equal((await s.jobEnd(job)).status, 'cancelled')
})

// ---- text ---------------------------------------------------------------------------------------------------------

/** Starts the stream, calls kill() once `pieces` have come, and reads to the end. */
async function disturbed(request, pieces, kill) {
  const r = await s.request('POST', '/v1/chat/completions', request)
  const [mine, watch] = r.body.tee()
  const whole = readChat({ body: mine })
  let seen = 0
  const killer = (async () => {
    for await (const chunk of watch) {
      const before = seen
      seen += Buffer.from(chunk).toString().split('data: ').length - 1
      if (before < pieces && seen >= pieces) await kill()
    }
  })()
  const answer = await whole
  await killer
  return answer
}

for (const [how, more] of [['greedy', { temperature: 0 }], ['sampled', { temperature: 1, seed: 5 }]])
  test(`a stream goes on after its worker's death: ${how}`, async () => {
    const request = { ...talk, ...more, stream_options: { include_usage: true } }
    const want = await chat(s, request)
    const pid = await s.pid('llm')
    const got = await disturbed(request, 60, () => process.kill(pid, 'SIGKILL'))
    assert.ok(got.done && !got.error, JSON.stringify(got.error))
    assert.equal(got.text, want.text)
    assert.deepEqual(got.usage, want.usage)
    assert.equal(got.finish, want.finish)
    await replaced(s, 'llm', pid)
  })

test('several streams at once go on', async () => {
  const requests = [1, 2, 3].map((seed) => ({ ...talk, seed, temperature: 0.9, max_tokens: 300 + seed }))
  const pid = await s.pid('llm')
  const got = await Promise.all(requests.map((r, i) => disturbed({ ...r, stream_options: { include_usage: true } }, 40, () => { if (i === 0) process.kill(pid, 'SIGKILL') })))
  for (const [i, a] of got.entries()) {
    assert.ok(a.done && !a.error, JSON.stringify(a.error))
    assert.equal(a.usage.completion_tokens, requests[i].max_tokens)
    assert.ok(a.text.length > 100)
  }
  await replaced(s, 'llm', pid)
})

test('a request that does not stream survives as well', async () => {
  const request = { ...talk, stream: false, seed: 3, temperature: 0.9, max_tokens: 1200 }
  const want = await s.post('/v1/chat/completions', request)
  const answer = s.post('/v1/chat/completions', request)
  await until('busy', async () => (await s.health()).workers.llm.activity === 'busy' || sleep(100).then(() => true))
  const pid = await s.kill('llm')
  assert.equal((await answer).choices[0].message.content, want.choices[0].message.content)
  await replaced(s, 'llm', pid)
})

test('the client of a stream goes away: its slot is free', async () => {
  for (let round = 0; round < 3; round++) { // more clients than slots
    const aborts = []
    for (let i = 0; i < 4; i++) {
      const abort = new AbortController()
      const r = await s.request('POST', '/v1/chat/completions', { ...talk, max_tokens: 6000 }, { signal: abort.signal })
      await r.body.getReader().read()
      aborts.push(abort)
    }
    for (const a of aborts) a.abort()
  }
  await s.post('/v1/chat/completions', { ...talk, stream: false, max_tokens: 3 })
})

// ---- crash loops and models ---------------------------------------------------------------------------------------

test('five deaths lead to safe mode, which says why; retry and another model leave it', async () => {
  const enter = async () => {
    const end = Date.now() + 60000
    for (let pid = 0; (await s.health()).workers.sd.state !== 'safe_mode';) {
      if (Date.now() > end) throw new Error('no safe mode')
      const w = (await s.health()).workers.sd
      if (w.pid && w.pid !== pid && w.state === 'ready') process.kill(pid = w.pid, 'SIGKILL')
      await sleep(20)
    }
    const h = await s.health()
    assert.equal(h.status, 'degraded')
    assert.match(h.workers.sd.safe_mode_reason, /crashed again and again; last: killed by signal 9/)
    const r = await s.request('POST', '/v1/images/generations', quick)
    assert.equal(r.status, 503)
    assert.match((await r.json()).error.message, /safe mode|crashed again and again/)
  }
  await enter()
  await s.post('/v1/workers/sd/retry')
  await s.ready()
  await prove(s, 'sd')
  await enter()
  await until('the other model', async () => (await s.request('POST', '/v1/models/load', { model_id: 'tiny-sd1-f32.safetensors' })).status === 200)
  await s.ready()
  await prove(s, 'sd')
  await s.loadImageModel()
})

test('safe mode while a job waits for its model: it waits on, and a retry finishes it', async () => {
  const a = await start({ args: ['--sd-idle-timeout', '1'] })
  try {
    await a.loadImageModel()
    await until('the model is unloaded for idleness', async () => !(await a.health()).workers.sd.loaded)
    let last = await a.kill('sd', 'SIGSTOP') // its load is never answered
    const jobs = [await submit(a, quick), await submit(a, { ...quick, seed: 2 })]
    await until('the first one waits for the model', async () => (await a.get(`/v1/jobs/${jobs[0].id}`)).status === 'running')
    await until('safe mode', async () => { // no process comes as far as having its model again
      const w = (await a.health()).workers.sd
      if (w.pid && w.pid !== last) { last = w.pid; try { process.kill(w.pid, 'SIGKILL') } catch { /* gone already */ } }
      return w.state === 'safe_mode'
    }, 60000)
    const states = await Promise.all(jobs.map(async (j) => (await a.get(`/v1/jobs/${j.id}`)).status))
    assert.deepEqual(states, ['interrupted', 'queued'])
    await until('it runs without a model', async () => (await a.health()).workers.sd.pid)
    await a.post('/v1/workers/sd/retry')
    for (const j of jobs) assert.equal((await a.jobEnd(j.id)).status, 'done')
    assert.equal((await a.get(`/v1/jobs/${jobs[0].id}`)).error, null)
  } finally { await a.cleanup() }
})

for (const [what, spoil] of [['disappears', (f) => unlinkSync(f)], ['turns into garbage', (f) => { unlinkSync(f); writeFileSync(f, 'garbage '.repeat(4096)) }]])
  test(`a model that ${what} before it is restored: an alert, and another one can be loaded`, async () => {
    const file = join(s.models, 'spoilt.safetensors')
    copyFileSync(join(tinyModels(), MODEL), file)
    await s.post('/v1/models/refresh')
    await s.loadImageModel('spoilt.safetensors')
    spoil(file)
    const ev = s.events('/v1/events')
    await until('hello', () => ev.list.some((e) => e.event === 'hello'))
    const pid = await s.kill('sd')
    const alert = await until('the alert', () => ev.list.map((e) => e.event === 'alert' && JSON.parse(e.data)).find((a) => a && a.code === 'restore_failed'))
    assert.match(alert.message, /spoilt\.safetensors/)
    await ev.close()
    await replaced(s, 'sd', pid)
    rmSync(file, { force: true })
    await s.loadImageModel()
    await prove(s, 'sd')
  })

test('the port of a dead worker is taken by another program: the log says so, and it recovers', async () => {
  const from = s.mark(), port = s.port + 2, thief = createServer((c) => c.destroy())
  const grab = () => new Promise((ok) => thief.once('error', () => ok(false)).listen(port, '127.0.0.1', () => ok(true)))
  do { // a race against the next process, repeated until it is won
    const { pid } = (await s.health()).workers.llm
    try { if (pid) process.kill(pid, 'SIGKILL') } catch { /* gone already */ }
  } while (!await grab())
  await s.logged(new RegExp(`LLM Worker \\(pid \\d+\\): its port ${port} is taken by .*pid ${process.pid}`), from)
  await until('more deaths than safe mode needs', async () => (s.log.slice(from).match(/its port/g) ?? []).length > 5)
  assert.notEqual((await s.health()).workers.llm.state, 'safe_mode')
  await new Promise((ok) => thief.close(ok))
  await s.ready(30000)
  assert.equal((await s.health()).workers.llm.model, LLM)
  await prove(s, 'llm')
})

// ---- the server ---------------------------------------------------------------------------------------------------

test('the server killed with a full queue: every job ends once, every picture is in the history once', async () => {
  let a = await start()
  try {
    await a.loadImageModel()
    await a.loadLlm()
    const reference = (await a.post('/v1/images/generations', { ...slow, n: 2 })).data.map((d) => d.b64_json)
    const jobs = [await submit(a, { ...slow, n: 2 })]
    for (let i = 0; i < 4; i++) jobs.push(await submit(a, { ...quick, seed: 10 + i }))
    await until('sampling', async () => await stepOf(a, jobs[0].id) >= 5)
    const pids = [await a.pid('sd'), await a.pid('llm')]
    a.process.kill('SIGKILL')
    await a.exited
    const half = ['outputs/x.png.tmp-1', 'outputs/.thumbs/x.webp.tmp-1', 'data/checkpoints/j-1.ckpt.tmp-1', 'data/uploads/x.png.tmp-1'].map((f) => join(a.dir, f))
    for (const f of half) writeFileSync(f, 'half a file')
    a = await start({ dir: a.dir, port: a.port }) // at once: the old workers may still hold their ports
    assert.ok(!pids.some(isAlive), 'no orphans')
    for (const j of jobs) {
      const end = await a.jobEnd(j.id)
      assert.equal(end.status, 'done', JSON.stringify(end.error))
      if (j === jobs[0]) assert.deepEqual((await pictures(a, end)).map((b) => b.toString('base64')), reference)
    }
    const h = await a.get('/v1/history/images?limit=100')
    assert.equal(h.total, 2 + 2 + 4)
    assert.equal(new Set(h.data.map((e) => e.file)).size, 8)
    assert.ok(!half.some((f) => existsSync(f)), 'what was never finished is removed')
    assert.deepEqual(strangers(join(a.dir, 'outputs')), [], 'no temporary files')
    assert.deepEqual(readdirSync(join(a.dir, 'data/checkpoints')), [])
    assert.equal((await a.health()).workers.llm.model, LLM)
    await a.stop()
    assert.deepEqual(a.exit, { code: 0, signal: null })
    a = await start({ dir: a.dir, port: a.port, args: ['--no-restore'] })
    const w = (await a.health()).workers
    assert.deepEqual([w.sd.model, w.llm.model], [null, null])
  } finally { await a.cleanup() }
})

test('SIGTERM in every phase: exit code 0, and the work goes on at the next start', async () => {
  let a = await start({ wait: false })
  try {
    await until('the doors are open', () => a.health().catch(() => null))
    await a.stop()
    assert.deepEqual(a.exit, { code: 0, signal: null }, 'starting')
    for (const phase of ['sampling', 'streaming', 'crashing']) {
      a = await start({ dir: a.dir, port: a.port })
      if (phase === 'sampling') await a.loadImageModel()
      const job = await submit(a, { ...slow, steps: 60 })
      await until('sampling', async () => await stepOf(a, job.id) >= 1)
      if (phase === 'streaming') {
        await a.loadLlm()
        const r = await a.request('POST', '/v1/chat/completions', { ...talk, max_tokens: 6000 })
        await r.body.getReader().read()
      }
      if (phase === 'crashing') await a.kill('sd')
      const pids = Object.values((await a.health()).workers).map((w) => w.pid).filter(Boolean)
      await a.stop()
      assert.deepEqual(a.exit, { code: 0, signal: null }, phase)
      assert.ok(!pids.some(isAlive), 'no orphans')
    }
    a = await start({ dir: a.dir, port: a.port })
    const { data } = await a.get('/v1/jobs')
    for (const j of data) assert.equal((await a.jobEnd(j.id)).status, 'done')
  } finally { await a.cleanup() }
})

test('a database that is damaged is moved aside, and the server runs', async () => {
  let a = await start()
  try {
    await a.stop()
    for (const f of ['mysti.db-wal', 'mysti.db-shm']) rmSync(join(a.dir, 'data', f), { force: true })
    writeFileSync(join(a.dir, 'data/mysti.db'), 'this is not a database '.repeat(1000))
    a = await start({ dir: a.dir, port: a.port })
    assert.ok(readdirSync(join(a.dir, 'data')).some((f) => f.startsWith('mysti.db.corrupt-')))
    await a.loadImageModel()
    await prove(a, 'sd')
  } finally { await a.cleanup() }
})

// A limit on the size of files stands for the full disk: it needs no rights, and fails the same calls.
test('no room for pictures, and then none for the database: clear errors, and both recover', async (t) => {
  const limit = (pid, bytes) => execFileSync('prlimit', ['--pid', String(pid), `--fsize=${bytes}:unlimited`])
  try { execFileSync('prlimit', ['--version']) } catch { t.skip('there is no prlimit here'); return }
  let a = await start()
  try {
    await a.loadImageModel()
    const sd = await a.pid('sd')
    limit(sd, 1000)
    const failed = await a.jobEnd((await submit(a, slow)).id)
    assert.equal(failed.status, 'failed')
    assert.match(failed.error.message, /space|full|too large/i)
    assert.deepEqual(strangers(join(a.dir, 'outputs')), [], 'no half a file')
    assert.equal(await a.pid('sd'), sd, 'the worker lives')
    limit(sd, 'unlimited')
    assert.equal((await a.jobEnd((await submit(a, quick)).id)).status, 'done')
    limit(a.process.pid, 1000)
    const r = await a.request('POST', '/v1/jobs', { type: 'txt2img', ...quick })
    assert.ok(r.status >= 500, `status ${r.status}`)
    assert.ok((await r.json()).error.message)
    const from = a.mark(), other = 'tiny-sd1-f32.safetensors'
    await a.loadImageModel(other)
    await a.logged(/SD model state could not be saved/, from)
    limit(a.process.pid, 'unlimited')
    assert.equal((await a.jobEnd((await submit(a, quick)).id)).status, 'done')
    await a.logged(/Saved SD model state/, from)
    a.process.kill('SIGKILL')
    await a.exited
    a = await start({ dir: a.dir, port: a.port })
    assert.equal((await a.health()).workers.sd.model, other, 'the choice was saved when there was room')
  } finally { await a.cleanup() }
})

test('no room in the database for a picture that is made: its job is done for nobody before it is listed, a killed server enters it', async (t) => {
  const limit = (pid, bytes) => execFileSync('prlimit', ['--pid', String(pid), `--fsize=${bytes}:unlimited`])
  try { execFileSync('prlimit', ['--version']) } catch { t.skip('there is no prlimit here'); return }
  let a = await start()
  try {
    await a.loadImageModel()
    const batch = { ...quick, steps: 60, n: 2 }
    const reference = await pictures(a, await a.jobEnd((await submit(a, batch)).id))
    /** The first picture of a batch is entered, the second one made while the server may write nothing. */
    const withoutRoom = async () => {
      const job = await submit(a, batch)
      const recorded = async () => { const j = await a.get(`/v1/jobs/${job.id}`); return j.results.length === 1 && j.status === 'running' }
      await until('the first picture is entered', recorded, 60000)
      limit(a.process.pid, 1000)
      return until('all is made', async () => { const j = await a.get(`/v1/jobs/${job.id}`); return j.phase === 'recording' && j }, 60000)
    }
    const all = a.events('/v1/events')
    await until('hello', () => all.list.length)
    const waits = await withoutRoom()
    assert.deepEqual([waits.status, waits.results.length, waits.step, waits.finished_ms], ['running', 1, 60, null])
    const own = a.events(`/v1/jobs/${waits.id}/events`)
    const delayed = () => all.list.filter((e) => e.event === 'alert').map((e) => JSON.parse(e.data)).find((e) => e.code === 'history_delayed')
    assert.match((await until('an alert', delayed)).message, new RegExp(`What job ${waits.id} has finished is kept`))
    const stop = await a.request('POST', `/v1/jobs/${waits.id}/cancel`)
    assert.deepEqual([stop.status, (await stop.json()).error.code], [409, 'conflict'])
    limit(a.process.pid, 'unlimited')
    await own.done // it ends with the job
    assert.equal(JSON.parse(own.list.at(-1).data).status, 'done')
    const end = await a.get(`/v1/jobs/${waits.id}`)
    assert.deepEqual([end.status, end.attempts], ['done', 1])
    assert.deepEqual((await pictures(a, end)).map((b, i) => b.equals(reference[i])), [true, true])
    await all.close()

    const waiting = await withoutRoom()
    const made = readdirSync(join(a.dir, 'outputs')).filter((f) => f.endsWith(`-${waiting.id.slice(2)}-1.png`))
    const before = statSync(join(a.dir, 'outputs', made[0])).mtimeMs
    a.process.kill('SIGKILL')
    await a.exited
    a = await start({ dir: a.dir, port: a.port })
    const after = await a.jobEnd(waiting.id)
    assert.deepEqual([after.status, after.results.length], ['done', 2])
    assert.deepEqual((await pictures(a, after)).map((b, i) => b.equals(reference[i])), [true, true])
    assert.equal(statSync(join(a.dir, 'outputs', made[0])).mtimeMs, before, 'what is made is not made again')
    const h = await a.get('/v1/history/images?limit=100')
    assert.deepEqual([h.total, new Set(h.data.map((e) => e.file)).size], [6, 6])
    assert.deepEqual(readdirSync(join(a.dir, 'data/checkpoints')), [])
  } finally { await a.cleanup() }
})

test('a full disk: jobs that run go on, a killed worker and a killed server lose nothing, text is not concerned', async (t) => {
  const disk = await SmallDisk.mount(16).catch((e) => t.skip(`no small disk can be mounted here: ${e.message}`))
  if (!disk) return
  let a = await start({ disk })
  try {
    await a.loadImageModel()
    await a.loadLlm()
    const reference = await pictures(a, await a.jobEnd((await submit(a, slow)).id))
    const job = await submit(a, slow)
    await until('sampling', async () => await stepOf(a, job.id) >= 2)
    disk.fill()
    await a.kill('sd')
    const refused = await a.request('POST', '/v1/jobs', { type: 'txt2img', ...quick })
    assert.ok(refused.status >= 500, `status ${refused.status}`)
    assert.match((await refused.json()).error.message, /disk is full/)
    await prove(a, 'llm')
    await until('taken up again', async () => { const j = await a.get(`/v1/jobs/${job.id}`); return j.attempts === 2 && j.step >= 1 })
    disk.makeRoom()
    const end = await a.jobEnd(job.id)
    assert.deepEqual([end.status, end.error], ['done', null])
    assert.ok((await pictures(a, end))[0].equals(reference[0]))

    const late = await submit(a, slow), next = await submit(a, quick)
    await until('sampling', async () => await stepOf(a, late.id) >= 2)
    disk.fill()
    a.process.kill('SIGKILL')
    await a.exited
    a = await start({ dir: a.dir, port: a.port, disk, wait: false })
    await until('it answers on a full disk as well', () => a.health().catch(() => null))
    disk.makeRoom()
    for (const j of [late, next]) assert.equal((await a.jobEnd(j.id)).status, 'done')
    assert.ok((await pictures(a, await a.get(`/v1/jobs/${late.id}`)))[0].equals(reference[0]))
    const h = await a.get('/v1/history/images?limit=100')
    assert.deepEqual([h.total, new Set(h.data.map((e) => e.file)).size], [4, 4])
    assert.deepEqual(strangers(join(disk.seen, 'outputs')), [], 'no half a file')
    assert.deepEqual(readdirSync(join(disk.seen, 'data')).filter((f) => f.includes('corrupt')), [], 'the database is the old one')
  } finally {
    if (!a.exit) { a.process.kill('SIGKILL'); await a.exited }
    await disk.close()
    await a.cleanup()
  }
})

test('no server or worker was left behind by these tests', async () => {
  const h = await s.health()
  assert.equal(h.status, 'ok')
  assert.deepEqual(strangers(join(s.dir, 'outputs')), [])
})
