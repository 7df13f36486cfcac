// server.mjs - figures of the orchestrator, from outside: `node bench/server.mjs`
import { chmodSync, cpSync, mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { connect } from 'node:net'
import { cpus, tmpdir } from 'node:os'
import { join } from 'node:path'
import { BIN, Studio, freePorts, sleep, until } from '../tests/e2e/studio.mjs'

const median = (a) => [...a].sort((x, y) => x - y)[a.length >> 1]
const p95 = (a) => [...a].sort((x, y) => x - y)[Math.floor(a.length * 0.95)]
const rssMb = (pid) => Number(readFileSync(`/proc/${pid}/status`, 'utf8').match(/VmRSS:\s+(\d+)/)[1]) / 1024
const line = (what, value) => console.log(`${what.padEnd(62)} ${value}`)

/** Milliseconds between two lines of the log (both stamps are the server's). */
function between(log, first, second) {
  const at = (m) => { const [h, mi, s] = m[1].split(':'); return ((+h * 60 + +mi) * 60 + +s) * 1000 }
  const a = log.match(new RegExp(`\\[([\\d:.]+)\\][^\\n]*${first}`)), rest = log.slice(a.index)
  const b = rest.match(new RegExp(`\\[([\\d:.]+)\\][^\\n]*${second}`))
  return Math.round(at(b) - at(a))
}

/** Tries to connect until it works; resolves with the time. */
const listening = async (port) => {
  for (;;) {
    const ok = await new Promise((done) => { const c = connect(port, '127.0.0.1', () => { c.destroy(); done(true) }); c.on('error', () => done(false)) })
    if (ok) return process.hrtime.bigint()
    await new Promise((r) => setImmediate(r))
  }
}

async function lifecycle() {
  const s = await Studio.start()
  await sleep(2000)
  line('server, idle, resident memory', `${rssMb(s.process.pid).toFixed(1)} MB`)
  await s.loadImageModel(); await s.loadLlm()
  for (const worker of ['sd', 'llm']) {
    const kind = worker.toUpperCase(), port = s.port + (worker === 'sd' ? 1 : 2), ups = [], spawns = [], backs = []
    for (let i = 0; i < 7; i++) {
      if (worker === 'sd') await s.post('/v1/images/generations', { prompt: 'x', width: 64, height: 64, steps: 1 })
      else await s.post('/v1/completions', { prompt: 'x', max_tokens: 2 })
      const from = s.mark(), pid = await s.pid(worker)
      const t0 = process.hrtime.bigint()
      process.kill(pid, 'SIGKILL')
      await until('gone', () => s.log.slice(from).includes('Spawning'))
      const up = await listening(port)
      ups.push(Number(up - t0) / 1e6)
      await s.logged(new RegExp(`${kind} model restored successfully`), from)
      const log = s.log.slice(from)
      spawns.push(between(log, 'Detected', 'Spawning'))
      backs.push(between(log, 'Detected', `${kind} model restored`))
      await s.ready()
    }
    line(`${worker}: kill -9 to the next process listening`, `median ${median(ups).toFixed(0)} ms, max ${Math.max(...ups).toFixed(0)} ms (n=${ups.length})`)
    line(`${worker}: death noticed to the next process spawned`, `median ${median(spawns)} ms, max ${Math.max(...spawns)} ms`)
    line(`${worker}: death noticed to the tiny model restored`, `median ${median(backs)} ms, max ${Math.max(...backs)} ms`)
  }
  await s.stop(); await s.cleanup()
}

// ---- what the relay adds to a token: a stand-in worker sends tokens that carry the time at which they were sent

const fakeWorker = `#!/usr/bin/env node
const http = require('http'); const port = +process.argv[process.argv.indexOf('--port') + 1]
process.stdin.resume(); process.stdin.on('end', () => process.exit(0))
http.createServer((q, r) => {
  if (q.url === '/internal/health') return r.end(JSON.stringify({ ok: true, service: 'llm', version: '0', pid: process.pid, state: 'idle', model: null, progress: null, memory: [], rss: 0 }))
  q.resume(); q.on('end', () => {
    if (q.url !== '/internal/complete') return r.end('{"model":{}}')
    r.socket.setNoDelay(true)
    r.writeHead(200, { 'Content-Type': 'application/x-ndjson' })
    r.write('{"event":"start","prompt_tokens":1,"cached_tokens":0}\\n')
    let n = 0; const t = setInterval(() => {
      if (n++ < 1000) r.write(JSON.stringify({ event: 'token', ids: [n], text: '<' + process.hrtime.bigint() + '>' }) + '\\n')
      else { clearInterval(t); r.end('{"event":"done","finish_reason":"stop","prompt_tokens":1,"completion_tokens":1000}\\n') }
    }, 5)
  })
}).listen(port, '127.0.0.1')
`

/** Latencies in microseconds of the stamps that come back on a raw socket. */
const latencies = (port, path, headers, body) => new Promise((done, fail) => {
  const out = [], c = connect(port, '127.0.0.1')
  c.setNoDelay(true)
  c.write(`POST ${path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n${headers}Content-Length: ${body.length}\r\n\r\n${body}`)
  c.on('data', (d) => {
    const now = process.hrtime.bigint(), text = d.toString('latin1')
    for (const m of text.matchAll(/<(\d{6,})>/g)) out.push(Number(now - BigInt(m[1])) / 1000)
    if (/\[DONE\]|"event":"done"/.test(text)) { c.destroy(); done(out) }
  })
  c.on('error', fail)
})

async function relay(idleStreams) {
  const dir = mkdtempSync(join(tmpdir(), 'mysti-bench-'))
  for (const f of readdirSync(BIN)) if (f !== 'public') cpSync(join(BIN, f), join(dir, f), { dereference: true })
  writeFileSync(join(dir, 'mysti_llm_worker'), fakeWorker)
  chmodSync(join(dir, 'mysti_llm_worker'), 0o755)
  process.env.MYSTI_BIN = dir
  const { Studio: S } = await import('../tests/e2e/studio.mjs?fake')
  const s = await S.start()
  await s.loadLlm()
  const before = rssMb(s.process.pid), idle = []
  for (let i = 0; i < idleStreams; i++) {
    const c = connect(s.port, '127.0.0.1')
    c.on('data', () => {}); c.on('error', () => {})
    await new Promise((ok) => c.on('connect', ok))
    c.write('GET /v1/events HTTP/1.1\r\nHost: localhost\r\n\r\n')
    idle.push(c)
  }
  await sleep(500)
  line(`server with ${idleStreams} idle event streams, resident memory`, `${rssMb(s.process.pid).toFixed(1)} MB (${before.toFixed(1)} MB without)`)
  const body = JSON.stringify({ messages: [{ role: 'user', content: 'x' }], stream: true })
  const through = await latencies(s.port, '/v1/chat/completions', '', body)
  const port = await freePorts()
  const { spawn } = await import('node:child_process')
  const direct = spawn(join(dir, 'mysti_llm_worker'), ['--port', String(port)], { stdio: ['pipe', 'ignore', 'inherit'] })
  await listening(port)
  const straight = await latencies(port, '/internal/complete', '', '{}')
  direct.kill()
  line('token, worker straight to the client', `p50 ${median(straight).toFixed(0)} us, p95 ${p95(straight).toFixed(0)} us (n=${straight.length})`)
  line('token, through the server', `p50 ${median(through).toFixed(0)} us, p95 ${p95(through).toFixed(0)} us`)
  line('the relay adds', `p50 ${(median(through) - median(straight)).toFixed(0)} us`)
  for (const c of idle) c.destroy()
  await s.stop(); await s.cleanup()
  rmSync(dir, { recursive: true, force: true })
}

console.log(`${cpus().length} x ${cpus()[0].model.trim()}`)
await lifecycle()
await relay(1000)
process.exit(0)
