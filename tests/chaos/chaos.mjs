// chaos.mjs - kills the real programs again and again under load, and checks from outside that nothing is lost.
//
//   node tests/chaos/chaos.mjs [--seed 1] [--seconds 20] [--kills N] [--mix kill-sd=40,kill-llm=40,...]
//
// It ends after the time or the number of kills, whichever is given (with both: the first). Every picture and every
// stream is compared with one made undisturbed beforehand. The exit code is 1 when anything was lost or different.
//
// A job or stream is hurt at most once at a time: two deaths of one job are poison by design (docs/supervision.md).
// Text is compared one stream at a time, because a batch of several rounds differently.
// The full disk is a small one of its own that holds pictures and data; without the rights for it, it is left out.
import { cpSync, existsSync, readFileSync, readdirSync } from 'node:fs'
import { createHash } from 'node:crypto'
import { execFileSync } from 'node:child_process'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { SmallDisk } from '../e2e/small_disk.mjs'
import { Studio, isAlive, readChat, sleep, until } from '../e2e/studio.mjs'

const { values: opt } = parseArgs({ options: { seed: { type: 'string', default: '1' }, seconds: { type: 'string' }, kills: { type: 'string' }, mix: { type: 'string' } } })
const limitMs = opt.seconds ? Number(opt.seconds) * 1000 : opt.kills ? Infinity : 20000
const limitKills = Number(opt.kills ?? Infinity)
const MIX = { 'kill-sd': 44, 'kill-llm': 44, segv: 5, stop: 1, server: 2, vanish: 4, rlimit: 1, full: 2 }
if (opt.mix) {
  for (const k in MIX) MIX[k] = 0
  for (const part of opt.mix.split(',')) {
    const [name, weight] = part.split('=')
    if (!(name in MIX)) throw new Error(`--mix: no action '${name}'; there are ${Object.keys(MIX).join(', ')}`)
    MIX[name] = Number(weight ?? 1)
  }
}

/** mulberry32: the same seed, the same choices. */
let state = Number(opt.seed) >>> 0
function random() {
  state = (state + 0x6d2b79f5) >>> 0
  let t = Math.imul(state ^ (state >>> 15), 1 | state)
  t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t
  return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32
}
const pick = (list) => list[Math.floor(random() * list.length)]
function pickAction() {
  let at = random() * Object.values(MIX).reduce((a, b) => a + b)
  for (const [name, weight] of Object.entries(MIX)) if ((at -= weight) < 0) return name
  return 'kill-sd'
}

const picture = { type: 'txt2img', prompt: 'a red cube on a table', width: 64, height: 64, steps: 12 }
const PICTURES = [
  { ...picture, seed: 1 }, { ...picture, seed: 2, sampler: 'dpm++2m' }, { ...picture, seed: 3, n: 2 },
  { ...picture, seed: 4, sampler: 'heun', steps: 8 }, { ...picture, seed: 5, width: 128, height: 128, steps: 16 },
]
const talk = { messages: [{ role: 'user', content: 'tell me a story' }], max_tokens: 250, ignore_eos: true, stream: true }
const { messages, ...plain } = talk
const TALKS = [{ ...talk, temperature: 0 }, { ...talk, temperature: 1, seed: 1 }, { ...talk, temperature: 0.7, seed: 2, max_tokens: 400 }, { ...talk, temperature: 1, seed: 3, stream: false },
  { ...plain, prompt: 'a quiet harbour', temperature: 1, seed: 4 }, { input: Array.from({ length: 24 }, (_, i) => 'a red fox in deep snow '.repeat(1 + i % 5)), encoding_format: 'base64' }]
const pathOf = (request) => request.input ? '/v1/embeddings' : request.prompt ? '/v1/completions' : '/v1/chat/completions'

const disk = MIX.full ? await SmallDisk.mount(64).catch((e) => console.log(`skipped: no full disks, for no small one can be mounted here (${e.message})`)) : null
if (!disk) MIX.full = 0

