// demo_llm.test.mjs - the demo language model: keeps what was named, knows the studio, and goes on after a crash.
import { after, before, describe, test } from 'node:test'
import assert from 'node:assert/strict'
import { existsSync, readdirSync } from 'node:fs'
import { join } from 'node:path'
import { ROOT, Studio, readChat, until } from './studio.mjs'

const folder = join(ROOT, 'models/demo')
const file = existsSync(folder) && readdirSync(folder).find((f) => f.endsWith('.gguf'))

describe('the demo language model', { skip: file ? false : 'models/demo holds no .gguf' }, () => {
  let s
  before(async () => {
    s = await Studio.start({ models: false, link: { [`demo/${file}`]: join(folder, file) } })
    await s.loadLlm(`demo/${file}`)
  })
  after(() => s?.cleanup())

  const wand = async (prompt, more = {}) => readChat(await s.request('POST', '/v1/prompt/enhance', { prompt, stream: true, ...more }))
  const chat = async (messages, more = {}) =>
    readChat(await s.request('POST', '/v1/chat/completions', { messages, stream: true, temperature: 0, ...more }))
  const ask = async (...turns) => (await chat(turns.map((content, i) => ({ role: i % 2 ? 'assistant' : 'user', content })))).text

  test('the wand keeps what was named and adds something', async () => {
    for (const seed of [1, 2, 3, 4, 5]) {
      const { text, finish } = await wand('a red circle on a blue background', { seed })
      for (const word of ['red', 'circle', 'blue']) assert.match(text, new RegExp(`\\b${word}\\b`), text)
      assert.doesNotMatch(text, /orange|yellow|green|purple|pink|brown|black|white|square|triangle|star|heart|cross/)
      const words = text.split(/\s+/).length
      assert.ok(words > 7 && words <= 80, text)
      assert.equal(finish, 'stop')
    }
  })

  test('the chat does so too, also in the second turn', async () => {
    const first = await ask('enhance: a small green star above a yellow heart, watercolor')
    for (const word of [/small|little|tiny/, /green/, /star/, /yellow/, /heart/, /watercolou?r/]) assert.match(first, word)
    const second = await ask('enhance: a small green star above a yellow heart, watercolor', first, 'a house on hills at night')
    for (const word of [/house/, /hills/, /night/]) assert.match(second, word)
    assert.doesNotMatch(second, /star|heart/)
  })

  test('it knows the studio', async () => {
    assert.match(await ask('Which samplers are there?'), /euler.*heun.*dpm\+\+2m/)
    assert.match(await ask('How do I use my own model?'), /models folder/)
    assert.match(await ask('What happens when a worker crashes?'), /pause/)
  })

  test('a killed worker costs a pause: the stream ends with the same text', async () => {
    const body = { seed: 11, ignore_eos: true, max_tokens: 400 }
    const wanted = (await wand('a red circle on a blue background', body)).text
    const r = await s.request('POST', '/v1/prompt/enhance', { prompt: 'a red circle on a blue background', stream: true, ...body })
    const before = await s.pid('llm')
    const reading = readChat(r)
    await s.kill('llm')
    const answer = await reading
    assert.equal(answer.error, null)
    assert.equal(answer.text, wanted)
    assert.ok(answer.done)
    await until('another worker', async () => { const pid = await s.pid('llm'); return pid && pid !== before })
  })
})
