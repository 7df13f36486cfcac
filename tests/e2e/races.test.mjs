// races.test.mjs - what happens when two things are asked for at the same time.
import { after, before, test } from 'node:test'
import assert from 'node:assert/strict'
import { copyFileSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { Studio, sleep, until } from './studio.mjs'

const IMAGE = 'tiny-sd1-f16.safetensors'
const LLM = 'tiny-llm-f16.gguf'
const small = { prompt: 'a red cube', width: 64, height: 64, steps: 2, seed: 42 }

let s
before(async () => {
  s = await Studio.start()
  await until('the model folder is known', async () => (await s.get('/v1/models')).data.some((m) => m.id === IMAGE))
  await until('both engines are up', async () => Object.values((await s.health()).workers).every((w) => w.activity === 'idle'))
})
after(() => s.cleanup())

const loading = (worker) => until('the server has begun to load', async () => (await s.health()).workers[worker].activity === 'loading')

/** Runs fn while the worker stands still: what fn sends lies in its socket, in that order. */
async function whileStopped(worker, fn) {
  const pid = await s.pid(worker)
  process.kill(pid, 'SIGSTOP')
  try { return await fn() } finally { try { process.kill(pid, 'SIGCONT') } catch { /* fn has killed it */ } }
}

for (const [worker, load, unload, id] of [['sd', '/v1/models/load', '/v1/models/unload', IMAGE], ['llm', '/v1/llm/load', '/v1/llm/unload', LLM]])
  test(`${worker}: an unload during a load wins`, async () => {
    const [loads, unloads] = await whileStopped(worker, async () => {
      const first = s.request('POST', load, { model_id: id })
      await loading(worker)
      const second = s.request('POST', unload, {})
      await sleep(1000) // nothing tells from outside that the server has it
      return [first, second]
    })
    assert.equal((await unloads).status, 200)
    const answer = await loads
    assert.equal(answer.status, 409)
    assert.match((await answer.json()).error.message, /unloaded while it was being loaded/)
    const { loaded, model, state } = (await s.health()).workers[worker]
    assert.deepEqual({ loaded, model, state }, { loaded: false, model: null, state: 'ready' })
    assert.ok((await s.get('/v1/models')).data.every((m) => m.id !== id || !m.active && !m.loaded))
    await s.post(load, { model_id: id })
    assert.equal((await s.health()).workers[worker].loaded, true)
  })

test('a second load at the same time is refused, and the first one counts', async () => {
  const [first, second] = await whileStopped('sd', async () => {
    const a = s.request('POST', '/v1/models/load', { model_id: IMAGE })
    await loading('sd')
    return [a, await s.request('POST', '/v1/models/load', { model_id: 'tiny-sd1-f32.safetensors' })]
  })
  assert.equal(second.status, 503)
  assert.ok(second.headers.get('retry-after'))
  assert.equal((await first).status, 200)
  assert.equal((await s.health()).workers.sd.model, IMAGE)
})

test('a retry during a load does not lose the load', async () => {
  const [loads] = await whileStopped('sd', async () => {
    const first = s.request('POST', '/v1/models/load', { model_id: 'tiny-sd1-f32.safetensors' })
    await loading('sd')
    await s.post('/v1/workers/sd/retry')
    return [first]
  })
  assert.equal((await loads).status, 200)
  const { model, state } = (await s.health()).workers.sd
  assert.deepEqual({ model, state }, { model: 'tiny-sd1-f32.safetensors', state: 'ready' })
})

for (const signal of ['SIGTERM', 'SIGKILL'])
  test(`${signal} of the LLM worker pauses an answer, no more`, async () => {
    await s.loadLlm(LLM)
    const chat = { messages: [{ role: 'user', content: 'hi' }], max_tokens: 100, ignore_eos: true, seed: 1, temperature: 0 }
    const answer = await whileStopped('llm', async () => {
      const first = s.request('POST', '/v1/chat/completions', chat)
      await sleep(200)
      await s.kill('llm', signal)
      return [first]
    })
    const r = await answer[0]
    assert.equal(r.status, 200, await r.clone().text())
    assert.deepEqual((await r.json()).choices, (await s.post('/v1/chat/completions', chat)).choices)
  })

test('an unload while its worker ends is an unload', async () => {
  await s.loadLlm(LLM)
  const unloading = await whileStopped('llm', async () => {
    const first = s.request('POST', '/v1/llm/unload', {})
    await sleep(200)
    await s.kill('llm', 'SIGKILL')
    return [first]
  })
  assert.equal((await unloading[0]).status, 200)
  await s.ready()
  assert.equal((await s.health()).workers.llm.model, null)
})

test('a model that was copied a moment ago is found', async () => {
  copyFileSync(join(s.models, IMAGE), join(s.models, 'fresh.safetensors'))
  assert.equal((await s.post('/v1/models/load', { model_id: 'fresh.safetensors' })).model_id, 'fresh.safetensors')
})

test('models whose files are gone still serve while they are loaded', async () => {
  await s.loadImageModel(IMAGE)
  await s.loadLlm(LLM)
  for (const id of [IMAGE, LLM]) rmSync(join(s.models, id))
  await s.post('/v1/models/refresh')
  assert.equal((await s.post('/v1/images/generations', { ...small, model: IMAGE })).data.length, 1)
  const chat = await s.post('/v1/chat/completions', { model: LLM, messages: [{ role: 'user', content: 'hi' }], max_tokens: 4 })
  assert.equal(chat.choices.length, 1)
})
