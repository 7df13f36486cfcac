// crash.mjs - what a crash costs, from outside, with the aims beside the figures:
//   node bench/crash.mjs [--image M.safetensors] [--llm M.gguf] [--big M.safetensors] [--kills 15] [--streams 20]
//     [--pairs 8] [--side 512] [--steps 12]
// Without --image and --llm the demo models are taken (models/demo). --big is a further image model, for the aim of 2 GB
// models: bench/random_model.py makes one. Files are read once before, so that they are in the file cache.
import { execFileSync, spawn } from 'node:child_process'
import { mkdtempSync, readdirSync, rmSync, statSync } from 'node:fs'
import { cpus, tmpdir } from 'node:os'
import { basename, join, resolve } from 'node:path'
import { parseArgs } from 'node:util'
import { BIN, Studio, demoModels, freePorts, isAlive, sleep, sse, until } from '../tests/e2e/studio.mjs'

const { values: o } = parseArgs({ options: { image: { type: 'string' }, llm: { type: 'string' }, big: { type: 'string' },
  kills: { type: 'string', default: '15' }, streams: { type: 'string', default: '20' }, pairs: { type: 'string', default: '8' },
  side: { type: 'string', default: '512' }, steps: { type: 'string', default: '12' } } })
const KILLS = Number(o.kills), STREAMS = Number(o.streams), PAIRS = Number(o.pairs), STEPS = Number(o.steps), SIDE = Number(o.side)
const APART_MS = 1200 // long enough apart to be no crash loop
const sorted = (a) => [...a].sort((x, y) => x - y)
const median = (a) => sorted(a)[a.length >> 1]
const p95 = (a) => sorted(a)[Math.min(a.length - 1, Math.floor(a.length * 0.95))]

/** The process is gone, with all its threads: not before that its parent hears of it. */
function isGone(pid) {
  try { return !isAlive(pid) && readdirSync(`/proc/${pid}/task`).length === 1 } catch { return true }
}

const rows = []
/** `aim` (ms) holds for the figure `of` takes from the values: the median, or p95. */
function row(what, a, aim, of = median) {
  rows.push([what, `${median(a).toFixed(0)} ms`, `${p95(a).toFixed(0)} ms`, `${Math.max(...a).toFixed(0)} ms`, a.length,
    aim ? `${of === p95 ? 'p95' : 'median'} ≤ ${aim} ms` : '', aim ? (of(a) <= aim ? 'yes' : 'NO') : ''])
  console.log(rows.at(-1).join(' | '))
}

/** A text answer or a picture that succeeds, so that the crash tally ends. */
const prove = (s, worker) => worker === 'sd' ? s.post('/v1/images/generations', { prompt: 'a red circle', width: 64, height: 64, steps: 1 })
  : s.post('/v1/chat/completions', { messages: [{ role: 'user', content: 'a red circle' }], max_tokens: 1 })

/** Milliseconds from the death until the next process listens, and from kill -9 until its model is back. Between the two the
 *  system needs some time to end a process: little, but where others have the processors. */
async function restores(s, worker) {
  const kind = worker.toUpperCase(), up = [], usable = []
  for (let i = 0; i < KILLS; i++) {
    await prove(s, worker)
    await sleep(APART_MS)
    const from = s.mark(), pid = await s.pid(worker), start = performance.now()
    process.kill(pid, 'SIGKILL')
    const when = async (is) => {
      while (!is()) await sleep(1)
      return performance.now() - start
    }
    const logged = (text) => when(() => s.log.slice(from).includes(text))
    const dead = await when(() => isGone(pid))
    up.push(Math.max(0, await logged(`[${worker}] listening on port`) - dead))
    usable.push(await logged(`${kind} model restored successfully`))
  }
  return { up, usable }
}

/** The longest time between two pieces of a streamed answer whose worker is killed in between. */
async function pauses(s) {
  const out = []
  for (let i = 0; i < STREAMS; i++) {
    await s.ready()
    await prove(s, 'llm')
    await sleep(APART_MS)
    const pid = await s.pid('llm')
    const r = await s.request('POST', '/v1/chat/completions', { stream: true, max_tokens: 200, ignore_eos: true,
      messages: [{ role: 'user', content: 'a red circle on a blue background' }] })
    let pieces = 0, last = 0, longest = 0
    for await (const e of sse(r)) {
      if (e.data === '[DONE]') break
      if (JSON.parse(e.data).error) throw new Error(e.data)
      const now = performance.now()
      if (pieces) longest = Math.max(longest, now - last)
      last = now
      if (++pieces === 20) process.kill(pid, 'SIGKILL')
    }
    if (pieces < 40) throw new Error(`the answer ended after ${pieces} pieces: a longer context is needed`)
    out.push(longest)
  }
  return out
}