const n = { 'kill-sd': 0, 'kill-llm': 0, segv: 0, stop: 0, server: 0, vanish: 0, rlimit: 0, full: 0, no_room: 0, jobs: 0, pictures: 0, streams: 0, requests: 0, cut: 0, refused: 0, poison: 0, lost: 0, different: 0 }
const kills = () => n['kill-sd'] + n['kill-llm'] + n.segv + n.stop + n.server + n.rlimit
const complain = (kind, text) => { n[kind]++; console.log(`${kind.toUpperCase()}: ${text}`) }
const hash = (bytes) => createHash('sha256').update(bytes).digest('hex').slice(0, 16)

const args = ['--threads', '1'] // threads that wait for each other make no headway where others have the processors
let s = await Studio.start({ disk, args })
const { dir, port } = s
const filesAt = disk?.seen ?? dir // where the pictures and the data are, for us
const pids = new Set([s.process.pid])
let over = false, down = false, serverLives = 1
const hurt = { sd: false, llm: false } // the work under way has seen a death already
let rssFirst = 0, rssGrowth = 0
const limited = new Set() // workers that were given too little memory, whose jobs may fail of it

const spells = [] // {from, to}: when the disk was full
/** The error says that there is no room, and there was none then. */
const isForWantOfRoom = (message, at) => /disk is full|no space left/i.test(message) && spells.some((f) => f.from <= at && at <= f.to)

const rss = (pid) => Number(readFileSync(`/proc/${pid}/status`, 'utf8').match(/VmRSS:\s+(\d+)/)?.[1] ?? 0) / 1024

/** fn() again while the server is away. */
async function patiently(fn) {
  for (const end = Date.now() + 60000; ;) {
    const life = serverLives
    try { return await fn() } catch (e) {
      if (Date.now() > end) throw e
      if (life === serverLives && !down && !/fetch failed|terminated|reset|ECONN|socket/i.test(`${e} ${e.cause}`)) throw e
      await sleep(20)
    }
  }
}

const bytesOf = (url) => patiently(async () => {
  const r = await fetch(s.base + url)
  if (r.status !== 200) throw new Error(`${url}: status ${r.status}`)
  return Buffer.from(await r.arrayBuffer())
})
const hashesOf = async (job) => (await Promise.all(job.results.map((r) => bytesOf(r.url)))).map(hash).join()

async function endOf(id) {
  for (const end = Date.now() + 300000; Date.now() < end; await sleep(20)) {
    const j = await patiently(() => s.get(`/v1/jobs/${id}`))
    if (['done', 'failed', 'cancelled'].includes(j.status)) return j
  }
  return { status: 'never ended' }
}

// ---- references -----------------------------------------------------------------------------------------------------

await s.loadImageModel()
await s.loadLlm()
async function say(request) {
  if (request.input) return { text: (await s.post(pathOf(request), request)).data.map((d) => d.embedding).join(), done: true }
  if (!request.stream) return { text: (await s.post(pathOf(request), request)).choices[0].message.content, done: true }
  return readChat(await s.request('POST', pathOf(request), request))
}
const wantPictures = [], wantTexts = []
for (const p of PICTURES) wantPictures.push(await hashesOf(await endOf((await s.post('/v1/jobs', p, 202)).id)))
for (const t of TALKS) wantTexts.push((await say(t)).text)
rssFirst = rss(s.process.pid)

// ---- load -----------------------------------------------------------------------------------------------------------

const mine = new Map() // job id -> its end
async function judge(id, which) {
  const end = await endOf(id)
  mine.set(id, end)
  n.jobs++
  hurt.sd = false
  if (end.status === 'failed' && /died 2 times/.test(end.error.message)) { n.poison++; return }
  if (end.status === 'failed' && limited.size && /memory|alloc/i.test(end.error.message)) { n.refused++; return }
  if (end.status === 'failed' && isForWantOfRoom(end.error.message, end.finished_ms)) { n.no_room++; return }
  if (end.status !== 'done') return complain('lost', `${id}: ${end.status} ${JSON.stringify(end.error)}`)
  n.pictures += end.results.length
  if (end.results.length !== end.params.n) return complain('lost', `${id} is done with ${end.results.length} of ${end.params.n} pictures`)
  if (await hashesOf(end) !== wantPictures[which]) complain('different', `${id}, request ${which}`)
}

