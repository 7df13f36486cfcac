// studio.mjs - starts the real three programs on free ports with tiny models, and looks at them from outside.
import { spawn, execFileSync } from 'node:child_process'
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, statSync, symlinkSync, readdirSync, cpSync, createWriteStream } from 'node:fs'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { dirname, join, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'

export const ROOT = resolve(dirname(fileURLToPath(import.meta.url)), '../..')
export const BIN = process.env.MYSTI_BIN ?? join(ROOT, 'build/bin')
const MODELS = process.env.MYSTI_TEST_MODELS ?? join(ROOT, 'build/test-models')

/** The tiny models, made once for each version of their makers; deterministic. */
export function tinyModels() {
  const done = join(MODELS, '.complete')
  const [images, texts, loras] = ['make_tiny_models.py', 'make_tiny_llm.py', 'loras.py'].map((f) => join(ROOT, 'tools', f))
  const age = (file) => existsSync(file) ? statSync(file).mtimeMs : 0
  if (age(done) < Math.max(age(images), age(texts), age(loras))) {
    mkdirSync(MODELS, { recursive: true })
    execFileSync('/usr/bin/python3', [images, MODELS])
    execFileSync('/usr/bin/python3', [texts, join(MODELS, 'tiny-llm-f16.gguf')])
    execFileSync('/usr/bin/python3', [texts, join(MODELS, 'tiny-llm-slow.gguf'), '--slow']) // can be stopped in mid-sentence
    execFileSync('touch', [done])
  }
  return MODELS
}

/** The shipped models as what Studio.start({ link }) takes; `missing` says why there are none. */
export function demoModels() {
  const folder = join(ROOT, 'models/demo')
  const names = existsSync(folder) ? readdirSync(folder) : []
  const has = (ending) => names.some((f) => f.endsWith(ending))
  return {
    missing: has('.safetensors') && has('.gguf') ? false : 'models/demo does not hold both demo models',
    link: Object.fromEntries(names.map((f) => [`demo/${f}`, join(folder, f)])),
  }
}

const free = (port) => new Promise((ok) => {
  const s = createServer()
  s.once('error', () => ok(false))
  s.listen(port, '127.0.0.1', () => s.close(() => ok(true)))
})

/** A port with the next two free as well, away from the range that the system hands out by itself. */
export async function freePorts() {
  for (;;) {
    const p = 10000 + Math.floor(Math.random() * 20000)
    if (await free(p) && await free(p + 1) && await free(p + 2)) return p
  }
}

export const sleep = (ms) => new Promise((ok) => setTimeout(ok, ms))

/** Waits until fn() is truthy and returns that; fails with `what` after `ms`. */
export async function until(what, fn, ms = 20000) {
  const end = Date.now() + ms
  for (;;) {
    const v = await fn()
    if (v) return v
    if (Date.now() > end) throw new Error(`waited ${ms} ms in vain for: ${what}`)
    await sleep(15)
  }
}

export const isAlive = (pid) => { try { process.kill(pid, 0) } catch { return false } return !/\) [ZX] /.test(procStat(pid)) }
const procStat = (pid) => { try { return readFileSync(`/proc/${pid}/stat`, 'utf8') } catch { return ') X ' } }

export class Studio {
  /** opts: args (more options), dir (keep using this folder), models (false: none of the tiny ones), link ({name in the
   *  model folder: file}), disk (a SmallDisk for outputs and data), bin (folder of the programs), launcher (a command
   *  that starts the server), wait (false: don't) */
  static async start(opts = {}) {
    const s = new Studio()
    s.dir = opts.dir ?? mkdtempSync(join(tmpdir(), 'mysti-e2e-'))
    s.port = opts.port ?? await freePorts()
    s.base = `http://127.0.0.1:${s.port}`
    s.models = join(s.dir, 'models')
    if (!existsSync(s.models)) {
      mkdirSync(s.models)
      const from = tinyModels()
      if (opts.models !== false)
        for (const f of readdirSync(from)) if (!f.startsWith('.')) symlinkSync(join(from, f), join(s.models, f))
      for (const [name, file] of Object.entries(opts.link ?? {})) {
        mkdirSync(dirname(join(s.models, name)), { recursive: true })
        symlinkSync(file, join(s.models, name))
      }
    }
    s.log = ''
    const files = opts.disk?.path ?? s.dir
    s.args = ['--listen-port', String(s.port), '--model-dir', s.models, '--output-dir', join(files, 'outputs'),
      '--data-dir', join(files, 'data'), ...(opts.args ?? [])]
    const [program, ...args] = [...(opts.launcher ?? opts.disk?.launcher ?? []), join(opts.bin ?? BIN, 'mysti_server'), ...s.args]
    s.process = spawn(program, args, { stdio: ['ignore', 'pipe', 'pipe'], env: { ...process.env, ...opts.env } })
    const keep = createWriteStream(join(s.dir, 'server.log'), { flags: 'a' })
    for (const out of [s.process.stdout, s.process.stderr]) out.on('data', (d) => { s.log += d; keep.write(d) })
    s.exited = new Promise((ok) => s.process.on('exit', (code, signal) => { s.exit = { code, signal }; ok(s.exit) }))
    if (opts.wait !== false) await s.ready()
    return s
  }