/** Milliseconds a step without and with checkpoints, from the image worker alone: pairs of pictures, one after the other. */
async function checkpointCost(model) {
  const dir = mkdtempSync(join(tmpdir(), 'mysti-bench-')), port = await freePorts()
  const worker = spawn(join(BIN, 'mysti_sd_worker'), ['--port', String(port)],
    { stdio: ['pipe', 'ignore', 'ignore'], env: { ...process.env, MYSTI_TOKEN: 'bench' } })
  const ask = (path, body) => fetch(`http://127.0.0.1:${port}/internal/${path}`, { method: body ? 'POST' : 'GET',
    body: body && JSON.stringify(body), headers: { 'X-Mysti-Token': 'bench', 'Content-Type': 'application/json' } })
  await until('the worker answers', () => ask('health').catch(() => null))
  const loaded = await ask('load', { model })
  if (loaded.status !== 200) throw new Error(`load: ${await loaded.text()}`)
  const step = async (more) => {
    const r = await ask('generate', { job: 'j-1', prompt: 'a red circle', negative_prompt: '', width: SIDE, height: SIDE, steps: STEPS,
      cfg_scale: 7, sampler: 'euler_a', scheduler: 'discrete', seed: 1, output_dir: dir, file_stem: 'p', format: 'png', preview: false, ...more })
    const lines = (await r.text()).trim().split('\n').map(JSON.parse)
    if (lines.at(-1).event !== 'done') throw new Error(JSON.stringify(lines.at(-1)))
    const steps = lines.filter((l) => l.event === 'progress' && l.step > 1)
    return steps.reduce((sum, l) => sum + l.step_ms, 0) / steps.length
  }
  await step({}) // to warm up
  const without = [], withOne = []
  for (let i = 0; i < PAIRS; i++) {
    const one = async () => withOne.push(await step({ checkpoint: join(dir, 'j.ckpt') })), none = async () => without.push(await step({}))
    if (i % 2) { await one(); await none() } else { await none(); await one() }
  }
  worker.stdin.end()
  await new Promise((ok) => worker.on('exit', ok))
  rmSync(dir, { recursive: true, force: true })
  return { without, withOne, percent: median(withOne.map((ms, i) => 100 * (ms / without[i] - 1))) }
}

// ---- which models -----------------------------------------------------------------------------------------------------

const demo = demoModels()
const link = {}
function use(given, ending) {
  if (!given && demo.missing) throw new Error(`${demo.missing}; or give --image and --llm`)
  const [name, file] = given ? [basename(given), resolve(given)] : Object.entries(demo.link).find(([f]) => f.endsWith(ending))
  link[name] = file
  execFileSync('cat', [file], { stdio: 'ignore' }) // into the file cache
  return name
}
const image = use(o.image, '.safetensors'), llm = use(o.llm, '.gguf'), big = o.big && use(o.big)
const size = (id) => `${id}, ${(statSync(link[id]).size / 1e6).toFixed(0)} MB`

console.log(`${cpus().length} x ${cpus()[0].model.trim()}`)
const s = await Studio.start({ models: false, link, args: ['--no-restore'] })
await s.loadImageModel(image)
await s.loadLlm(llm)
const sd = await restores(s, 'sd')
row('death of the image worker until the next process listens', sd.up, 50)
row(`kill -9 until its model is usable again (${size(image)})`, sd.usable, 300)
const text = await restores(s, 'llm')
row('death of the text worker until the next process listens', text.up, 50)
row(`kill -9 until its model is usable again (${size(llm)})`, text.usable, 300)
row('streamed answer, longest pause with a kill in mid-stream', await pauses(s), 500, p95)
if (big) {
  await s.loadImageModel(big)
  const { usable } = await restores(s, 'sd')
  row(`kill -9 of the image worker until its model is usable again (${size(big)})`, usable, 1000)
}
await s.stop()
await s.cleanup()
const cost = await checkpointCost(link[image])
row(`step of ${image} at ${SIDE}x${SIDE}`, cost.without)
row('the same with a checkpoint after each step, at most one each 0.5 s', cost.withOne)

console.log('\n| | median | p95 | max | n | aim | held |\n|---|---|---|---|---|---|---|')
for (const r of rows) console.log(`| ${r.join(' | ')} |`)
console.log(`| checkpoints, as a share of a step | ${cost.percent.toFixed(2)} % | | | ${PAIRS} | ≤ 1 % | ${cost.percent <= 1 ? 'yes' : 'NO'} |`)
process.exit(0)