async function imageLoad() {
  const pending = []
  while (!over) {
    const which = Math.floor(random() * PICTURES.length)
    const asked = Date.now()
    const job = await patiently(() => s.post('/v1/jobs', PICTURES[which], 202)).catch((e) => {
      if (isForWantOfRoom(e.message, asked) || isForWantOfRoom(e.message, Date.now())) n.no_room++
      else complain('lost', `a job was refused: ${e.message}`)
    })
    if (!job) { await sleep(200); continue }
    pending.push(judge(job.id, which))
    if (pending.length >= 2) await pending.shift()
  }
  await Promise.all(pending)
}

async function textLoad() {
  while (!over) {
    const which = Math.floor(random() * TALKS.length), life = serverLives
    hurt.llm = false
    try {
      const got = await say(TALKS[which])
      if (life !== serverLives || down) { n.cut++; continue }
      n[TALKS[which].stream ? 'streams' : 'requests']++
      if (got.error || !got.done) complain('lost', `text ${which}: ${JSON.stringify(got.error)}, ${got.text.length} characters`)
      else if (got.text !== wantTexts[which]) complain('different', `text ${which}: ${got.text.length} for ${wantTexts[which].length} characters`)
    } catch (e) {
      if (life !== serverLives || down) { n.cut++; await sleep(50) } // the server itself was killed: the one thing that ends a connection
      else complain('lost', `text ${which}: ${e.message}`)
    }
  }
}

// ---- harm -----------------------------------------------------------------------------------------------------------

async function killServer(meanwhile = () => {}) {
  down = true
  serverLives++
  rssGrowth = Math.max(rssGrowth, rss(s.process.pid) - rssFirst)
  s.process.kill('SIGKILL')
  await s.exited
  meanwhile()
  s = await Studio.start({ dir, port, disk, args, wait: false })
  pids.add(s.process.pid)
  await until('the server is back', () => s.health().catch(() => null))
  down = false
  n.server++
}

/** No room for a while, in which other things may happen as well. */
async function fillDisk() {
  const spell = { from: Date.now(), to: Infinity }, end = spell.from + 200 + random() * 1500
  const also = pick(['nothing', 'nothing', 'kill-sd', 'kill-llm', 'server'])
  spells.push(spell)
  n.full++
  disk.fill()
  await sleep(random() * 200)
  if (also.startsWith('kill')) await harm(also)
  for (; Date.now() < end; await sleep(20)) disk.fill() // workers remove what they could not finish
  if (also === 'server') await killServer(() => disk.makeRoom())
  disk.makeRoom()
  spell.to = Date.now()
}

async function harm(action) {
  if (action === 'server') return killServer()
  if (action === 'full') return fillDisk()
  if (action === 'vanish') {
    const abort = new AbortController()
    const gone = s.request('POST', '/v1/images/generations', { ...PICTURES[0], type: undefined }, { signal: abort.signal }).catch(() => 0)
    await sleep(random() * 100)
    abort.abort()
    await gone
    n.vanish++
    return
  }
  const worker = action === 'kill-llm' ? 'llm' : action === 'kill-sd' || action === 'rlimit' ? 'sd' : pick(['sd', 'llm'])
  const w = (await s.health()).workers[worker]
  if (!w.pid || hurt[worker] || (w.state !== 'ready' && !(w.state === 'restoring' && random() < 0.1))) return
  pids.add(w.pid)
  hurt[worker] = true
  try {
    if (action === 'rlimit') {
      limited.add(w.pid)
      execFileSync('prlimit', ['--pid', String(w.pid), '--as=1048576'])
      await sleep(300)
    }
    process.kill(w.pid, action === 'segv' ? 'SIGSEGV' : action === 'stop' ? 'SIGSTOP' : 'SIGKILL')
    n[action]++
  } catch (e) { if (e.code !== 'ESRCH' && action !== 'rlimit') throw e }
}

