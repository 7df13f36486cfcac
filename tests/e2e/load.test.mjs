// load.test.mjs - too many at once: everybody gets an answer, a full queue says so, and healthy workers are not taken for dead.
import { after, before, test } from 'node:test'
import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { connect } from 'node:net'
import { Studio, readChat, sleep, until } from './studio.mjs'

const LLM = 'tiny-llm-f16.gguf', SLOW = 'tiny-llm-slow.gguf'
const talk = { messages: [{ role: 'user', content: 'tell me a story' }], max_tokens: 20, ignore_eos: true, stream: true }

let s
before(async () => {
  s = await Studio.start()
  await s.loadLlm(LLM)
})
after(() => s.cleanup())

const undisturbed = (studio, from) => assert.doesNotMatch(studio.log.slice(from), /no health answer|Detected .* failure/)

test('64 text clients at once, with half as many that vanish', async () => {
  const from = s.mark()
  const vanishing = Array.from({ length: 32 }, async (_, i) => {
    const abort = new AbortController()
    const r = s.request('POST', '/v1/chat/completions', { ...talk, max_tokens: 1500 }, { signal: abort.signal }).catch(() => 0)
    await sleep(10 * i)
    abort.abort()
    await r
  })
  const answers = await Promise.all(Array.from({ length: 64 }, async (_, seed) => readChat(await s.request('POST', '/v1/chat/completions', { ...talk, seed }))))
  for (const a of answers) assert.deepEqual([a.done, a.finish, a.error], [true, 'length', null])
  await Promise.all(vanishing)
  await until('it is idle', async () => (await s.health()).workers.llm.activity === 'idle')
  undisturbed(s, from)
})

test('256 text requests wait; one more is 429 with Retry-After, whatever its kind, and room comes back', async () => {
  await s.loadLlm(SLOW)
  const from = s.mark(), aborts = []
  const waiting = Array.from({ length: 256 }, async (_, i) => {
    const abort = new AbortController()
    aborts.push(abort)
    const r = await s.request('POST', '/v1/chat/completions', { ...talk, max_tokens: 2000 }, { signal: abort.signal }).catch((e) => e.name)
    if (r.status && r.status !== 200) throw new Error(`request ${i}: ${r.status} ${await r.text()}`)
  })
  const full = await until('a full queue', async () => {
    const r = await s.request('POST', '/v1/completions', { prompt: 'x', max_tokens: 1 })
    return r.status === 429 && r
  }, 60000)
  const { error } = await full.json()
  assert.deepEqual([error.type, error.code], ['rate_limit_error', 'queue_full'])
  assert.ok(Number(full.headers.get('retry-after')) > 0)
  for (const [path, body] of [['/v1/chat/completions', talk], ['/v1/embeddings', { input: 'x' }], ['/v1/prompt/enhance', { prompt: 'x' }]])
    assert.equal((await s.request('POST', path, body)).status, 429, path)
  await sleep(4000) // longer than three health answers may be missing
  assert.equal((await s.request('GET', '/v1/models')).status, 200)
  undisturbed(s, from)
  for (const a of aborts) a.abort()
  await Promise.all(waiting)
  assert.equal((await readChat(await s.request('POST', '/v1/chat/completions', { ...talk, max_tokens: 3 }))).finish, 'length')
})

test('a client that stops reading holds up nobody, and gets all of it in the end', async () => {
  await s.loadLlm(LLM)
  const request = JSON.stringify({ ...talk, max_tokens: 1900, seed: 4 })
  const socket = connect(s.port, '127.0.0.1')
  socket.write(`POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1:${s.port}\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length: ${request.length}\r\n\r\n${request}`)
  socket.pause()
  const one = await readChat(await s.request('POST', '/v1/chat/completions', { ...talk, seed: 4 }))
  assert.equal(one.finish, 'length')
  let text = ''
  socket.on('data', (d) => { text += d })
  socket.resume()
  await new Promise((ok) => socket.on('close', ok))
  assert.match(text, /"finish_reason":"length"[^]*data: \[DONE\]/)
})

// A limit that cannot be raised: some clients find no room, but the server's own connections always do.
test('more clients than files: those beyond get 503, and the workers are not taken for dead', async (t) => {
  try { execFileSync('prlimit', ['--version']) } catch { t.skip('there is no prlimit here'); return }
  const a = await Studio.start({ launcher: ['prlimit', '--nofile=512:512'] })
  const sockets = []
  try {
    await a.loadLlm(LLM)
    const from = a.mark()
    let streams = 0, refused = 0, ended = 0
    for (let i = 0; i < 700; i++) {
      const c = connect(a.port, '127.0.0.1')
      c.on('data', (d) => { if (/^HTTP\/1.1 200/.test(d)) streams++; else if (/^HTTP\/1.1 503/.test(d)) refused++ })
      c.on('error', () => {}).on('close', () => { ended++ })
      c.write(`GET /v1/events HTTP/1.1\r\nHost: 127.0.0.1:${a.port}\r\n\r\n`)
      sockets.push(c)
    }
    await until('everybody has an answer', () => streams + Math.max(refused, ended) >= 700, 60000)
    t.diagnostic(`${streams} event streams, ${refused} times 503`)
    assert.ok(streams >= 64 && refused > 0)
    await sleep(4000)
    undisturbed(a, from)
    for (const c of sockets) c.destroy()
    const r = await until('room again', async () => { const x = await a.request('POST', '/v1/chat/completions', { ...talk, max_tokens: 3 }).catch(() => null); return x?.status === 200 && x })
    assert.equal((await readChat(r)).finish, 'length')
  } finally {
    for (const c of sockets) c.destroy()
    await a.cleanup()
  }
})

test('a low limit is raised as far as the system allows: 1,000 streams', async (t) => {
  try { execFileSync('prlimit', ['--version']) } catch { t.skip('there is no prlimit here'); return }
  const a = await Studio.start({ launcher: ['prlimit', '--nofile=256:8192'] })
  const sockets = []
  try {
    let streams = 0
    for (let i = 0; i < 1000; i++) {
      const c = connect(a.port, '127.0.0.1')
      c.on('data', (d) => { if (/^HTTP\/1.1 200/.test(d)) streams++ }).on('error', () => {})
      c.write(`GET /v1/events HTTP/1.1\r\nHost: 127.0.0.1:${a.port}\r\n\r\n`)
      sockets.push(c)
    }
    await until('all of them', () => streams === 1000, 60000)
    assert.equal((await a.health()).status, 'ok')
  } finally {
    for (const c of sockets) c.destroy()
    await a.cleanup()
  }
})
