// hang.test.mjs - processes that live and do nothing: a thread of theirs is held by a tracer, as a driver would hold it.
// Linux, and the right to trace one's own processes; a minute long, for that is how long work may stand still.
import { describe, test } from 'node:test'
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { copyFileSync, mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { BIN, Studio, isAlive, readChat, sleep, until } from './studio.mjs'

const SLOW = 'tiny-llm-slow.gguf'
const talk = { messages: [{ role: 'user', content: 'tell me a story' }], max_tokens: 120, ignore_eos: true, stream: true, seed: 3 }

/** Stops these threads of the process, and no other; the tracer goes away with the process. Throws where that is not allowed. */
async function hold(pid, threads) {
  const p = spawn('/usr/bin/python3', ['-c', `
import ctypes, os, sys, time
libc = ctypes.CDLL(None, use_errno=True)
libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
for t in map(int, sys.argv[1:]):
    if libc.ptrace(0x4206, t, None, None) or libc.ptrace(0x4207, t, None, None):
        sys.exit(os.strerror(ctypes.get_errno()))
    os.waitpid(t, 0x40000000)
print("held", flush=True)
while True:
    try: os.waitpid(-1, 0x40000000)
    except ChildProcessError: break
`, ...threads.map(String)], { stdio: ['ignore', 'pipe', 'pipe'] })
  let why = ''
  p.stderr.on('data', (d) => { why += d })
  return new Promise((ok, no) => {
    p.stdout.once('data', () => ok(p))
    p.once('exit', () => no(new Error(`process ${pid} cannot be traced: ${why.trim()}`)))
  })
}

const threadsOf = (pid) => readdirSync(`/proc/${pid}/task`).map(Number)
const others = (pid) => threadsOf(pid).filter((t) => t !== pid) // all but the one that answers

/** True when the test has to be left out. */
const skipped = async (t, fn) => fn().then(() => false, (e) => {
  if (process.platform === 'linux' && !/not permitted|ENOENT/.test(e.message)) throw e
  t.skip(e.message)
  return true
})

/** A new process with its model, and the old one is gone. */
const replaced = (s, worker, pid, ms) => until(`a new ${worker} worker`, async () => {
  const w = (await s.health()).workers[worker]
  return w.pid && w.pid !== pid && w.state === 'ready' && w.loaded && !isAlive(pid)
}, ms)

const alerts = (ev) => ev.list.filter((e) => e.event === 'alert').map((e) => JSON.parse(e.data).code)

describe('hangs', { concurrency: true }, () => {
  test('an engine is stuck while health is fine, with its job or before it took it up: replaced, and the work goes on', async (t) => {
    const s = await Studio.start({ args: ['--threads', '1'] })
    try {
      await s.loadImageModel()
      await s.loadLlm(SLOW)
      const ev = s.events('/v1/events')
      const picture = { prompt: 'a red cube', width: 64, height: 64, steps: 2, seed: 1 }
      const want = await (await s.request('POST', '/v1/chat/completions', talk)).text().then((x) => readChat(new Response(x)))
      const wanted = await s.post('/v1/images/generations', picture)
      const pids = [await s.pid('sd'), await s.pid('llm')]
      let pieces = 0
      const answer = s.request('POST', '/v1/chat/completions', talk).then((r) => readChat(r, () => { pieces++ }))
      await until('it is at work', () => pieces > 5, 60000)
      const began = Date.now()
      if (await skipped(t, () => Promise.all(pids.map((pid) => hold(pid, others(pid)))))) return
      const image = s.post('/v1/images/generations', picture)
      await sleep(5000)
      for (const w of Object.values((await s.health()).workers)) assert.deepEqual([w.state, w.activity], ['ready', 'busy'], 'nobody is hasty')
      await Promise.all([replaced(s, 'sd', pids[0], 120000), replaced(s, 'llm', pids[1], 120000)])
      assert.ok(Date.now() - began > 55000)
      assert.equal(alerts(ev).filter((c) => c === 'worker_stalled').length, 2)
      assert.equal((await image).data[0].b64_json, wanted.data[0].b64_json)
      const got = await answer
      assert.deepEqual([got.text, got.finish, got.error], [want.text, 'length', null])
    } finally { await s.cleanup() }
  })

  test('a worker that takes connections and never answers, with an engine that works on', async (t) => {
    const s = await Studio.start()
    try {
      await s.loadLlm(SLOW)
      const ev = s.events('/v1/events')
      const want = await readChat(await s.request('POST', '/v1/chat/completions', talk))
      const pid = await s.pid('llm')
      let pieces = 0
      const answer = s.request('POST', '/v1/chat/completions', talk).then((r) => readChat(r, () => { pieces++ }))
      await until('it is at work', () => pieces > 5, 60000)
      if (await skipped(t, () => hold(pid, [pid]))) return
      await replaced(s, 'llm', pid, 60000)
      assert.ok(alerts(ev).includes('worker_hung'))
      assert.equal((await answer).text, want.text)
    } finally { await s.cleanup() }
  })

  test('a worker that never answers at all is started again, and the other one is not concerned', { skip: process.platform === 'win32' && 'a script cannot stand for a program here' }, async () => {
    const bin = mkdtempSync(join(BIN, '../bin-'))
    for (const p of ['mysti_server', 'mysti_sd_worker']) copyFileSync(join(BIN, p), join(bin, p))
    writeFileSync(join(bin, 'mysti_llm_worker'), `#!/bin/sh
if mkdir "$0.first" 2>/dev/null; then exec node -e 'require("net").createServer(() => {}).listen(+process.argv[1], "127.0.0.1")' "$2"; fi
exec '${join(BIN, 'mysti_llm_worker')}' "$@"
`, { mode: 0o755 })
    const s = await Studio.start({ bin, wait: false })
    try {
      await until('the image worker', async () => (await s.health().catch(() => null))?.workers.sd.state === 'ready')
      await s.loadImageModel()
      await s.post('/v1/images/generations', { prompt: 'a', width: 64, height: 64, steps: 1 })
      assert.equal((await s.health()).workers.llm.state, 'starting')
      await s.ready(90000)
      assert.match(readFileSync(join(s.dir, 'server.log'), 'utf8'), /The text worker did not come up and is started again/)
      await s.loadLlm(SLOW)
    } finally {
      await s.cleanup()
      rmSync(bin, { recursive: true })
    }
  })
})
