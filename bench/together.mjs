// together.mjs - what the language model and the server feel of a picture that is being made:
//   node bench/together.mjs [IMAGE.safetensors] [LLM.gguf] [--side 512] [--answers 15]
// Time to an answer's first word, words a second and time of /health, alone and while a picture is sampled. Without
// files the demo models are taken (models/demo).
import { cpus } from 'node:os'
import { basename, resolve } from 'node:path'
import { parseArgs } from 'node:util'
import { Studio, demoModels, readChat, until } from '../tests/e2e/studio.mjs'

const { values: o, positionals } = parseArgs({ allowPositionals: true,
  options: { side: { type: 'string', default: '512' }, answers: { type: 'string', default: '15' } } })
const SIDE = Number(o.side), ANSWERS = Number(o.answers)
const median = (a) => [...a].sort((x, y) => x - y)[a.length >> 1]

const demo = demoModels(), link = {}
function use(given, ending) {
  if (!given && demo.missing) throw new Error(`${demo.missing}; or name the files`)
  const [name, file] = given ? [basename(given), resolve(given)] : Object.entries(demo.link).find(([f]) => f.endsWith(ending))
  link[name] = file
  return name
}

/** Milliseconds to the first word, and words a second after it. */
async function answer(s) {
  const start = performance.now()
  let first = 0, pieces = 0
  await readChat(await s.request('POST', '/v1/chat/completions', { stream: true, max_tokens: 64, ignore_eos: true,
    messages: [{ role: 'user', content: 'a red circle on a blue background' }] }), () => {
    first ||= performance.now()
    pieces++
  })
  return { first: first - start, rate: 1000 * (pieces - 1) / (performance.now() - first) }
}

async function health(s) {
  const start = performance.now()
  await s.get('/health')
  return performance.now() - start
}

async function measure(s) {
  const answers = [], checks = []
  for (let i = 0; i < ANSWERS; i++) {
    answers.push(await answer(s))
    checks.push(await health(s))
  }
  return { first: median(answers.map((a) => a.first)), rate: median(answers.map((a) => a.rate)), health: median(checks) }
}

const image = use(positionals[0], '.safetensors'), llm = use(positionals[1], '.gguf')
console.log(`${cpus().length} x ${cpus()[0].model.trim()}; ${image} at ${SIDE}x${SIDE}, ${llm}`)
const s = await Studio.start({ models: false, link, args: ['--no-restore'] })
await s.loadImageModel(image)
await s.loadLlm(llm)
await answer(s) // to warm up
const alone = await measure(s)
const job = await s.post('/v1/jobs', { type: 'txt2img', prompt: 'a red circle', width: SIDE, height: SIDE, steps: 150 }, 202)
const state = () => s.get(`/v1/jobs/${job.id}`)
await until('two steps are done', async () => (await state()).step >= 2, 120000)
const beside = await measure(s)
const { status } = await state()
if (status !== 'running') throw new Error(`the picture was ${status} before the answers were: give a larger --side`)
await s.stop()
await s.cleanup()
const line = (what, unit, key, digits) => console.log(`${what.padEnd(34)} ${alone[key].toFixed(digits)} ${unit} alone, ` +
  `${beside[key].toFixed(digits)} ${unit} beside a picture (x ${(beside[key] / alone[key]).toFixed(2)})`)
line('first word, median', 'ms', 'first', 1)
line('words a second after it, median', '', 'rate', 0)
line('/health, median', 'ms', 'health', 2)
process.exit(0)