const began = Date.now()
const load = [imageLoad(), textLoad()]
for (let told = Date.now(); Date.now() - began < limitMs && kills() < limitKills;) {
  await sleep(10 + random() * 90)
  await harm(pickAction()).catch((e) => { if (!/fetch failed/.test(e.message)) throw e })
  if (Date.now() - told > 30000) { told = Date.now(); console.log(`${Math.round((told - began) / 1000)} s: ${JSON.stringify(n)}`) }
}
over = true
await Promise.all(load)
const seconds = (Date.now() - began) / 1000

// ---- what is left ---------------------------------------------------------------------------------------------------

await until('both workers ready', async () => (await s.health()).status === 'ok', 60000).catch((e) => complain('lost', e.message))
await until('an empty queue', async () => !(await s.get('/v1/jobs?status=queued,running,interrupted')).data.length, 60000).catch((e) => complain('lost', e.message))
let done = 0
for (let page = { next: '' }; page.next !== null;) {
  page = await s.get(`/v1/jobs?limit=200${page.next ? `&before=${page.next}` : ''}`)
  for (const j of page.data) if (j.status === 'done') done += j.params.n
    else if (j.results.length) done += j.results.length // cancelled between two pictures
}
const files = []
for (let page = { next: '' }; page.next !== null;) {
  page = await s.get(`/v1/history/images?limit=200${page.next ? `&before=${page.next}` : ''}`)
  files.push(...page.data.map((e) => e.file))
}
if (new Set(files).size !== files.length) complain('different', 'a picture is in the history twice')
if (files.length !== done) complain('lost', `${files.length} pictures in the history, ${done} in the jobs`)
for (const f of files) if (!existsSync(join(filesAt, 'outputs', f))) complain('lost', `no file for ${f}`)
const odd = readdirSync(join(filesAt, 'outputs')).filter((f) => f !== '.thumbs' && !files.includes(f))
if (odd.length) complain('different', `files that are not in the history: ${odd.join(', ')}`)
const left = readdirSync(join(filesAt, 'data/checkpoints'))
if (left.length) complain('different', `left in the checkpoints: ${left.join(', ')}`)
rssGrowth = Math.max(rssGrowth, rss(s.process.pid) - rssFirst)
if (rssGrowth > 64) complain('different', `the server grew by ${rssGrowth.toFixed(0)} MB`)
for (const w of ['sd', 'llm']) pids.add(await s.pid(w))
await s.stop()
const orphans = [...pids].filter(isAlive)
if (orphans.length) complain('lost', `processes left: ${orphans.join(', ')}`)

console.log(`
| seed ${opt.seed}, ${seconds.toFixed(0)} s | |
|---|---|
| kills | ${kills()} (image worker SIGKILL ${n['kill-sd']}, text worker SIGKILL ${n['kill-llm']}, SIGSEGV ${n.segv}, SIGSTOP ${n.stop}, no memory ${n.rlimit}, server ${n.server}) |
| clients that vanished | ${n.vanish} |
| jobs, pictures | ${n.jobs}, ${n.pictures}; in the history ${files.length} |
| streams, other text requests | ${n.streams}, ${n.requests}; cut by the server's own death ${n.cut} |
| times without room on the disk | ${disk ? n.full : 'left out'} |
| failed with the true reason | poison ${n.poison}, out of memory ${n.refused}, no room ${n.no_room} |
| lost | ${n.lost} |
| different | ${n.different} |
| growth of the server | ${rssGrowth.toFixed(1)} MB |
`)
const bad = n.lost || n.different
if (bad && disk) cpSync(disk.seen, join(dir, 'disk'), { recursive: true })
await disk?.close()
if (bad) {
  console.log(`kept for a look: ${dir}`)
  process.exit(1)
}
await s.cleanup()
