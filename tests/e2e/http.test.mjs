// http.test.mjs - the server's HTTP from below: bytes on sockets, hostile and many.
import { after, before, test } from 'node:test'
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { connect } from 'node:net'
import { Studio, readChat, sleep, until } from './studio.mjs'

const small = { prompt: 'a red cube', width: 64, height: 64, steps: 2, seed: 42 }
const long = { ...small, width: 256, height: 256, steps: 200 }

let s, host
before(async () => {
  s = await Studio.start()
  host = `127.0.0.1:${s.port}`
  await s.loadImageModel()
  await s.loadLlm()
})
after(() => s.cleanup())

/** A socket that collects what comes. */
function dial() {
  const c = connect({ port: s.port, host: '127.0.0.1', allowHalfOpen: true })
  const d = { socket: c, data: Buffer.alloc(0), closed: false }
  c.on('data', (b) => { d.data = Buffer.concat([d.data, b]) })
  c.on('end', () => { d.closed = true; c.end() })
  c.on('close', () => { d.closed = true })
  c.on('error', () => { d.closed = true })
  d.send = (bytes) => c.write(bytes, 'latin1')
  d.text = () => d.data.toString('latin1')
  return d
}

/** The answers in a byte stream; `heads` says for which of them there is no body. */
function parse(text, heads = []) {
  const list = []
  while (text) {
    const at = text.indexOf('\r\n\r\n')
    if (at < 0) return null
    const [first, ...lines] = text.slice(0, at).split('\r\n')
    const headers = Object.fromEntries(lines.map((l) => [l.slice(0, l.indexOf(':')).toLowerCase(), l.slice(l.indexOf(':') + 1).trim()]))
    const status = Number(first.match(/^HTTP\/1\.1 (\d{3}) /)?.[1])
    assert.ok(status, `no status line: ${first}`)
    text = text.slice(at + 4)
    let body = ''
    if (!heads[list.length] && status !== 204 && status !== 304 && status >= 200) {
      if (headers['content-length'] === undefined) { body = text; text = '' } // until the end, or chunks
      else {
        const n = Number(headers['content-length'])
        if (text.length < n) return null
        body = text.slice(0, n)
        text = text.slice(n)
      }
    }
    list.push({ status, headers, body })
  }
  return list
}

/** Sends the bytes and waits for `count` answers (fewer when the server closes before). */
async function talk(bytes, { count = 1, heads } = {}) {
  const d = dial()
  d.send(bytes)
  const answers = await until(`an answer to ${JSON.stringify(String(bytes).slice(0, 120))}`, () => {
    const list = d.data.length ? parse(d.text(), heads) : null
    return list && (list.length >= count || d.closed) ? list : d.closed ? list ?? [] : null
  }, 15000)
  d.socket.destroy()
  return answers
}

function checkEnvelope(a, about) {
  assert.match(a.headers['content-type'] ?? '', /^application\/json/, about)
  const { error } = JSON.parse(a.body)
  assert.deepEqual(Object.keys(error).sort(), ['code', 'message', 'param', 'type'], about)
  assert.equal(typeof error.message, 'string')
  return error
}

const head = (line, ...headers) => [line, `Host: ${host}`, ...headers, '', ''].join('\r\n')
const post = (path, body, ...headers) => head(`POST ${path} HTTP/1.1`, 'Content-Type: application/json', `Content-Length: ${Buffer.byteLength(body)}`, ...headers) + Buffer.from(body).toString('latin1')
const isWell = async () => assert.equal((await s.health()).status, 'ok')

