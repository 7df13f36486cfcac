// embeddings.test.mjs - /v1/embeddings: the numbers against PyTorch, OpenAI's shapes through its own client, and a worker's death.
import { after, before, test } from 'node:test'
import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { join } from 'node:path'
import OpenAI from 'openai'
import { ROOT, Studio, sleep, tinyModels, until } from './studio.mjs'

const LLM = 'tiny-llm-f16.gguf', BERT = 'tiny-bert.gguf', SLOW = 'tiny-llm-slow.gguf'
const WIDTH = 128

let s, client
before(async () => {
  s = await Studio.start()
  execFileSync('/usr/bin/python3', [join(ROOT, 'tools/make_tiny_llm.py'), join(s.models, BERT), '--embedding'])
  await s.post('/v1/models/refresh')
  client = new OpenAI({ baseURL: s.base + '/v1', apiKey: 'any', maxRetries: 0 })
})
after(() => s.cleanup())

const embed = (body, status) => s.post('/v1/embeddings', body, status)
const dot = (a, b) => a.reduce((sum, x, i) => sum + x * b[i], 0)
const close = (got, want, most) => assert.ok(got.every((x, i) => Math.abs(x - want[i]) < most), `differs by ${Math.max(...got.map((x, i) => Math.abs(x - want[i])))}`)

for (const [model, file] of [[LLM, () => join(tinyModels(), LLM)], [BERT, () => join(s.models, BERT)]])
  test(`${model}: random tokens, against PyTorch`, async (t) => {
    const seed = Date.now() % 100000
    t.diagnostic(`seed ${seed}`)
    let x = seed
    const random = (n) => { x = (x * 1103515245 + 12345) & 0x7fffffff; return (x >> 8) % n }
    // The second one takes several chunks of a model that reads in chunks.
    const input = [7, 300, 1, 129].map((n) => Array.from({ length: n }, () => 4 + random(250)))
    const want = JSON.parse(execFileSync('/usr/bin/python3', [join(ROOT, 'tools/ref/embed.py'), file()], { input: JSON.stringify(input) }))
    const got = await embed({ model, input })
    assert.deepEqual(got.data.map((d) => [d.object, d.index, d.embedding.length]), input.map((_, i) => ['embedding', i, WIDTH]))
    assert.deepEqual([got.object, got.model, got.usage], ['list', model, { prompt_tokens: 437, total_tokens: 437 }])
    // Half precision in the weights' products and in the cache, a table for GELU: some 1e-4 of numbers below 1.
    got.data.forEach((d, i) => close(d.embedding, want[i], 3e-3))
    got.data.forEach((d, i) => assert.ok(dot(d.embedding, want[i]) > 0.9999, `text ${i}`))
  })

test("OpenAI's client: floats, base64, dimensions; a text does not depend on its neighbours", async () => {
  const one = await client.embeddings.create({ model: LLM, input: 'a red fox in deep snow' }) // it asks for base64 by itself
  const many = await client.embeddings.create({ model: LLM, input: ['the city at night', 'a red fox in deep snow'], encoding_format: 'float' })
  assert.deepEqual(Array.from(new Float32Array(one.data[0].embedding)), Array.from(new Float32Array(many.data[1].embedding)))
  assert.ok(Math.abs(dot(one.data[0].embedding, one.data[0].embedding) - 1) < 1e-5)
  assert.ok(dot(many.data[0].embedding, many.data[1].embedding) < 0.9999)
  const short = (await client.embeddings.create({ model: LLM, input: 'a red fox in deep snow', dimensions: 16 })).data[0].embedding
  assert.equal(short.length, 16)
  const cut = one.data[0].embedding.slice(0, 16), length = Math.sqrt(dot(cut, cut))
  close(short, cut.map((v) => v / length), 1e-6)
})

test('what cannot be is refused by name', async () => {
  const refused = async (body, status, param, message) => {
    const r = await s.request('POST', '/v1/embeddings', { model: LLM, ...body })
    const { error } = await r.json()
    assert.deepEqual([r.status, error.param], [status, param], error.message)
    assert.match(error.message, message)
    return error
  }
  await refused({}, 400, 'input', /required/)
  await refused({ input: [] }, 400, 'input', /1 to 2048/)
  await refused({ input: '' }, 400, 'input', /must not be empty/)
  await refused({ input: ['a', 7] }, 400, 'input[1]', /expected string/)
  await refused({ input: [[1], [-1]] }, 400, 'input[1][0]', /expected a token/)
  await refused({ input: [[1], [1, 99999]] }, 400, 'input[1][1]', /input\[1\]\[1\]: 99999 is not one of the model's/)
  await refused({ input: 'a', encoding_format: 'hex' }, 400, 'encoding_format', /float nor base64/)
  await refused({ input: 'a', dimensions: 0 }, 400, 'dimensions', /0 is not between/)
  await refused({ input: 'a', dimensions: WIDTH + 1 }, 400, 'dimensions', /dimensions: 129 is not between 1 and 128/)
  await refused({ input: 'a', model: 'nobody' }, 404, 'model', /nobody/)
  assert.equal((await refused({ input: ['a', 'snow '.repeat(9000)] }, 400, 'input', /input\[1\].*tokens, but the model takes at most/)).code, 'context_length_exceeded')
  const r = await s.request('POST', '/v1/chat/completions', { model: BERT, messages: [{ role: 'user', content: 'x' }] })
  assert.deepEqual([r.status, (await r.json()).error.message], [400, 'the model makes embeddings, and no text'])
})

test('over the death of the worker, and with a client that leaves', async () => {
  await s.loadLlm(SLOW)
  const input = Array.from({ length: 12 }, (_, i) => 'a red fox in deep snow , winter forest behind it '.repeat(3 + i % 3))
  const want = await embed({ input })
  const pid = await s.pid('llm')
  const again = embed({ input })
  let over = false
  again.finally(() => { over = true })
  await sleep(100)
  assert.ok(!over, 'it was still at work')
  process.kill(pid, 'SIGKILL')
  assert.deepEqual(await again, want)
  await until('the next process', async () => { const w = (await s.health()).workers.llm; return w.state === 'ready' && w.pid !== pid })
  const abort = new AbortController() // and a client that leaves
  const gone = s.request('POST', '/v1/embeddings', { input: Array(500).fill(input[0]) }, { signal: abort.signal }).catch((e) => e.name)
  await sleep(100)
  abort.abort()
  assert.equal(await gone, 'AbortError')
  assert.deepEqual(await embed({ input: input.slice(0, 1) }).then((r) => r.data[0]), want.data[0])
})