  /** Both workers ready. */
  async ready(ms = 20000) {
    await until('both workers ready', async () => {
      if (this.exit) throw new Error(`the server ended: ${JSON.stringify(this.exit)}\n${this.log}`)
      const h = await this.health().catch(() => null)
      return h?.status === 'ok'
    }, ms)
  }

  async stop() {
    if (!this.exit) this.process.kill('SIGTERM')
    return this.exited
  }

  async cleanup() {
    if (!this.exit) { this.process.kill('SIGKILL'); await this.exited }
    rmSync(this.dir, { recursive: true, force: true })
  }

  async request(method, path, body, init = {}) {
    const headers = { ...init.headers }
    if (body !== undefined && !headers['Content-Type']) headers['Content-Type'] = 'application/json'
    return fetch(this.base + path, { method, headers, body: body === undefined ? undefined : typeof body === 'string' ? body : JSON.stringify(body), signal: init.signal })
  }

  /** The parsed answer; a status other than `status` (200) is a failure. */
  async api(method, path, body, status = 200) {
    const r = await this.request(method, path, body)
    const text = await r.text()
    if (r.status !== status) throw new Error(`${method} ${path}: ${r.status} ${text.slice(0, 400)}`)
    return text ? JSON.parse(text) : null
  }

  get(path, status) { return this.api('GET', path, undefined, status) }
  post(path, body = {}, status) { return this.api('POST', path, body, status) }
  async health() { return (await fetch(this.base + '/health')).json() }
  async pid(worker) { return (await this.health()).workers[worker].pid }

  /** The log after `from` (an earlier `mark()`) matches. */
  mark() { return this.log.length }
  logged(pattern, from = 0, ms) { return until(`log line ${pattern}`, () => this.log.slice(from).match(pattern), ms) }

  /** Both models are in their workers; their ids. */
  async loaded() {
    return until('both models are loaded', async () => {
      const { sd, llm } = (await this.health()).workers
      return sd.loaded && llm.loaded && [sd.model, llm.model]
    })
  }

  async kill(worker, signal = 'SIGKILL') {
    const pid = await until(`a process of ${worker}`, () => this.pid(worker)) // 0 would be all of us
    process.kill(pid, signal)
    return pid
  }

  async loadImageModel(id = 'tiny-sd1-f16.safetensors', more = {}) { return this.post('/v1/models/load', { model_id: id, ...more }) }
  async loadLlm(id = 'tiny-llm-f16.gguf', more = {}) { return this.post('/v1/llm/load', { model_id: id, ...more }) }

  /** Reads server-sent events into an array; stop with .close(). */
  events(path, headers = {}) {
    const abort = new AbortController()
    const list = []
    const done = (async () => {
      const r = await fetch(this.base + path, { headers, signal: abort.signal })
      for await (const e of sse(r)) list.push(e)
    })().catch((e) => { if (!abort.signal.aborted) list.error = e })
    return { list, done, close: () => { abort.abort(); return done } }
  }

  async jobEnd(id, ms = 60000) {
    return until(`job ${id} over`, async () => {
      const j = await this.get(`/v1/jobs/${id}`)
      return ['done', 'failed', 'cancelled'].includes(j.status) && j
    }, ms)
  }
}

/** {id, event, data} of a text/event-stream answer, one by one. */
export async function* sse(response) {
  let text = ''
  const decoder = new TextDecoder()
  for await (const piece of response.body) {
    text += decoder.decode(piece, { stream: true })
    for (let at; (at = text.indexOf('\n\n')) >= 0; text = text.slice(at + 2)) {
      const e = { event: 'message', data: '' }
      for (const line of text.slice(0, at).split('\n')) {
        const m = line.match(/^(id|event|data): ?(.*)$/)
        if (m) e[m[1]] = m[1] === 'data' && e.data ? e.data + '\n' + m[2] : m[2]
      }
      if (e.data !== '' || e.id) yield e
    }
  }
}

/** The text of a streamed chat answer, with its pieces. onPiece is called with what there is after each of them. */
export async function readChat(response, onPiece = () => {}) {
  const out = { text: '', pieces: [], finish: null, usage: null, done: false, error: null }
  for await (const e of sse(response)) {
    if (e.data === '[DONE]') { out.done = true; break }
    const d = JSON.parse(e.data)
    if (d.error) { out.error = d.error; continue }
    if (d.usage) out.usage = d.usage
    const c = d.choices[0]
    const piece = c?.delta?.content ?? c?.text
    if (piece) { out.text += piece; out.pieces.push(piece); onPiece(out) }
    if (c?.finish_reason) out.finish = c.finish_reason
  }
  return out
}

export const isPng = (bytes) => Buffer.from(bytes).subarray(0, 8).equals(Buffer.from([0x89, 0x50, 0x4e, 0x47, 13, 10, 26, 10]))