test('what cannot be framed without doubt is refused, and the connection closed', async () => {
  const json = 'Content-Type: application/json'
  const cases = {
    'both lengths': head('POST /v1/jobs HTTP/1.1', json, 'Content-Length: 4', 'Transfer-Encoding: chunked') + '0\r\n\r\n',
    'TE before CL': head('POST /v1/jobs HTTP/1.1', json, 'Transfer-Encoding: chunked', 'Content-Length: 4') + '0\r\n\r\n',
    'two lengths': head('POST /v1/jobs HTTP/1.1', json, 'Content-Length: 2', 'Content-Length: 3') + '{}x',
    'the same length twice': head('POST /v1/jobs HTTP/1.1', json, 'Content-Length: 2', 'Content-Length: 2') + '{}',
    'a list of lengths': head('POST /v1/jobs HTTP/1.1', json, 'Content-Length: 2, 2') + '{}',
    'a signed length': head('POST /v1/jobs HTTP/1.1', json, 'Content-Length: +2') + '{}',
    'a negative length': head('POST /v1/jobs HTTP/1.1', json, 'Content-Length: -2') + '{}',
    'a hexadecimal length': head('POST /v1/jobs HTTP/1.1', json, 'Content-Length: 0x2') + '{}',
    'a length beyond 64 bits': head('POST /v1/jobs HTTP/1.1', json, 'Content-Length: 18446744073709551618') + '{}',
    'an unknown coding': head('POST /v1/jobs HTTP/1.1', json, 'Transfer-Encoding: gzip, chunked') + '0\r\n\r\n',
    'chunked not last': head('POST /v1/jobs HTTP/1.1', json, 'Transfer-Encoding: chunked, identity') + '0\r\n\r\n',
    'chunked twice': head('POST /v1/jobs HTTP/1.1', json, 'Transfer-Encoding: chunked', 'Transfer-Encoding: chunked') + '0\r\n\r\n',
    'a hidden coding': head('POST /v1/jobs HTTP/1.1', json, 'Transfer-Encoding: xchunked') + '0\r\n\r\n',
    'a space before the colon': head('GET /health HTTP/1.1', 'Content-Length : 0'),
    'a folded header': head('GET /health HTTP/1.1', 'X-A: 1', ' Content-Length: 5'),
    'a bare LF': `GET /health HTTP/1.1\nHost: ${host}\n\n`,
    'a bare CR in a header': head('GET /health HTTP/1.1', 'X-A: 1\rX-B: 2'),
    'a NUL in a header': head('GET /health HTTP/1.1', 'X-A: 1\0'),
    'a bad chunk size': head('POST /v1/jobs HTTP/1.1', json, 'Transfer-Encoding: chunked') + 'zz\r\n{}\r\n0\r\n\r\n',
    'a huge chunk size': head('POST /v1/jobs HTTP/1.1', json, 'Transfer-Encoding: chunked') + 'ffffffffffffffffff\r\n',
    'a chunk longer than it says': head('POST /v1/jobs HTTP/1.1', json, 'Transfer-Encoding: chunked') + '1\r\n{}\r\n0\r\n\r\n',
    'no version': 'GET /health\r\n\r\n',
    'a wrong version': head('GET /health HTTP/3.7'),
    'no method': head(' /health HTTP/1.1'),
    'no host': 'GET /health HTTP/1.1\r\n\r\n',
    'two hosts': head('GET /health HTTP/1.1', 'Host: localhost'),
    'TLS': '\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03' + 'x'.repeat(80),
    'HTTP/2': 'PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n',
    'noise': Buffer.from(Array.from({ length: 300 }, (_, i) => (i * 97 + 13) & 255)).toString('latin1'),
  }
  for (const [what, bytes] of Object.entries(cases)) {
    const answers = await talk(bytes + head('GET /v1/smuggled HTTP/1.1'), { count: 2 })
    assert.equal(answers.length, 1, `${what}: ${JSON.stringify(answers)}`)
    assert.ok([400, 403, 405, 413, 501, 505].includes(answers[0].status), `${what}: ${answers[0].status}`)
    checkEnvelope(answers[0], what)
  }
  await isWell()
})

test('targets', async () => {
  const cases = [
    ['/%2e%2e/%2e%2e/etc/passwd', 400], ['/outputs/%2e%2e/data/mysti.log', 404], ['/outputs/..%2f..%2fetc%2fpasswd', 400], ['/outputs/x%00.png', 400], ['/%ff', 400], ['/%', 400],
    ['/%zz', 400], ['/outputs/%5c..%5cx', 404], ['//etc/passwd', 404, 200], ['/v1/models/%2e%2e', 404], [`http://${host}/health`, 200], ['http://evil.example/health', 400], ['health', 400],
    ['/health#x', 400], ['/health?' + 'a=b&'.repeat(500), 200], ['*', 400], ['/' + 'a'.repeat(20000), 404, 200, 414, 431], ['/health?x=%00', 200, 400], ['/v1/jobs?limit=%00', 400, 200], ['/v1/history/images?q=%ff', 200, 400],
  ]
  for (const [target, ...wanted] of cases) {
    const [a] = await talk(head(`GET ${target} HTTP/1.1`))
    assert.ok(wanted.includes(a.status), `${target.slice(0, 60)}: ${a.status} ${a.body.slice(0, 200)}`)
    if (a.status >= 400) checkEnvelope(a, target)
    assert.doesNotMatch(a.body, /root:|mysti_server|\[INFO\]/)
  }
})

