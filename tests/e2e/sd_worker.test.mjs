// The image worker alone, as the server talks to it (docs/worker-protocol.md).
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { existsSync, mkdtempSync, readFileSync, readdirSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, test } from 'node:test'
import { BIN, freePorts, isPng, sleep, tinyModels, until } from './studio.mjs'

const dir = mkdtempSync(join(tmpdir(), 'mysti-sd-'))
const model = join(tinyModels(), 'tiny-sd1-f16.safetensors')
let worker

class Worker {
  static async start() {
    const w = new Worker()
    w.base = `http://127.0.0.1:${w.port = await freePorts()}`
    w.log = ''
    w.process = spawn(join(BIN, 'mysti_sd_worker'), ['--port', String(w.port), '--threads', '1'],
      { stdio: ['pipe', 'pipe', 'pipe'], env: { ...process.env, MYSTI_TOKEN: 'secret' } })
    w.process.stderr.on('data', (d) => { w.log += d })
    w.exited = new Promise((ok) => w.process.on('exit', (code, signal) => ok({ code, signal })))
    await until('the worker answers', () => w.health().catch(() => null))
    return w
  }

  fetch(path, body, init = {}) {
    return fetch(this.base + path, { method: body ? 'POST' : 'GET', body: body && JSON.stringify(body),
      headers: { 'X-Mysti-Token': 'secret', 'Content-Type': 'application/json' }, ...init })
  }

  async health() { return (await this.fetch('/internal/health')).json() }
  async load(path = model) { const r = await this.fetch('/internal/load', { model: path }); return { status: r.status, ...await r.json() } }

  /** All lines of a generate stream; a broken stream gives what came, and `broken`. on(line) sees each as it comes. */
  async generate(params, on = () => {}, signal) {
    const lines = []
    try {
      const r = await this.fetch('/internal/generate', params, { signal })
      let text = ''
      for await (const piece of r.body.pipeThrough(new TextDecoderStream())) {
        text += piece
        for (let at; (at = text.indexOf('\n')) >= 0; text = text.slice(at + 1)) {
          const line = JSON.parse(text.slice(0, at))
          lines.push(line)
          await on(line)
        }
      }
      if (text) lines.push(JSON.parse(text))
    } catch (e) { lines.broken = e }
    return lines
  }
}

const params = (more) => ({ job: 'j-1', prompt: 'a red fox', negative_prompt: 'blurry', width: 128, height: 128, steps: 12, seed: 5,
  sampler: 'euler_a', scheduler: 'karras', output_dir: dir, file_stem: 'p', format: 'png', preview: true, model_name: 'tiny', ...more })
const of = (lines, event) => lines.filter((l) => l.event === event)
const bytes = (name) => readFileSync(join(dir, name))

before(async () => { worker = await Worker.start() })
after(async () => {
  worker.process.kill('SIGKILL')
  await worker.exited
  rmSync(dir, { recursive: true, force: true })
})

test('nothing is loaded at first, and the token is needed', async () => {
  assert.equal((await fetch(worker.base + '/internal/health')).status, 403)
  const h = await worker.health()
  assert.equal(h.service, 'sd')
  assert.equal(h.state, 'idle')
  assert.equal(h.model, null)
  const r = await worker.fetch('/internal/generate', params())
  assert.equal(r.status, 409)
  assert.equal((await r.json()).error.code, 'conflict')
})

test('a load says what the model is; a failed one says what is still loaded', async () => {
  const l = await worker.load()
  assert.equal(l.status, 200)
  assert.equal(l.model.family, 'sd1')
  assert.ok(l.model.samplers.includes('dpm++2m') && l.model.schedulers.includes('karras'))
  assert.equal((await worker.health()).model, model)
  for (const [path, code] of [['/none/x.safetensors', 'not_found'], [join(tinyModels(), 'tiny-vae.safetensors'), 'unsupported']]) {
    const bad = await worker.load(path)
    assert.ok(bad.status >= 400)
    assert.equal(bad.error.code, code)
    assert.equal(bad.loaded, model)
  }
  assert.equal((await worker.health()).model, model)
})

test('a picture is told step by step and lies in the folder', async () => {
  const lines = await worker.generate(params({ n: 2 }))
  assert.equal(lines.at(-1).event, 'done')
  assert.deepEqual(of(lines, 'progress').map((p) => [p.image, p.step]), [0, 1].flatMap((i) => Array.from({ length: 12 }, (_, s) => [i, s + 1])))
  assert.deepEqual(of(lines, 'phase').map((p) => p.phase), ['encoding', 'sampling', 'decoding', 'saving', 'sampling', 'decoding', 'saving'])
  const previews = of(lines, 'preview')
  assert.ok(previews.length > 0)
  assert.equal(Buffer.from(previews[0].jpeg, 'base64').readUInt16BE(0), 0xffd8)
  const images = of(lines, 'image')
  assert.deepEqual(images.map((i) => [i.file, i.seed]), [['p-0.png', 5], ['p-1.png', 6]])
  assert.ok(isPng(bytes('p-0.png')) && bytes('p-0.png').length === images[0].bytes)
  assert.ok(existsSync(join(dir, images[0].thumb)))
  const seen = await (await worker.fetch('/internal/inspect', { path: join(dir, 'p-0.png') })).json()
  assert.equal(seen.parameters, images[0].parameters)
  assert.match(seen.parameters, /^a red fox\nNegative prompt: blurry\nSteps: 12, Sampler: Euler a, Schedule type: Karras,.* Seed: 5,/)
})

