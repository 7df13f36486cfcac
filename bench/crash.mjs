// crash.mjs - what a crash costs with the demo models, from outside: `node bench/crash.mjs [MODEL.safetensors]`
// A further model (a big one, say) is killed and restored like the demo model.
import { spawn } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { cpus, tmpdir } from 'node:os'
import { basename, join } from 'node:path'
import { BIN, Studio, demoModels, freePorts, sleep, sse, until } from '../tests/e2e/studio.mjs'

const KILLS = 15, STREAMS = 20, PAIRS = 8, STEPS = 12
const sorted = (a) => [...a].sort((x, y) => x - y)
const median = (a) => sorted(a)[a.length >> 1]
const p95 = (a) => sorted(a)[Math.min(a.length - 1, Math.floor(a.length * 0.95))]
const line = (what, a) =>
  console.log(`${what.padEnd(66)} median ${median(a).toFixed(0)} ms, p95 ${p95(a).toFixed(0)} ms, max ${Math.max(...a).toFixed(0)} ms (n=${a.length})`)

/** Milliseconds from kill -9 until the worker's model is back, KILLS times. */
async function restores(s, worker) {
  const kind = worker.toUpperCase(), out = []
  for (let i = 0; i < KILLS; i++) {
    await s.ready()
    await s.loaded()
    const from = s.mark(), start = performance.now()
    await s.kill(worker)
    while (!s.log.slice(from).includes(`${kind} model restored successfully`)) await sleep(1)
    out.push(performance.now() - start)
    await sleep(1200) // long enough apart to be no crash loop
  }
  return out
}

/** The longest time between two pieces of a streamed answer whose worker is killed in between, STREAMS times. */
async function pauses(s) {
  const out = []
  for (let i = 0; i < STREAMS; i++) {
    await s.ready()
    await s.loaded()
    const r = await s.request('POST', '/v1/chat/completions', { stream: true, max_tokens: 200, ignore_eos: true,
      messages: [{ role: 'user', content: 'a red circle on a blue background' }] })
    let pieces = 0, last = 0, longest = 0
    for await (const e of sse(r)) {
      if (e.data === '[DONE]') break
      const now = performance.now()
      if (pieces) longest = Math.max(longest, now - last)
      last = now
      if (++pieces === 20) s.kill('llm')
    }
    if (pieces < 40) throw new Error(`the answer ended after ${pieces} pieces`)
    out.push(longest)
    await sleep(1200)
  }
  return out
}

/** Milliseconds a step at 512x512 without and with a checkpoint after each step, from the image worker alone. */
async function checkpointCost(model) {
  const dir = mkdtempSync(join(tmpdir(), 'mysti-bench-')), port = await freePorts()
  const worker = spawn(join(BIN, 'mysti_sd_worker'), ['--port', String(port)],
    { stdio: ['pipe', 'ignore', 'ignore'], env: { ...process.env, MYSTI_TOKEN: 'bench' } })
  const ask = (path, body) => fetch(`http://127.0.0.1:${port}/internal/${path}`, { method: body ? 'POST' : 'GET',
    body: body && JSON.stringify(body), headers: { 'X-Mysti-Token': 'bench', 'Content-Type': 'application/json' } })
  await until('the worker answers', () => ask('health').catch(() => null))
  await (await ask('load', { model })).json()
  const step = async (more) => {
    const r = await ask('generate', { job: 'j-1', prompt: 'a red circle', negative_prompt: '', width: 512, height: 512, steps: STEPS,
      cfg_scale: 7, sampler: 'euler_a', scheduler: 'discrete', seed: 1, output_dir: dir, file_stem: 'p', format: 'png', preview: false, ...more })
    const lines = (await r.text()).trim().split('\n').map(JSON.parse).filter((l) => l.event === 'progress' && l.step > 1)
    return lines.reduce((sum, l) => sum + l.step_ms, 0) / lines.length
  }
  const without = [], withOne = []
  for (let i = 0; i < PAIRS; i++) {
    without.push(await step({}))
    withOne.push(await step({ checkpoint: join(dir, 'j.ckpt') }))
  }
  worker.stdin.end()
  await new Promise((ok) => worker.on('exit', ok))
  rmSync(dir, { recursive: true, force: true })
  return { without, withOne }
}

const demo = demoModels()
if (demo.missing) throw new Error(demo.missing)
console.log(`${cpus().length} x ${cpus()[0].model.trim()}`)
const further = process.argv[2]
const s = await Studio.start({ models: false, link: { ...demo.link, ...(further && { [basename(further)]: further }) }, args: further ? ['--no-restore'] : [] })
if (further) { // with a model of one's own there, nothing is loaded at first
  for (const m of (await s.get('/v1/models')).data.filter((m) => m.demo)) await s.post(m.type === 'llm' ? '/v1/llm/load' : '/v1/models/load', { model_id: m.id })
}
await s.loaded()
line('kill -9 of the image worker until the demo model is back', await restores(s, 'sd'))
line('kill -9 of the text worker until the demo model is back', await restores(s, 'llm'))
line('streamed answer, longest pause with a kill in mid-stream', await pauses(s))
if (further) {
  await s.loadImageModel(basename(further))
  line(`kill -9 of the image worker until ${basename(further)} is back`, await restores(s, 'sd'))
}
await s.stop()
await s.cleanup()
const { without, withOne } = await checkpointCost(Object.values(demo.link).find((f) => f.endsWith('.safetensors')))
line('step of the demo model at 512x512', without)
line('the same with a checkpoint after each step', withOne)
console.log(`a checkpoint costs ${(100 * (median(withOne) / median(without) - 1)).toFixed(2)} % of that step`)
process.exit(0)