test('who is asked for', async () => {
  for (const h of ['evil.example', 'localhost.evil.example', '', 'localhost:x', '127.0.0.1.evil.example', '[::1', 'user@localhost'])
    checkEnvelope((await talk(`GET /v1/models HTTP/1.1\r\nHost: ${h}\r\n\r\n`)).map((a) => (assert.ok([400, 403].includes(a.status), `${h}: ${a.status}`), a))[0], h)
  for (const h of ['localhost', `LOCALHOST:${s.port}`, '[::1]:80', '127.0.0.1']) assert.equal((await talk(`GET /v1/models HTTP/1.1\r\nHost: ${h}\r\n\r\n`))[0].status, 200, h)
})

test('methods: 405 names those that are allowed; HEAD and OPTIONS everywhere', async () => {
  const routes = { '/health': 'GET', '/v1/models': 'GET', '/v1/jobs': 'GET, POST', '/v1/settings': 'GET, PUT', '/v1/chat/completions': 'POST', '/v1/images/generations': 'POST', '/v1/history/images/1': 'GET, DELETE', '/v1/logs': 'GET', '/v1/options': 'GET', '/v1/progress': 'GET', '/v1/events': 'GET', '/v1/stream/progress': 'GET', '/outputs/x.png': 'GET' }
  for (const [path, methods] of Object.entries(routes)) {
    for (const method of ['GET', 'POST', 'PUT', 'DELETE', 'PATCH', 'TRACE', 'OPTIONS'].filter((m) => !methods.split(', ').includes(m))) {
      const [a] = await talk(head(`${method} ${path} HTTP/1.1`))
      if (method === 'TRACE') {
        assert.ok([405, 501].includes(a.status), `${method} ${path}: ${a.status}`)
        continue
      }
      assert.equal(a.status, method === 'OPTIONS' ? 204 : 405, `${method} ${path}`)
      for (const m of methods.split(', ')) assert.ok(a.headers.allow.split(', ').includes(m), `${path}: ${a.headers.allow}`)
      if (a.status === 405) checkEnvelope(a)
    }
    const two = await talk(head(`HEAD ${path} HTTP/1.1`) + head('GET /health HTTP/1.1'), { count: 2, heads: [true] })
    assert.ok(methods.includes('GET') ? [200, 404].includes(two[0].status) : two[0].status === 405, `HEAD ${path}: ${two[0].status}`)
    assert.equal(two[1]?.status, 200, `HEAD ${path} has no body, and the connection goes on`)
  }
  assert.equal((await talk(head('BREW /health HTTP/1.1')))[0].status, 501)
  assert.equal((await talk(head('OPTIONS * HTTP/1.1')))[0].status, 204)
})

test('bodies that are no JSON of ours', async () => {
  const cases = ['', 'null', '[]', '7', '"x"', '{', '{"prompt":', "{'prompt':'x'}", '{"prompt":"x"}x', '{"prompt":"\\ud800"}', '{"prompt":"a\\u0000b"}', '[' .repeat(100000), '{"a":'.repeat(50000), '{"prompt":"x","steps":1e999}',
    '{"prompt":"x","steps":' + '9'.repeat(5000) + '}', '{"prompt":"x","seed":-0.0e-0x}', '\ufeff{"prompt":', '{"prompt":"x",}', '// x\n{}', 'NaN', '{"prompt":"tab\there"}']
  for (const path of ['/v1/jobs', '/v1/images/generations', '/v1/chat/completions', '/v1/models/load', '/v1/images/inspect', '/v1/prompt/enhance', '/v1/settings'])
    for (const body of cases) {
      const request = path === '/v1/settings' ? post(path, body).replace('POST', 'PUT') : post(path, body)
      if (path === '/v1/settings' && /^\{"prompt":"(x","steps":9|a\\u0000b)/.test(body)) continue // settings are any JSON
      const [a] = await talk(request)
      assert.ok(a.status >= 400 && a.status < 500, `${path} ${body.slice(0, 60)}: ${a.status} ${a.body.slice(0, 200)}`)
      checkEnvelope(a, `${path} ${body.slice(0, 60)}`)
    }
  const invalid = Buffer.from('{"prompt":"\xff\xfe"}', 'latin1').toString('latin1')
  for (const path of ['/v1/jobs', '/v1/chat/completions']) {
    const [a] = await talk(head(`POST ${path} HTTP/1.1`, 'Content-Type: application/json', `Content-Length: ${invalid.length}`) + invalid)
    assert.equal(a.status, 400)
    checkEnvelope(a)
  }
  await isWell()
})