test('image to image starts from a file', async () => {
  const lines = await worker.generate(params({ file_stem: 'i', init_image: join(dir, 'p-0.png'), strength: 0.5 }))
  assert.equal(lines.at(-1).event, 'done')
  assert.equal(of(lines, 'progress').length, 7) // int(0.5 * 12) + 1
  const missing = await worker.generate(params({ init_image: join(dir, 'none.png') }))
  assert.match(missing.at(-1).error.message, /^init_image: /)
})

test('a bad parameter is named, and nothing is left behind', async () => {
  const r = await worker.fetch('/internal/generate', params({ steps: 0, file_stem: 'never' }))
  assert.equal(r.status, 400)
  assert.match((await r.json()).error.message, /^steps: 0 is not between 1 and 200/)
  assert.ok(!readdirSync(dir).some((f) => f.startsWith('never')))
})

test('a client that leaves cancels the work within a step', async () => {
  const gone = new AbortController()
  const lines = await worker.generate(params({ steps: 200, width: 256, height: 256, file_stem: 'gone' }), (l) => { if (l.event === 'progress') gone.abort() }, gone.signal)
  assert.ok(lines.broken)
  await until('idle again', async () => (await worker.health()).state === 'idle', 10000)
  assert.ok(!existsSync(join(dir, 'gone.png')))
  assert.match(worker.log, /job j-1: cancelled/)
})

test('health is quick while a picture is made', async () => {
  const work = worker.generate(params({ steps: 20, width: 256, height: 256, file_stem: 'busy', job: 'j-7' }))
  const h = await until('busy', async () => { const x = await worker.health(); return x.state === 'busy' && x.progress.step > 0 && x })
  assert.equal(h.progress.job, 'j-7')
  assert.equal(h.progress.phase, 'sampling')
  assert.equal(h.progress.steps, 20)
  assert.ok(h.memory.length > 0 && h.rss > 0)
  assert.equal((await work).at(-1).event, 'done')
})

// What an uninterrupted worker made is what a killed and a new one make together.
test('a killed job goes on where it was, bit by bit the same', async () => {
  const job = params({ n: 2, steps: 40, checkpoint: join(dir, 'j.ckpt') })
  const whole = await worker.generate({ ...job, file_stem: 'whole', checkpoint: join(dir, 'w.ckpt') })
  assert.equal(whole.at(-1).event, 'done')
  assert.ok(!existsSync(join(dir, 'w.ckpt')))
  // A checkpoint is at most half a second old: kill once the second picture has one of its own.
  let since = 0
  const first = await worker.generate({ ...job, file_stem: 'part' }, async (l) => {
    if (l.event !== 'progress' || l.image !== 1) return
    since ||= Date.now()
    if (l.step > 20 || (l.step > 3 && Date.now() - since > 800)) worker.process.kill('SIGKILL')
  })
  assert.notEqual(first.at(-1).event, 'done')
  assert.equal((await worker.exited).signal, 'SIGKILL')
  assert.ok(existsSync(join(dir, 'j.ckpt')))
  worker = await Worker.start()
  assert.equal((await worker.load()).status, 200)
  const second = await worker.generate({ ...job, file_stem: 'part' })
  assert.equal(second.at(-1).event, 'done')
  assert.deepEqual(of(second, 'image').map((i) => i.index), [0, 1]) // the first is told again
  const from = second.at(-1).resumed_from
  assert.deepEqual(of(second, 'progress').map((p) => [p.image, p.step]), Array.from({ length: 40 - from }, (_, i) => [1, from + 1 + i]))
  for (const i of [0, 1]) assert.deepEqual(bytes(`part-${i}.png`), bytes(`whole-${i}.png`))
  assert.ok(!existsSync(join(dir, 'j.ckpt')))
})

test('unload frees the model; SIGTERM in mid-work ends at once with 0', async () => {
  assert.equal((await worker.fetch('/internal/unload', {})).status, 200)
  assert.equal((await worker.health()).model, null)
  await worker.load()
  const work = worker.generate(params({ steps: 200, width: 256, height: 256, file_stem: 'term' }), () => {})
  await until('busy', async () => (await worker.health()).progress.step > 0)
  const from = Date.now()
  worker.process.kill('SIGTERM')
  assert.equal((await worker.exited).code, 0)
  assert.ok(Date.now() - from < 5000)
  await work
  await sleep(1)
})
