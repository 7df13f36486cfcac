// resume_text.test.mjs - answers that are cut off at awkward places go on as if nothing had happened.
import { after, before, test } from 'node:test'
import assert from 'node:assert/strict'
import { copyFileSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { BIN, Studio, readChat, sleep, until } from './studio.mjs'

const LLM = 'tiny-llm-f16.gguf', SLOW = 'tiny-llm-slow.gguf'
const say = (content) => [{ role: 'user', content }]
const talk = { model: SLOW, messages: say('tell me a story'), max_tokens: 60, ignore_eos: true, stream: true, temperature: 1, seed: 5 }

let s
before(async () => {
  s = await Studio.start({ args: ['--llm-threads', '1'] }) // threads that wait for each other are slow where others have the processors
  await s.loadLlm(SLOW)
})
after(() => s.cleanup())

const replaced = (pid) => until('a new LLM worker', async () => {
  const w = (await s.health()).workers.llm
  return w.pid && w.pid !== pid && w.state === 'ready' && w.loaded
}, 30000)

const ask = async (request, path = '/v1/chat/completions', onPiece) => {
  const r = await s.request('POST', path, request)
  assert.equal(r.status, 200, r.status === 200 ? '' : await r.clone().text())
  const answer = await readChat(r, onPiece)
  assert.ok(answer.done && !answer.error, JSON.stringify(answer.error))
  return answer
}

/** The answer when the worker is killed once when(answer so far) is true. */
async function cut(request, when, path) {
  const pid = await s.pid('llm')
  let killed = false
  const answer = await ask(request, path, (a) => { if (!killed && when(a)) { killed = true; process.kill(pid, 'SIGKILL') } })
  assert.ok(killed, 'it was killed')
  await replaced(pid)
  return answer
}

const same = (got, want) => assert.deepEqual([got.text, got.finish, got.usage], [want.text, want.finish, want.usage])

for (const [how, more] of [['greedy', { temperature: 0 }], ['sampled', {}]])
  test(`/v1/completions goes on: ${how}`, async () => {
    const { messages, ...rest } = talk
    const request = { ...rest, ...more, prompt: 'a quiet harbour', stream_options: { include_usage: true } }
    const want = await ask(request, '/v1/completions')
    same(await cut(request, (a) => a.pieces.length === 20, '/v1/completions'), want)
  })

test('killed while the prompt is read', async () => {
  const request = { ...talk, messages: say('a red fox in deep snow , '.repeat(60)), max_tokens: 12, stream_options: { include_usage: true } }
  const pid = await s.pid('llm')
  let pieces = 0
  const answer = ask(request, undefined, () => { pieces++ })
  await sleep(100)
  process.kill(pid, 'SIGKILL')
  assert.equal(pieces, 0, 'it was still reading')
  await replaced(pid)
  const got = await answer
  assert.ok(got.usage.prompt_tokens > 300)
  same(got, await ask(request))
})

test('killed again and again in one answer: as long as it gets on, it is not given up', async () => {
  await ask({ ...talk, max_tokens: 1 }) // a success: four deaths are too few for safe mode
  const request = { ...talk, max_tokens: 80 }
  const want = await ask(request)
  const marks = [10, 25, 40, 55]
  let last = 0, deaths = 0
  const got = await ask(request, undefined, (a) => {
    if (deaths === marks.length || a.pieces.length < marks[deaths]) return
    deaths++
    s.pid('llm').then((pid) => { assert.notEqual(pid, last); last = pid; process.kill(pid, 'SIGKILL') })
  })
  assert.equal(deaths, marks.length)
  same(got, want)
  await replaced(last)
})

test('a stop string that spans the cut', async () => {
  const whole = await ask(talk)
  const at = whole.pieces.slice(0, 15).join('').length, stop = whole.text.slice(at, at + 24)
  assert.ok(!whole.text.slice(0, at).includes(stop))
  const request = { ...talk, stop: [stop], stream_options: { include_usage: true } }
  const want = await ask(request)
  assert.deepEqual([want.text, want.finish], [whole.text.slice(0, whole.text.indexOf(stop)), 'stop'])
  same(await cut(request, (a) => a.text.length >= at - 1), want)
})

test('a character that spans the cut', async () => {
  let want, seed = 0
  do want = await ask({ ...talk, seed: ++seed, max_tokens: 100 }) // the corpus has few of them
  while (want.pieces.findIndex((p, i) => i > 3 && /[^\x00-\x7f]/.test(p)) < 0)
  const at = want.pieces.findIndex((p, i) => i > 3 && /[^\x00-\x7f]/.test(p))
  same(await cut({ ...talk, seed, max_tokens: 100 }, (a) => a.pieces.length === at), want) // its first byte is on the way
  assert.ok(!want.text.includes('\ufffd'))
})

test('a request that names another model, while the worker is started again', async () => {
  const pid = await s.kill('llm')
  const r = s.post('/v1/chat/completions', { ...talk, model: LLM, stream: false, max_tokens: 3 })
  assert.equal((await r).model, LLM)
  await replaced(pid)
  await s.loadLlm(SLOW)
})

const scripts = { skip: process.platform === 'win32' && 'a script cannot stand for a program here' }

/** A studio of its own whose text worker is the fragile one. */
async function fragile(fn) {
  const bin = mkdtempSync(join(BIN, '../bin-')) // beside the other, where it finds its libraries
  for (const p of ['mysti_server', 'mysti_sd_worker']) copyFileSync(join(BIN, p), join(bin, p))
  copyFileSync(new URL('fragile_llm_worker.mjs', import.meta.url), join(bin, 'mysti_llm_worker'))
  const curse = join(bin, 'curse'), options = { bin, env: { MYSTI_REAL_WORKER: join(BIN, 'mysti_llm_worker'), MYSTI_CURSE: curse } }
  const all = [await Studio.start(options)]
  try {
    await fn(all[0], curse, async (a) => { all.push(await Studio.start({ ...options, dir: a.dir, port: a.port, wait: false })); return all.at(-1) })
  } finally {
    for (const a of all) await a.cleanup()
    rmSync(bin, { recursive: true })
  }
}

test('one request that crashes the worker is given up, and takes no other with it', scripts, () => fragile(async (a) => {
  await a.loadLlm(SLOW)
  const chat = async (more) => readChat(await a.request('POST', '/v1/chat/completions', { ...talk, max_tokens: 120, ...more }))
  const others = [1, 2, 3].map((seed) => chat({ seed }))
  await until('they are under way', async () => (await a.health()).workers.llm.activity === 'busy')
  const bad = await a.request('POST', '/v1/chat/completions', { ...talk, stream: false, messages: say('crash') })
  assert.equal(bad.status, 503)
  assert.match((await bad.json()).error.message, /crashed 3 times during this request \(killed by signal 9/)
  for (const o of await Promise.all(others)) assert.deepEqual([o.error, o.done, o.finish], [null, true, 'length'])
  await a.ready()
  assert.equal((await a.health()).workers.llm.restarts, 3)
}))

test('other deaths: for want of memory, by its own exit; the record, the alert and the error name the cause', scripts, () => fragile(async (a) => {
  await a.loadLlm(LLM)
  const ev = a.events('/v1/events')
  const chat = (word) => a.request('POST', '/v1/chat/completions', { ...talk, model: LLM, stream: false, max_tokens: 3, messages: say(word) })
  for (const [word, cause, record, code, words] of [
    ['exhaust', 'killed by signal 6 (SIGABRT), probably because the memory ran out', { signal: 6, exit_code: null, oom: true }, 'worker_out_of_memory', /unload the other model, or take a smaller model or a shorter context/],
    ['leave', 'exit code 3', { signal: null, exit_code: 3, oom: false }, 'worker_crashed', /exit code 3/]]) {
    const bad = await chat(word)
    assert.equal(bad.status, 503)
    const { message } = (await bad.json()).error
    assert.ok(message.includes(cause), message)
    const { signal, exit_code, oom, ...crash } = (await a.get('/v1/crashes?limit=1')).data[0]
    assert.deepEqual([{ signal, exit_code, oom }, crash.cause, crash.worker, crash.model], [record, cause, 'llm', LLM])
    if (oom) assert.match(crash.last_lines, /ggml_cuda: out of memory/)
    const told = ev.list.filter((e) => e.event === 'alert').map((e) => JSON.parse(e.data)).find((e) => e.code === code)
    assert.match(told.message, words)
    await a.ready()
    assert.equal((await chat('x')).status, 200) // and so the tally of deaths begins anew
  }
  await ev.close()
}))

test('a model that crashes while it is loaded is not restored for ever, and the model is named', scripts, () => fragile(async (a, curse, again) => {
  const inSafeMode = async (studio) => {
    await until('safe mode', async () => (await studio.health().catch(() => null))?.workers.llm.state === 'safe_mode', 60000)
    const { restarts } = (await studio.health()).workers.llm
    await sleep(3000)
    const { workers: { llm } } = await studio.health()
    assert.equal(llm.restarts, restarts, 'it runs without a model, in peace')
    assert.match(llm.safe_mode_reason, new RegExp(`while it loaded '${LLM}'`))
    const r = await studio.request('POST', '/v1/chat/completions', { messages: say('x') })
    assert.equal(r.status, 503)
    assert.match((await r.json()).error.message, /safe mode/)
    return restarts
  }
  await a.loadLlm(LLM)
  writeFileSync(curse, '')
  await a.kill('llm')
  assert.equal(await inSafeMode(a), 4, 'the one that was killed, and three while loading')
  a.process.kill('SIGKILL')
  await a.exited
  const b = await again(a) // the next start tries it again, and not for ever either
  assert.equal(await inSafeMode(b), 3)
  rmSync(curse)
  await b.post('/v1/workers/llm/retry')
  await b.ready()
  await b.post('/v1/chat/completions', { messages: say('x'), max_tokens: 1 })
}))