test('too much: headers and bodies', async () => {
  for (const [what, bytes] of Object.entries({
    'one long header': head('GET /health HTTP/1.1', `X-A: ${'a'.repeat(100000)}`), 'many headers': head('GET /health HTTP/1.1', ...Array.from({ length: 20000 }, (_, i) => `X-${i}: y`)),
    'a long target': `GET /${'a'.repeat(100000)} HTTP/1.1\r\nHost: ${host}\r\n\r\n`,
  })) {
    const [a] = await talk(bytes)
    assert.ok([400, 413, 414, 431].includes(a?.status), `${what}: ${a?.status}`)
    checkEnvelope(a, what)
  }
  for (const path of ['/v1/models/load', '/v1/jobs', '/v1/nope', '/v1/settings']) {
    const [a] = await talk(head(`${path === '/v1/settings' ? 'PUT' : 'POST'} ${path} HTTP/1.1`, 'Content-Type: application/json', 'Content-Length: 9999999999'))
    assert.ok([404, 413].includes(a.status), `${path}: ${a.status} before the body comes`)
    checkEnvelope(a)
  }
  const [a] = await talk(head('POST /v1/models/load HTTP/1.1', 'Content-Type: application/json', 'Transfer-Encoding: chunked') + ('8000\r\n' + 'x'.repeat(0x8000) + '\r\n').repeat(8))
  assert.equal(a.status, 413)
})

test('expect, chunks, pipelining, HTTP/1.0, half-close', async () => {
  const asks = dial()
  asks.send(head('POST /v1/images/inspect HTTP/1.1', 'Content-Type: application/json', 'Content-Length: 2', 'Expect: 100-continue'))
  await until('100', () => asks.text() === 'HTTP/1.1 100 Continue\r\n\r\n')
  asks.send('{}')
  await until('400', () => parse(asks.text())?.[1]?.status === 400)
  asks.socket.destroy()
  const chunked = await talk(head('POST /v1/images/inspect HTTP/1.1', 'Content-Type: application/json', 'Transfer-Encoding: chunked') + '1;x=y\r\n{\r\n01\r\n}\r\n0\r\nTrailer: x\r\n\r\n')
  assert.equal(checkEnvelope(chunked[0]).param, 'image')
  const paths = Array.from({ length: 50 }, (_, i) => i % 2 ? '/v1/progress' : `/v1/models/none-${i}`)
  const many = await talk(paths.map((p) => head(`GET ${p} HTTP/1.1`)).join(''), { count: 50 })
  assert.deepEqual(many.map((x) => x.status), paths.map((p) => p === '/v1/progress' ? 200 : 404))
  many.forEach((x, i) => i % 2 || assert.ok(x.body.includes(`none-${i}'`), 'in order'))
  const old = dial()
  old.send(`GET /health HTTP/1.0\r\nHost: ${host}\r\n\r\n`)
  await until('HTTP/1.0 closes', () => old.closed)
  assert.match(old.text(), /^HTTP\/1\.1 200 /)
  const events = dial()
  events.send(`GET /v1/events HTTP/1.0\r\nHost: ${host}\r\n\r\n`)
  await until('events', () => events.text().includes('event: hello'))
  assert.doesNotMatch(events.text(), /chunked/i)
  events.socket.destroy()
  const half = dial()
  half.send(head('GET /health HTTP/1.1'))
  half.socket.end()
  await until('the answer or the end', () => half.closed)
  const nothing = dial()
  nothing.socket.end()
  await until('the end', () => nothing.closed)
  const partial = dial()
  partial.send('GET /hea')
  partial.socket.end()
  await until('the end', () => partial.closed)
  const bytewise = dial()
  for (const c of head('GET /health HTTP/1.1')) bytewise.send(c)
  await until('the answer', () => parse(bytewise.text())?.[0]?.status === 200)
  bytewise.socket.destroy()
})

