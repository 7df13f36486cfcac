// api.test.mjs - every route of docs/api.md, with good requests and bad ones.
import { after, before, test } from 'node:test'
import assert from 'node:assert/strict'
import { existsSync, mkdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { deflateSync } from 'node:zlib'
import { Studio, isPng, readChat, sleep, sse, until } from './studio.mjs'

const IMAGE = 'tiny-sd1-f16.safetensors'
const LLM = 'tiny-llm-f16.gguf'
const small = { prompt: 'a red cube', width: 64, height: 64, steps: 2, seed: 42 }
const long = { ...small, width: 256, height: 256, steps: 200 }

let s, png
before(async () => {
  s = await Studio.start()
  await s.loadImageModel()
  png = await bytes(await make())
})
after(() => s.cleanup())

const make = (more = {}) => s.post('/v1/images/generations', { ...small, ...more })
const bytes = async (answer, i = 0) => Buffer.from(answer.data[i].b64_json, 'base64')

/** The answer is an error in our envelope with that status (and field, and code). */
async function refused(status, method, path, body, { param, code, message } = {}) {
  const r = await s.request(method, path, body)
  const text = await r.text()
  const about = `${method} ${path} ${JSON.stringify(body)?.slice(0, 100)} -> ${r.status} ${text.slice(0, 300)}`
  assert.equal(r.status, status, about)
  assert.match(r.headers.get('content-type'), /^application\/json/)
  const { error } = JSON.parse(text)
  assert.deepEqual(Object.keys(error).sort(), ['code', 'message', 'param', 'type'], about)
  if (param !== undefined) assert.equal(error.param, param, about)
  if (code !== undefined) assert.equal(error.code, code, about)
  if (message !== undefined) assert.match(error.message, message, about)
  return { error, headers: r.headers }
}

// ---- a PNG by hand ----
const crcTable = Array.from({ length: 256 }, (_, n) => { for (let k = 0; k < 8; k++) n = n & 1 ? 0xedb88320 ^ (n >>> 1) : n >>> 1; return n >>> 0 })
const crc32 = (b) => { let c = ~0; for (const x of b) c = crcTable[(c ^ x) & 255] ^ (c >>> 8); return ~c >>> 0 }
function chunk(type, data) {
  const out = Buffer.alloc(12 + data.length)
  out.writeUInt32BE(data.length, 0)
  out.write(type, 4, 'latin1')
  data.copy(out, 8)
  out.writeUInt32BE(crc32(out.subarray(4, 8 + data.length)), 8 + data.length)
  return out
}
function makePng(width, height, pixels) {
  const head = Buffer.alloc(13)
  head.writeUInt32BE(width, 0)
  head.writeUInt32BE(height, 4)
  head.set([8, 2, 0, 0, 0], 8)
  return Buffer.concat([Buffer.from([0x89, 0x50, 0x4e, 0x47, 13, 10, 26, 10]), chunk('IHDR', head), chunk('IDAT', deflateSync(pixels)), chunk('IEND', Buffer.alloc(0))])
}

test('health', async () => {
  const h = await s.health()
  assert.equal(h.status, 'ok')
  for (const w of ['sd', 'llm']) {
    assert.deepEqual(Object.keys(h.workers[w]).filter((k) => ['state', 'activity', 'pid', 'port', 'model', 'restarts', 'last_crash', 'rss', 'memory', 'loaded'].includes(k)).length, 10)
    assert.equal(h.workers[w].state, 'ready')
  }
  assert.deepEqual((await s.get('/v1/health')).workers.sd.pid, h.workers.sd.pid)
})

test('models: the list, one, again', async () => {
  const list = await s.get('/v1/models')
  assert.equal(list.object, 'list')
  for (const m of list.data)
    for (const key of ['id', 'object', 'created', 'owned_by', 'type', 'family', 'quantization', 'size', 'path', 'supported', 'reason', 'active', 'loaded'])
      assert.ok(key in m, `${m.id}: ${key}`)
  assert.equal(list.data.find((m) => m.id === IMAGE).type, 'image')
  assert.equal((await s.get(`/v1/models/${IMAGE}`)).id, IMAGE)
  mkdirSync(join(s.models, 'sub dir'))
  symlinkSync(join(s.models, LLM), join(s.models, 'sub dir', 'olé.gguf'))
  await s.post('/v1/models/refresh')
  for (const path of ['sub dir/olé.gguf', encodeURIComponent('sub dir/olé.gguf')]) assert.equal((await s.get(`/v1/models/${path}`)).id, 'sub dir/olé.gguf', path)
  await refused(404, 'GET', '/v1/models/nobody', undefined, { code: 'model_not_found' })
  writeFileSync(join(s.models, 'broken.safetensors'), 'nothing of the kind')
  writeFileSync(join(s.models, 'broken.gguf'), 'GGUF\x03')
  const again = await s.post('/v1/models/refresh')
  const broken = again.data.find((m) => m.id === 'broken.safetensors')
  assert.equal(broken.supported, false)
  assert.ok(broken.reason)
})

test('models: named as soon as the server answers', async () => {
  const other = await Studio.start({ wait: false })
  try {
    await other.ready() // a worker that is still starting would be 503 with Retry-After
    const [image, text] = await Promise.all([
      other.post('/v1/images/generations', { ...small, model: IMAGE }),
      other.post('/v1/chat/completions', { model: LLM, messages: [{ role: 'user', content: 'x' }], max_tokens: 2 }),
    ])
    assert.ok(image.data[0].b64_json && text.choices[0].message)
  } finally { await other.cleanup() }
})

test('models: load and its refusals leave the loaded one', async () => {
  const load = '/v1/models/load'
  await refused(400, 'POST', load, {}, { param: 'model_id' })
  await refused(400, 'POST', load, { model_id: 5 }, { param: 'model_id' })
  await refused(400, 'POST', load, '[1]')
  await refused(400, 'POST', load, '{', { code: 'format' })
  await refused(404, 'POST', load, { model_id: 'nobody' }, { param: 'model_id', code: 'model_not_found' })
  await refused(404, 'POST', load, { model_id: '../../etc/passwd' }, { code: 'model_not_found' })
  await refused(404, 'POST', load, { model_id: IMAGE, vae: 'nobody' }, { param: 'vae', code: 'model_not_found' })
  await refused(422, 'POST', load, { model_id: LLM }, { param: 'model_id', message: /not an image model/ })
  const { reason } = await s.get('/v1/models/broken.safetensors') // of a file that cannot be read: told whoever asks for it
  for (const [path, body, param] of [[load, { model_id: 'broken.safetensors' }, 'model_id'], ['/v1/images/generations', { ...small, model: 'broken.safetensors' }, 'model'],
    ['/v1/images/generations', { ...small, refiner: 'broken.safetensors' }, 'refiner']])
    assert.ok((await refused(param === 'refiner' ? 400 : 422, 'POST', path, body, { param })).error.message.endsWith(reason), param)
  await refused(422, 'POST', load, { model_id: IMAGE, vae: LLM })
  assert.ok((await s.get(`/v1/models/${IMAGE}`)).active)
  await make()
})

test('llm: load and its refusals', async () => {
  const load = '/v1/llm/load'
  await refused(422, 'POST', load, { model_id: IMAGE }, { param: 'model_id' })
  await refused(422, 'POST', load, { model_id: 'broken.gguf' }, { param: 'model_id' })
  await refused(404, 'POST', load, { model_id: 'nobody' }, { code: 'model_not_found' })
  for (const [param, value] of [['n_ctx', -1], ['n_ctx', 'x'], ['slots', 0], ['slots', 65], ['n_gpu_layers', -2]])
    await refused(400, 'POST', load, { model_id: LLM, [param]: value }, { param })
  await refused(507, 'POST', load, { model_id: LLM, n_ctx: 4194304, slots: 64 }, { message: /GB/ })
  await refused(503, 'POST', '/v1/chat/completions', { messages: [{ role: 'user', content: 'x' }] }, { code: 'model_not_loaded' })
  const r = await s.loadLlm(LLM, { n_ctx: 512, slots: 2 })
  assert.equal(r.model_id, LLM)
  assert.equal(r.type, 'llm')
  assert.ok(r.load_ms >= 0)
  await s.post('/v1/llm/unload')
  await s.post('/v1/llm/unload', {})
  await s.loadLlm()
})

test('two loads at once: each is answered, and the worker stands', async () => {
  const answers = await Promise.all([1, 2, 3].map(() => s.request('POST', '/v1/models/load', { model_id: IMAGE })))
  for (const r of answers) {
    assert.ok([200, 409, 503].includes(r.status), `${r.status}`)
    if (r.status === 503) assert.ok(r.headers.get('retry-after'))
    await r.text()
  }
  assert.ok(answers.some((r) => r.status === 200))
  await make()
})

test('unload: pictures need a model again', async () => {
  assert.deepEqual(await s.post('/v1/models/unload'), {})
  const { headers } = await refused(503, 'POST', '/v1/images/generations', small, { code: 'model_not_loaded', param: 'model' })
  assert.equal(headers.get('retry-after'), null, 'waiting does not load a model')
  await refused(503, 'POST', '/v1/jobs', small, { code: 'model_not_loaded' })
  const r = await make({ model: IMAGE }) // named: loaded first
  assert.equal(r.parameters.model, IMAGE)
})

test('images: every range names its field', async () => {
  const bad = {
    prompt: [5, null, 'x'.repeat(20001)], negative_prompt: [5, 'x'.repeat(20001)], width: [8, 63, 65, 4104, 'x', 64.5], height: [-64, 5000], size: ['64', '64x', '63x64', '64x9999', 'axb', 5],
    steps: [0, 201, 1.5, 'many', 1e300], cfg_scale: [-1, 51, 'x'], sampler: ['nope', 5], scheduler: ['nope'], seed: [-2, 9007199254740992, 0.5, 'x'],
    n: [0, 17, -1], clip_skip: [0, 13], rng: ['dice'], strength: [-0.1, 1.1], output_format: ['gif'], output_compression: [-1, 101], init_image: ['zzz', 5],
  }
  for (const [param, values] of Object.entries(bad))
    for (const value of values)
      for (const path of ['/v1/images/generations', '/v1/jobs']) await refused(400, 'POST', path, { ...small, [param]: value }, { param })
  await refused(400, 'POST', '/v1/jobs', { ...small, stepz: 3 }, { param: 'stepz', message: /did you mean 'steps'/ })
  await make({ stepz: 3 })
  await refused(400, 'POST', '/v1/jobs', { ...small, type: 'video' }, { param: 'type' })
  await refused(400, 'POST', '/v1/jobs', { ...small, type: 'img2img' }, { param: 'init_image' })
  await refused(400, 'POST', '/v1/images/edits', small, { param: 'init_image' })
  await refused(404, 'POST', '/v1/images/generations', { ...small, init_image: 'gone.png' }, { param: 'init_image' })
  await refused(400, 'POST', '/v1/images/generations', { ...small, seed: 9007199254740991, n: 2 }, { param: 'seed' })
  await refused(422, 'POST', '/v1/images/generations', { ...small, model: LLM }, { param: 'model' })
})

test('images: the same seed, the same bytes; no seed, another picture', async () => {
  const [a, b, c, d] = [await make(), await make(), await make({ seed: undefined }), await make({ seed: -1 })]
  assert.equal(a.data[0].b64_json, b.data[0].b64_json)
  assert.equal(new Set([a, c, d].map((x) => x.data[0].seed)).size, 3)
  assert.equal(new Set([a, c, d].map((x) => x.data[0].b64_json)).size, 3)
  assert.equal(new Set([a, b, c, d].map((x) => x.data[0].file)).size, 4)
  const again = await make({ seed: c.data[0].seed })
  assert.equal(again.data[0].b64_json, c.data[0].b64_json, 'the seed that was drawn makes the picture again')
})

test('images: three at once have three seeds, each as if alone', async () => {
  const three = await make({ n: 3 })
  assert.deepEqual(three.data.map((d) => d.seed), [42, 43, 44])
  assert.equal((await make({ seed: 44 })).data[0].b64_json, three.data[2].b64_json)
  const last = await s.post('/v1/images/inspect', { image: three.data[2].b64_json })
  assert.equal(last.params.seed, 44)
})

test("images: A1111's names", async () => {
  const cases = [
    [{ sampler: 'DPM++ 2M Karras' }, 'dpm++2m', 'karras'], [{ sampler_name: 'Euler a' }, 'euler_a', 'discrete'], [{ sampler: 'Euler' }, 'euler', 'discrete'],
    [{ sampler: 'Heun', scheduler: 'Exponential' }, 'heun', 'exponential'], [{ sampler: 'euler', scheduler: 'automatic' }, 'euler', 'discrete'],
  ]
  for (const [more, sampler, scheduler] of cases) {
    const { parameters } = await make({ ...more, steps: 1 })
    assert.deepEqual([parameters.sampler, parameters.scheduler], [sampler, scheduler], JSON.stringify(more))
  }
  assert.equal((await make({ batch_size: 2, steps: 1 })).data.length, 2)
})

test('what our pictures say of themselves makes them again, in each format', async () => {
  const asked = { prompt: 'naïve 😀, (red:1.2) cube\nin two lines', negative_prompt: 'blue, Steps: 3', steps: 3, cfg_scale: 5.5, sampler: 'dpm++2m', scheduler: 'karras', seed: 9007199254740991, clip_skip: 2, width: 64, height: 72, rng: 'cpu' }
  for (const output_format of ['png', 'jpeg', 'webp']) {
    const first = await make({ ...asked, output_format })
    const said = await s.post('/v1/images/inspect', { image: first.data[0].b64_json })
    assert.deepEqual([said.width, said.height], [64, 72])
    for (const key of Object.keys(asked)) assert.equal(said.params[key], asked[key], `${output_format}: ${key}`)
    const second = await s.post('/v1/images/generations', { ...said.params, output_format })
    assert.equal(second.data[0].b64_json, first.data[0].b64_json, output_format)
    assert.match(first.data[0].file, output_format === 'jpeg' ? /\.jpe?g$/ : new RegExp(`\\.${output_format}$`))
  }
})

test('uploads: base64, data URL, file name; image to image', async () => {
  const file = (await make()).data[0].file
  const base64 = png.toString('base64')
  const results = []
  for (const init_image of [base64, `data:image/png;base64,${base64}`, file, `/outputs/${file}`]) {
    const r = await make({ init_image, strength: 0.5 })
    results.push(r.data[0].b64_json)
  }
  assert.equal(new Set(results).size, 1)
  assert.notEqual(results[0], base64)
  assert.notEqual((await make({ init_image: base64, denoising_strength: 0.9 })).data[0].b64_json, results[0])
  const url = `data:image/png;base64,${base64}`
  for (const [route, body] of [['generations', { image: url }], ['edits', { image: base64 }], ['edits', { image: [url] }], ['variations', { image: url }],
    ['edits', { image_id: (await s.get('/v1/history/images?limit=200')).data.find((x) => x.file === file).id }]])
    assert.equal((await s.post(`/v1/images/${route}`, { ...small, ...body, strength: 0.5 })).data[0].b64_json, results[0], route)
})

test('uploads: whatever is in them, a clear refusal and a worker that stands', async () => {
  const pid = await s.pid('sd')
  const bomb = makePng(30000, 30000, Buffer.alloc(1 << 20))
  const bad = {
    garbage: Buffer.from('just text, long enough to be something'), truncated: png.subarray(0, png.length / 2), header: png.subarray(0, 20),
    bomb, 'wrong magic': Buffer.concat([Buffer.from([0xff, 0xd8, 0xff]), png.subarray(3)]), empty: makePng(0, 0, Buffer.alloc(0)),
    flipped: Buffer.concat([png.subarray(0, -30), Buffer.from([png.at(-30) ^ 255]), png.subarray(-29)]), webp: Buffer.from('RIFF\xff\xff\xff\xffWEBPVP8 \xff\xff\xff\xff', 'latin1'),
  }
  for (const [what, data] of Object.entries(bad)) {
    const image = data.toString('base64')
    for (const [path, body] of [['/v1/images/inspect', { image }], ['/v1/images/generations', { ...small, init_image: image }]]) {
      const r = await s.request('POST', path, body)
      const text = await r.text()
      assert.ok(r.status >= 400 && r.status < 500, `${what} ${path}: ${r.status} ${text.slice(0, 200)}`)
      assert.ok(JSON.parse(text).error.message, what)
    }
  }
  await refused(400, 'POST', '/v1/images/edits', { ...small, image: 'https://example.com/a.png' }, { param: 'image', message: /not fetched from elsewhere: send base64/ })
  for (const init_image of ['data:image/png;base64', 'data:,x', '../../etc/passwd.png', '/outputs/../data/x.png', '/etc/hostname.png', 'upload:../x.png'])
    await refused(400, 'POST', '/v1/images/generations', { ...small, init_image }, { param: 'init_image' }).catch((e) => { if (!/404/.test(e.message)) throw e })
  await refused(400, 'POST', '/v1/images/inspect', {}, { param: 'image' })
  await refused(400, 'POST', '/v1/images/inspect', { image: 'zzz' }, { param: 'image' })
  assert.equal(await s.pid('sd'), pid, 'the same process')
  await make()
})

test('inspect: a picture without parameters', async () => {
  const plain = makePng(8, 4, Buffer.alloc((8 * 3 + 1) * 4))
  assert.deepEqual(await s.post('/v1/images/inspect', { image: plain.toString('base64') }), { width: 8, height: 4, parameters: null, params: null })
})

test('jobs: submit, follow, list, cancel', async () => {
  const job = await s.post('/v1/jobs', { type: 'txt2img', ...small }, 202)
  assert.match(job.id, /^j-\d+$/)
  const ended = s.events(`/v1/jobs/${job.id}/events`)
  await ended.done
  const seen = ended.list.filter((e) => e.event === 'job').map((e) => JSON.parse(e.data))
  assert.equal(seen.at(-1).status, 'done', 'the stream ends with the job')
  for (const key of ['id', 'type', 'status', 'position', 'created_ms', 'started_ms', 'finished_ms', 'phase', 'step', 'steps', 'image', 'images', 'step_ms', 'eta_ms', 'attempts', 'params', 'results', 'error'])
    assert.ok(key in seen.at(-1), key)
  assert.equal(seen.at(-1).results[0].seed, 42)
  const after = s.events(`/v1/jobs/${job.id}/events`)
  await after.done
  assert.deepEqual(after.list.map((e) => [e.event, JSON.parse(e.data).status]), [['job', 'done']], 'one that is over says so and ends')
  await refused(409, 'POST', `/v1/jobs/${job.id}/cancel`, {})
  for (const path of ['/v1/jobs/j-99999', '/v1/jobs/x', '/v1/jobs/j-99999/events']) await refused(404, 'GET', path)
  await refused(404, 'POST', '/v1/jobs/j-99999/cancel', {})

  const running = await s.post('/v1/jobs', long, 202)
  const waiting = await s.post('/v1/jobs', small, 202)
  await until('it runs', async () => (await s.get(`/v1/jobs/${running.id}`)).status === 'running')
  assert.equal((await s.get(`/v1/jobs/${waiting.id}`)).status, 'queued')
  assert.deepEqual((await s.get('/v1/jobs?status=queued,running')).data.map((j) => j.id).sort(), [running.id, waiting.id].sort())
  assert.equal((await s.get('/v1/progress')).job, running.id)
  assert.equal((await s.post(`/v1/jobs/${waiting.id}/cancel`)).status, 'cancelled')
  await s.post(`/v1/jobs/${running.id}/cancel`)
  assert.equal((await s.jobEnd(running.id)).status, 'cancelled')
  await refused(409, 'POST', `/v1/jobs/${running.id}/cancel`, {})
})

test('jobs: pages by key', async () => {
  const all = (await s.get('/v1/jobs?limit=200')).data.map((j) => j.id)
  assert.ok(all.length > 6)
  const paged = []
  for (let next = '', n = 0; next !== null; n++) {
    const page = await s.get(`/v1/jobs?limit=4${next && `&before=${next}`}`)
    paged.push(...page.data.map((j) => j.id))
    next = page.next
    assert.ok(n < 100)
  }
  assert.deepEqual(paged, all)
  await refused(400, 'GET', '/v1/jobs?limit=0', undefined, { param: 'limit' })
  await refused(400, 'GET', '/v1/jobs?before=zz', undefined, { param: 'before' })
  await refused(400, 'GET', '/v1/jobs?status=done,bad', undefined, { param: 'status' })
})

test('jobs: the queue is bounded, and the bound says when to come again', async () => {
  const ids = []
  let full
  for (let i = 0; i < 400 && !full; i++) {
    const r = await s.request('POST', '/v1/jobs', long)
    const body = await r.json()
    if (r.status === 202) ids.push(body.id)
    else full = { r, body }
  }
  assert.equal(full?.r.status, 429)
  assert.equal(full.body.error.code, 'queue_full')
  assert.ok(Number(full.r.headers.get('retry-after')) > 0)
  assert.ok(ids.length >= 255 && ids.length <= 257, `${ids.length} were taken`)
  await refused(429, 'POST', '/v1/images/generations', small, { code: 'queue_full' })
  for (const id of ids.reverse()) await s.post(`/v1/jobs/${id}/cancel`)
  await until('the queue empty', async () => (await s.get('/v1/jobs?status=queued,running')).data.length === 0)
  await make()
})

test('a client that leaves takes its picture along', async () => {
  const abort = new AbortController()
  const gone = s.request('POST', '/v1/images/generations', long, { signal: abort.signal }).catch((e) => e)
  const job = await until('it runs', async () => (await s.get('/v1/jobs?status=running')).data[0])
  abort.abort()
  await gone
  assert.equal((await s.jobEnd(job.id)).status, 'cancelled')
})

test('events: hello, and what was missed', async () => {
  const ev = s.events('/v1/events')
  await until('hello', () => ev.list.length > 0)
  assert.equal(ev.list[0].event, 'hello')
  const { server, version } = JSON.parse(ev.list[0].data)
  assert.ok(server && version)
  await make()
  await until('the picture', () => ev.list.some((e) => e.event === 'image'))
  await ev.close()
  const jobs = ev.list.filter((e) => e.event === 'job' && e.id)
  assert.ok(jobs.length >= 2)
  const seen = ev.list.filter((e) => e.event === 'job' || e.event === 'image').map((e) => e.id)
  for (const [path, headers] of [['/v1/events', { 'Last-Event-ID': jobs[0].id }], [`/v1/events?last_event_id=${jobs[0].id}`, {}]]) {
    const more = s.events(path, headers)
    await until('the replay', () => more.list.some((e) => e.id === seen.at(-1)))
    await more.close()
    assert.equal(more.list[0].event, 'hello')
    const replayed = more.list.filter((e) => e.event === 'job' || e.event === 'image')
    assert.ok(replayed.every((e) => seen.indexOf(e.id) > 0), 'nothing but what came later; steps in between may be left out')
    assert.deepEqual(replayed.map((e) => e.event).slice(-2), ['image', 'job'])
    assert.equal(JSON.parse(replayed.at(-1).data).status, 'done')
  }
  for (const id of ['nonsense', '99999999-1', 'x'.repeat(500)]) {
    const lost = s.events('/v1/events', { 'Last-Event-ID': id })
    await until('reset', () => lost.list.some((e) => e.event === 'reset'))
    await lost.close()
  }
})

test('progress as a stream', async () => {
  assert.deepEqual(await s.get('/v1/progress'), { step: 0, steps: 0, time: 0, phase: 'idle', job: null })
  const ev = s.events('/v1/stream/progress')
  await sleep(50)
  await make({ steps: 6 })
  await until('steps', () => ev.list.some((e) => JSON.parse(e.data).step > 0))
  await ev.close()
  for (const e of ev.list) if (e.data.includes('"step"')) assert.deepEqual(Object.keys(JSON.parse(e.data)).sort(), ['job', 'phase', 'step', 'steps', 'time'])
})

test('history: list, search, pages, one, delete', async () => {
  await make({ prompt: 'a Zeppelin over olé 日本 mountains', negative_prompt: 'quicksand' })
  const found = await s.get('/v1/history/images?q=zeppelin')
  assert.equal(found.data.length, 1)
  for (const q of ['zepp', 'mountains zeppelin', 'olé']) assert.equal((await s.get(`/v1/history/images?q=${encodeURIComponent(q)}`)).data.length, 1, q)
  for (const q of ['nothinglikeit', '"', '*', 'AND OR NOT', "'; DROP TABLE images; --", '(', '^x', '-', 'a:b', '%']) assert.ok(Array.isArray((await s.get(`/v1/history/images?q=${encodeURIComponent(q)}`)).data), q)
  const all = (await s.get('/v1/history/images?limit=200')).data
  const paged = []
  for (let next = ''; next !== null;) {
    const page = await s.get(`/v1/history/images?limit=7${next && `&before=${next}`}`)
    paged.push(...page.data)
    next = page.next
  }
  assert.deepEqual(paged.map((e) => e.id), all.map((e) => e.id))
  const [one] = found.data
  for (const key of ['id', 'file', 'url', 'thumb_url', 'width', 'height', 'seed', 'model', 'prompt', 'negative_prompt', 'parameters', 'params', 'job', 'created_ms', 'bytes']) assert.ok(key in one, key)
  assert.deepEqual(await s.get(`/v1/history/images/${one.id}`), one)
  for (const path of [one.url, one.thumb_url]) assert.equal((await s.request('GET', path)).status, 200)
  assert.equal(one.bytes, readFileSync(join(s.dir, 'outputs', one.file)).length)
  const ev = s.events('/v1/events')
  await until('hello', () => ev.list.length > 0)
  assert.deepEqual(await s.api('DELETE', `/v1/history/images/${one.id}`), {})
  await until('the news', () => ev.list.some((e) => e.event === 'image_deleted' && JSON.parse(e.data).id === one.id))
  await ev.close()
  assert.ok(!existsSync(join(s.dir, 'outputs', one.file)))
  for (const path of [one.url, one.thumb_url]) await refused(404, 'GET', path)
  await refused(404, 'DELETE', `/v1/history/images/${one.id}`)
  for (const id of ['0', '-1', 'x', '1e9', '99999999999999999999']) await refused(404, 'GET', `/v1/history/images/${id}`)
  for (const query of ['limit=0', 'limit=201', 'limit=x']) await refused(400, 'GET', `/v1/history/images?${query}`, undefined, { param: 'limit' })
})

test('outputs: ETag, ranges, nothing outside', async () => {
  const { url } = (await make({ response_format: 'url' })).data[0]
  const whole = await s.request('GET', url)
  const data = Buffer.from(await whole.arrayBuffer())
  assert.ok(isPng(data))
  assert.equal(whole.headers.get('content-type'), 'image/png')
  const etag = whole.headers.get('etag')
  assert.equal((await s.request('GET', url, undefined, { headers: { 'If-None-Match': etag } })).status, 304)
  const part = await s.request('GET', url, undefined, { headers: { Range: 'bytes=1-3' } })
  assert.equal(part.status, 206)
  assert.equal(await part.text(), 'PNG')
  assert.equal(part.headers.get('content-range'), `bytes 1-3/${data.length}`)
  const tail = await s.request('GET', url, undefined, { headers: { Range: 'bytes=-8' } })
  assert.ok(Buffer.from(await tail.arrayBuffer()).equals(data.subarray(-8)))
  assert.equal((await s.request('GET', url, undefined, { headers: { Range: `bytes=${data.length}-` } })).status, 416)
  for (const path of ['/outputs/none.png', '/outputs/', '/outputs/.thumbs', '/outputs/..%5cdata', '/outputs/%2fetc%2fpasswd']) await refused(404, 'GET', path).catch((e) => { if (!/-> 400/.test(e.message)) throw e })
})

test('options', async () => {
  const o = await s.get('/v1/options')
  assert.deepEqual(o.formats, ['png', 'jpeg', 'webp'])
  for (const list of ['samplers', 'schedulers', 'rngs']) assert.ok(o[list].length > 1)
  for (const sampler of o.samplers.slice(0, 3)) await make({ sampler, steps: 1 })
  for (const scheduler of o.schedulers.slice(0, 3)) await make({ scheduler, steps: 2 })
  for (const rng of o.rngs) await make({ rng, steps: 1 })
  const files = []
  for (const emphasis of o.emphases) {
    files.push(await bytes(await make({ emphasis, prompt: 'a (red:1.4) fox', steps: 1, seed: 5 })))
    assert.equal(files.at(-1).includes(`Emphasis: ${emphasis}`), emphasis !== 'a1111')
  }
  assert.equal(new Set(files.map((f) => f.subarray(f.indexOf('IDAT')).toString('hex'))).size, 3)
  assert.deepEqual(o.limits.steps, [1, 200])
  assert.deepEqual([o.also_allowed.eta, o.also_allowed.subseed, o.also_allowed.diffusion_tile, o.also_allowed.steps], [-1, -1, 0, undefined])
  for (const [field, value] of Object.entries(o.also_allowed)) {
    const [least, most] = o.limits[field]
    assert.ok(value < least || value > most, field)
    if (field !== 'factor') await make({ [field]: value, steps: 1 })
  }
})

test('options list what is in the model folder, and so do the routes that clients of A1111 know', async () => {
  const o = await s.get('/v1/options')
  const lora = o.loras.find((l) => l.name === 'tiny-lora')
  assert.deepEqual([lora.id, lora.alias, lora.family, lora.supported], ['loras/tiny-lora.safetensors', 'Tiny Style', 'sd1', true])
  assert.deepEqual(o.loras, (await s.get('/v1/loras')).data)
  assert.deepEqual(o.upscaler_files, (await s.get('/v1/upscalers')).data)
  const models = (await s.get('/v1/models')).data
  for (const [list, type] of [['embeddings', 'embedding'], ['controlnets', 'controlnet']])
    assert.deepEqual(o[list].map((x) => x.id), models.filter((m) => m.type === type).map((m) => m.id))
  const samplers = await s.get('/sdapi/v1/samplers'), schedulers = await s.get('/sdapi/v1/schedulers')
  assert.deepEqual(samplers.map((x) => x.aliases[0]), o.samplers)
  assert.equal(samplers.find((x) => x.name === 'DPM++ 2M').options.scheduler, 'karras')
  assert.deepEqual(schedulers.map((x) => x.name), o.schedulers)
  assert.equal(schedulers.find((x) => x.name === 'karras').label, 'Karras')
  assert.deepEqual((await s.get('/sdapi/v1/loras')).find((x) => x.name === 'tiny-lora'),
    { name: 'tiny-lora', alias: 'Tiny Style', path: 'loras/tiny-lora.safetensors', metadata: {} })
  assert.deepEqual(await s.get('/sdapi/v1/embeddings'), { loaded: {}, skipped: {} })
  assert.ok((await s.get('/sdapi/v1/upscalers')).some((x) => x.name === 'Lanczos' && x.model_path === null))
  await refused(404, 'GET', '/sdapi/v1/nothing')
})

test('settings', async () => {
  const value = { theme: 'dark', 'last form': { a: [1, null, '😀'] } }
  await s.api('PUT', '/v1/settings', value)
  assert.deepEqual(await s.get('/v1/settings'), value)
  await refused(400, 'PUT', '/v1/settings', '[1]')
  await refused(400, 'PUT', '/v1/settings', 'nope', { code: 'format' })
  await refused(413, 'PUT', '/v1/settings', { a: 'x'.repeat(4 << 20) })
  assert.deepEqual(await s.get('/v1/settings'), value)
})

test('logs', async () => {
  const r = await s.request('GET', '/v1/logs?lines=3')
  assert.match(r.headers.get('content-type'), /^text\/plain/)
  assert.equal((await r.text()).trim().split('\n').length, 3)
  for (const lines of ['0', 'x', '-1', '99999']) await refused(400, 'GET', `/v1/logs?lines=${lines}`, undefined, { param: 'lines' })
})

test('text: the Magic Wand', async () => {
  await s.loadLlm()
  assert.ok((await s.get('/v1/prompt/enhance')).instruction)
  const streamed = await readChat(await s.request('POST', '/v1/prompt/enhance', { prompt: 'a cube', stream: true, seed: 3 }))
  assert.ok(streamed.done && streamed.text)
  const whole = await s.post('/v1/prompt/enhance', { prompt: 'a cube', seed: 3 })
  assert.equal(whole.choices[0].message.content, streamed.text)
  await refused(400, 'POST', '/v1/prompt/enhance', {}, { param: 'prompt' })
})

test('text: an LLM that was let go for idleness is loaded again when it is needed', async () => {
  const other = await Studio.start({ args: ['--llm-idle-timeout', '1'] })
  try {
    await other.loadLlm()
    await until('unloaded', async () => !(await other.get(`/v1/models/${LLM}`)).loaded)
    assert.ok((await other.get(`/v1/models/${LLM}`)).active, 'still the chosen one')
    const r = await other.post('/v1/chat/completions', { messages: [{ role: 'user', content: 'x' }], max_tokens: 2 })
    assert.equal(r.model, LLM)
  } finally { await other.cleanup() }
})

test('workers: retry', async () => {
  await refused(404, 'POST', '/v1/workers/x/retry', {})
  assert.ok((await s.post('/v1/workers/sd/retry')).state)
  await s.ready()
  await make()
})

test('unknown routes and methods', async () => {
  for (const method of ['GET', 'POST', 'PUT', 'PATCH', 'DELETE', 'OPTIONS']) await refused(404, method, '/v1/nope', method === 'POST' ? {} : undefined)
  await refused(404, 'POST', '/sdapi/v1/txt2img', {})
  const { headers } = await refused(405, 'DELETE', '/v1/models')
  assert.equal(headers.get('allow'), 'GET, HEAD, OPTIONS')
  await refused(405, 'GET', '/v1/chat/completions')
  for (const type of ['text/plain', 'application/x-www-form-urlencoded', 'application/jsonx']) {
    const r = await s.request('POST', '/v1/models/unload', '{}', { headers: { 'Content-Type': type } })
    assert.equal(r.status, 415, type)
    assert.ok((await r.json()).error.message)
  }
})