test('slow clients are shown the door, and nobody else waits for them', async () => {
  const slow = []
  for (let i = 0; i < 8; i++) {
    const d = dial()
    d.send(i % 2 ? `GET /health HTTP/1.1\r\nHost: ${host}\r\n` : head('POST /v1/models/unload HTTP/1.1', 'Content-Type: application/json', 'Content-Length: 100000'))
    slow.push(d)
  }
  const drip = setInterval(() => slow.forEach((d, i) => d.closed || d.send(i % 2 ? 'X-A: b\r\n' : ' ')), 1000)
  try {
    await isWell()
    const heads = slow.filter((_, i) => i % 2)
    await until('slow heads cut off', () => heads.every((d) => d.closed), 20000)
    for (const d of heads) {
      const [a] = parse(d.text())
      assert.equal(a.status, 408)
      checkEnvelope(a)
    }
    await isWell()
  } finally {
    clearInterval(drip)
    slow.forEach((d) => d.socket.destroy())
  }
})

test('clients that vanish in the middle', async () => {
  const fd = () => readFileSync(`/proc/${s.process.pid}/limits`, 'utf8') && import('node:fs').then((fs) => fs.readdirSync(`/proc/${s.process.pid}/fd`).length)
  const before = await fd()
  for (let i = 0; i < 60; i++) {
    const d = dial()
    const requests = [head('GET /v1/models HTTP/1.1'), head('GET /v1/events HTTP/1.1'), post('/v1/chat/completions', '{"messages":[{"role":"user","content":"x"}],"stream":true,"max_tokens":500}'),
      post('/v1/images/generations', JSON.stringify(small)), post('/v1/jobs', '{"prompt":').slice(0, -4), head('GET / HTTP/1.1').repeat(20)]
    d.send(requests[i % requests.length])
    await sleep(i % 7)
    if (i % 2) d.socket.resetAndDestroy()
    else d.socket.destroy()
  }
  await until('all jobs over', async () => (await s.get('/v1/jobs?status=queued,running')).data.length === 0)
  await until('all sockets closed', async () => (await fd()) <= before + 6)
  await until('the workers idle', async () => { const { workers } = await s.health(); return workers.sd.activity === 'idle' && workers.llm.activity === 'idle' })
})

test('64 clients, 20 requests each, while a picture is made and a stream runs', async () => {
  const job = await s.post('/v1/jobs', long, 202)
  await until('it runs', async () => (await s.get(`/v1/jobs/${job.id}`)).status === 'running')
  const stream = readChat(await s.request('POST', '/v1/chat/completions', { messages: [{ role: 'user', content: 'x' }], stream: true, max_tokens: 400, ignore_eos: true }))
  const paths = ['/health', '/v1/models', '/v1/jobs', '/v1/progress', '/v1/history/images', '/v1/options', '/v1/settings', '/v1/nope', '/outputs/none.png', '/v1/models/nobody']
  const times = []
  await Promise.all(Array.from({ length: 64 }, async (_, client) => {
    for (let i = 0; i < 20; i++) {
      const path = paths[(client + i) % paths.length]
      const started = performance.now()
      const r = await s.request('GET', path)
      const body = await r.json()
      times.push(performance.now() - started)
      assert.equal(r.status, /no(pe|ne\.png|body)$/.test(path) ? 404 : 200, path)
      assert.ok(r.status === 200 || body.error.message)
    }
  }))
  times.sort((a, b) => a - b)
  console.log(`1,280 requests: median ${times[640].toFixed(1)} ms, 99th percentile ${times[1267].toFixed(1)} ms`)
  const answer = await stream
  assert.ok(answer.done && answer.finish === 'length')
  assert.equal((await s.get(`/v1/jobs/${job.id}`)).status, 'running', 'the picture was being made all the while')
  await s.post(`/v1/jobs/${job.id}/cancel`)
  await s.jobEnd(job.id)
})

test('1,000 idle event streams', async () => {
  const rss = () => Number(readFileSync(`/proc/${s.process.pid}/status`, 'utf8').match(/VmRSS:\s+(\d+)/)[1])
  const before = rss()
  const all = []
  for (let i = 0; i < 1000; i++) {
    const d = dial()
    d.send(head('GET /v1/events HTTP/1.1'))
    all.push(d)
    if (i % 100 === 99) await until('hello', () => all.every((x) => x.text().includes('event: hello')))
  }
  console.log(`1,000 event streams: server's RSS ${before} -> ${rss()} KiB`)
  await isWell()
  await s.post('/v1/images/generations', small)
  await until('everybody heard of the picture', () => all.every((d) => d.text().includes('event: image\r\n') || d.text().includes('event: image\n')))
  all.forEach((d) => d.socket.destroy())
  await isWell()
})
