// openai.test.mjs - the API as OpenAI's own client sees it, and as other well-known clients speak to it.
import { after, before, test } from 'node:test'
import assert from 'node:assert/strict'
import OpenAI, { toFile } from 'openai'
import { decodePng, encodePng } from './picture.mjs'
import { Studio, isPng, until } from './studio.mjs'

const IMAGE = 'tiny-sd1-f16.safetensors'
const LLM = 'tiny-llm-f16.gguf'
const say = (content) => [{ role: 'user', content }]
const picture = { model: IMAGE, prompt: 'a red cube', size: '64x64', steps: 2, seed: 5 }

let s, client
before(async () => {
  s = await Studio.start({ args: ['--api-key', 'sk-right'] })
  client = new OpenAI({ baseURL: s.base + '/v1', apiKey: 'sk-right', maxRetries: 0 })
  await client.post('/models/load', { body: { model_id: IMAGE } })
  await client.post('/llm/load', { body: { model_id: LLM, slots: 4 } })
})
after(() => s.cleanup())

// ignore_eos: a tiny model ends where it likes; these answers are as long as asked for.
const chat = (more = {}, options) => client.chat.completions.create({ model: LLM, messages: say('hello'), max_tokens: 8, ignore_eos: true, ...more }, options)

/** The request is refused with that class of error, and all its fields are there. */
async function refused(promise, kind, { param, code } = {}) {
  const e = await promise.then(() => assert.fail('not refused'), (e) => e)
  assert.ok(e instanceof kind, `${e.constructor.name}: ${e.message}`)
  assert.deepEqual(Object.keys(e.error).sort(), ['code', 'message', 'param', 'type'])
  assert.equal(typeof e.error.message, 'string')
  assert.match(e.error.type, /_error$/)
  if (param !== undefined) assert.equal(e.param, param, e.message)
  if (code !== undefined) assert.equal(e.code, code, e.message)
  return e
}

function checkUsage(u) {
  assert.ok(u.prompt_tokens > 0 && u.completion_tokens >= 0)
  assert.equal(u.total_tokens, u.prompt_tokens + u.completion_tokens)
}

const isNow = (seconds) => assert.ok(Number.isInteger(seconds) && Math.abs(seconds - Date.now() / 1000) < 300, `created: ${seconds}`)

test('models: list and retrieve', async () => {
  const list = []
  for await (const m of client.models.list()) list.push(m)
  for (const m of list) {
    assert.equal(m.object, 'model')
    assert.ok(Number.isInteger(m.created))
    assert.equal(typeof m.owned_by, 'string')
  }
  assert.ok(list.find((m) => m.id === LLM)?.active)
  assert.equal((await client.models.retrieve(LLM)).id, LLM)
  await refused(client.models.retrieve('nobody'), OpenAI.NotFoundError, { code: 'model_not_found' })
  await refused(client.models.retrieve('sub/nobody'), OpenAI.NotFoundError, { code: 'model_not_found' })
})

test('chat: a whole answer', async () => {
  const { data: r, response } = await chat().withResponse()
  assert.match(response.headers.get('content-type'), /^application\/json/)
  assert.match(r.id, /^chatcmpl-/)
  assert.equal(r.object, 'chat.completion')
  assert.equal(r.model, LLM)
  isNow(r.created)
  assert.equal(r.choices.length, 1)
  const [c] = r.choices
  assert.equal(c.index, 0)
  assert.equal(c.message.role, 'assistant')
  assert.equal(c.message.refusal, null)
  assert.equal(c.logprobs, null)
  assert.ok(c.message.content.length > 0)
  assert.equal(c.finish_reason, 'length')
  checkUsage(r.usage)
  assert.equal(r.usage.completion_tokens, 8)
})

test('chat: a stream', async () => {
  const { data: stream, response } = await chat({ stream: true, stream_options: { include_usage: true } }).withResponse()
  assert.match(response.headers.get('content-type'), /^text\/event-stream/)
  const chunks = []
  for await (const c of stream) chunks.push(c)
  assert.equal(new Set(chunks.map((c) => c.id)).size, 1)
  assert.equal(new Set(chunks.map((c) => c.created)).size, 1)
  for (const c of chunks) assert.equal(c.object, 'chat.completion.chunk')
  const last = chunks.pop()
  assert.deepEqual(last.choices, [])
  checkUsage(last.usage)
  assert.equal(chunks[0].choices[0].delta.role, 'assistant')
  for (const c of chunks.slice(1)) assert.equal(c.choices[0].delta.role, undefined, 'the role comes once')
  assert.ok(chunks.slice(0, -1).every((c) => c.choices[0].finish_reason === null))
  assert.deepEqual(chunks.at(-1).choices[0].delta, {})
  assert.equal(chunks.at(-1).choices[0].finish_reason, 'length')
})

test('chat: a stream on the wire ends with [DONE], and has no usage unless asked for', async () => {
  const r = await s.request('POST', '/v1/chat/completions', { messages: say('hi'), max_tokens: 3, stream: true }, { headers: { Authorization: 'Bearer sk-right' } })
  assert.match(r.headers.get('cache-control'), /no-cache/)
  const text = await r.text()
  assert.ok(text.endsWith('data: [DONE]\n\n'))
  const events = text.split('\n\n').slice(0, -1)
  assert.ok(events.every((e) => e.startsWith('data: ') && !e.includes('\n')))
  for (const e of events.slice(0, -1)) assert.equal(JSON.parse(e.slice(6)).usage, undefined)
})

test('chat: the stream helper adds up to the whole answer', async () => {
  const whole = await chat({ seed: 3 })
  const final = await client.chat.completions.stream({ model: LLM, messages: say('hello'), max_tokens: 8, seed: 3, ignore_eos: true }).finalChatCompletion()
  assert.equal(final.choices[0].message.content, whole.choices[0].message.content)
  assert.equal(final.choices[0].finish_reason, 'length')
})

test('chat: max_completion_tokens, seed, temperature 0, stop', async () => {
  const text = async (more) => (await chat(more)).choices[0].message.content
  assert.equal((await chat({ max_tokens: undefined, max_completion_tokens: 3 })).usage.completion_tokens, 3)
  assert.equal(await text({ seed: 7, max_tokens: 24 }), await text({ seed: 7, max_tokens: 24 }))
  assert.notEqual(await text({ seed: 7, max_tokens: 24 }), await text({ seed: 8, max_tokens: 24 }))
  const greedy = await text({ temperature: 0, max_tokens: 24 })
  assert.equal(greedy, await text({ temperature: 0, max_tokens: 24 }))
  assert.equal(greedy, await text({ temperature: 0, max_tokens: 24, seed: 99 }), 'no chance, so no seed')
  const stop = greedy.slice(6, 9)
  const stopped = await chat({ temperature: 0, max_tokens: 24, stop })
  assert.equal(stopped.choices[0].message.content, greedy.slice(0, greedy.indexOf(stop)))
  assert.equal(stopped.choices[0].finish_reason, 'stop')
  let streamed = ''
  for await (const c of await chat({ temperature: 0, max_tokens: 24, stop: ['@@', stop], stream: true })) streamed += c.choices[0]?.delta.content ?? ''
  assert.equal(streamed, stopped.choices[0].message.content)
})

test('chat: seeds of 64 bits', async () => {
  const send = async (seed) => {
    const r = await s.request('POST', '/v1/chat/completions', `{"messages":[{"role":"user","content":"hi"}],"max_tokens":24,"seed":${seed}}`, { headers: { Authorization: 'Bearer sk-right' } })
    assert.equal(r.status, 200)
    return (await r.json()).choices[0].message.content
  }
  assert.equal(await send('18446744073709551615'), await send('18446744073709551615'))
  assert.notEqual(await send('4294967297'), await send('1'), 'the upper half counts')
  assert.equal(await send('-9223372036854775808'), await send('-9223372036854775808'))
})

test('chat: a wrong model is not found, and the running one stays', async () => {
  await refused(chat({ model: 'gpt-4o' }), OpenAI.NotFoundError, { code: 'model_not_found', param: 'model' })
  await refused(chat({ model: IMAGE }), OpenAI.BadRequestError, { param: 'model' })
  assert.ok((await client.models.retrieve(LLM)).loaded)
  assert.equal((await chat({ model: '' })).model, LLM, 'no model means the loaded one')
})

test('chat: what is wrong is named', async () => {
  const cases = {
    'messages': [{ messages: [] }, { messages: 'x' }, { messages: undefined }],
    'messages[0].role': [{ messages: [{ role: 'wizard', content: 'x' }] }, { messages: [{ content: 'x' }] }],
    'messages[1].content': [{ messages: [...say('x'), { role: 'user', content: 7 }] }, { messages: [...say('x'), { role: 'user' }] }],
    'messages[0].content[1].type': [{ messages: [{ role: 'user', content: [{ type: 'text', text: 'x' }, { type: 'image_url', image_url: { url: 'x' } }] }] }],
    'temperature': [{ temperature: 'hot' }, { temperature: -1 }, { temperature: 99 }],
    'top_p': [{ top_p: 1.5 }],
    'presence_penalty': [{ presence_penalty: 3 }],
    'frequency_penalty': [{ frequency_penalty: -3 }],
    'max_tokens': [{ max_tokens: -5 }, { max_tokens: 'many' }],
    'max_completion_tokens': [{ max_completion_tokens: 1.5 }],
    'n': [{ n: 2 }, { n: 0 }],
    'stop': [{ stop: ['1', '2', '3', '4', '5'] }],
    'stop[0]': [{ stop: [1] }],
    'seed': [{ seed: 'x' }, { seed: 1.5 }],
    'stream': [{ stream: 'yes' }],
    'stream_options': [{ stream_options: 'x' }],
    'tools': [{ tools: [{ type: 'function', function: { name: 'f' } }] }],
    'response_format': [{ response_format: { type: 'json_object' } }],
    'logprobs': [{ logprobs: true }],
    'logit_bias': [{ logit_bias: { 5: -100 } }],
    'model': [{ model: 5 }],
  }
  for (const [param, bodies] of Object.entries(cases))
    for (const body of bodies) await refused(chat(body), OpenAI.BadRequestError, { param })
})

test('chat: what other clients send is accepted', async () => {
  const many = {
    stop: null, max_tokens: null, max_completion_tokens: 4, n: 1, logit_bias: {}, tools: [], tool_choice: 'auto', functions: null,
    response_format: { type: 'text' }, stream_options: null, temperature: null, top_p: null, seed: null, user: 'u', logprobs: false,
    top_logprobs: null, metadata: {}, store: false, service_tier: 'auto', reasoning_effort: 'low', modalities: ['text'],
    parallel_tool_calls: true, top_k: -1, min_p: 0, repetition_penalty: 1, chat_template_kwargs: {}, unheard_of: [{}],
  }
  assert.equal((await chat(many)).usage.completion_tokens, 4)
  for (const messages of [
    [{ role: 'developer', content: 'short' }, { role: 'user', name: 'bob', content: [{ type: 'text', text: 'a' }, { type: 'text', text: 'b' }] }],
    [{ role: 'system', content: [{ type: 'text', text: 'x' }] }, ...say(''), { role: 'assistant', content: null }, ...say('go on')],
    [...say('x'), { role: 'assistant', tool_calls: [{ id: 'a', type: 'function', function: { name: 'f', arguments: '{}' } }] }, { role: 'tool', tool_call_id: 'a', content: 'r' }],
    say('naïve 日本語 😀 \u202e "quotes" \\ \n\t <|end|>'),
  ]) assert.ok((await chat({ messages })).choices[0].message.content !== null)
})

test('chat: a prompt beyond the context is refused in words that clients know', async () => {
  const e = await refused(chat({ messages: say('word '.repeat(20000)) }), OpenAI.BadRequestError, { code: 'context_length_exceeded', param: 'messages' })
  assert.match(e.message, /maximum context length.* \d+ tokens/)
  await refused(client.completions.create({ model: LLM, prompt: 'word '.repeat(20000) }), OpenAI.BadRequestError, { code: 'context_length_exceeded', param: 'prompt' })
  await refused(chat({ messages: say('word '.repeat(20000)), stream: true }), OpenAI.BadRequestError, { code: 'context_length_exceeded' })
})

test('chat: aborting a stream frees its slot', async () => {
  for (let i = 0; i < 12; i++) {
    const stream = await chat({ stream: true, max_tokens: 1500 })
    for await (const c of stream) if (c.choices[0].delta.content) break
    stream.controller.abort()
  }
  assert.equal((await chat({ max_tokens: 2 })).usage.completion_tokens, 2)
  await until('the worker idle', async () => (await s.health()).workers.llm.activity === 'idle')
})

test('chat: several streams at once, each as if alone', async () => {
  // Rounding depends on what is computed beside, so at a temperature a draw may fall to the neighbour; the likeliest stays.
  const text = async (seed, stream) => {
    const r = await chat({ messages: say('hello '.repeat(seed)), temperature: 0, stream, max_tokens: 32 })
    if (!stream) return r.choices[0].message.content
    let all = ''
    for await (const c of r) all += c.choices[0]?.delta.content ?? ''
    return all
  }
  const seeds = [1, 2, 3, 4, 5, 6]
  const alone = []
  for (const seed of seeds) alone.push(await text(seed, false))
  assert.deepEqual(await Promise.all(seeds.map((seed) => text(seed, true))), alone)
})

test('completions: whole, streamed, a list of one', async () => {
  const ask = (more) => client.completions.create({ model: LLM, prompt: 'a red fox', max_tokens: 6, seed: 4, ignore_eos: true, ...more })
  const r = await ask()
  assert.match(r.id, /^cmpl-/)
  assert.equal(r.object, 'text_completion')
  isNow(r.created)
  assert.deepEqual(Object.keys(r.choices[0]).sort(), ['finish_reason', 'index', 'logprobs', 'text'])
  assert.equal(r.choices[0].finish_reason, 'length')
  checkUsage(r.usage)
  assert.equal((await ask({ prompt: ['a red fox'] })).choices[0].text, r.choices[0].text)
  let text = '', usage
  for await (const c of await ask({ stream: true, stream_options: { include_usage: true } })) {
    assert.equal(c.object, 'text_completion')
    text += c.choices[0]?.text ?? ''
    usage = c.usage ?? usage
  }
  assert.equal(text, r.choices[0].text)
  checkUsage(usage)
  assert.equal((await ask({ max_tokens: undefined })).usage.completion_tokens, 16, "OpenAI's default")
  for (const [param, body] of [['prompt', { prompt: undefined }], ['prompt', { prompt: ['a', 'b'] }], ['prompt[0]', { prompt: [1] }], ['echo', { echo: true }], ['suffix', { suffix: 'x' }], ['logprobs', { logprobs: 2 }]])
    await refused(ask(body), OpenAI.BadRequestError, { param })
  for (const body of [{ best_of: 1 }, { suffix: null }, { logprobs: null }, { echo: false }, { n: 1 }]) await ask(body)
})

test('images: generate', async () => {
  const r = await client.images.generate(picture)
  isNow(r.created)
  assert.equal(r.data.length, 1)
  assert.ok(isPng(Buffer.from(r.data[0].b64_json, 'base64')))
  const two = await client.images.generate({ ...picture, n: 2, response_format: 'url' })
  assert.equal(two.data.length, 2)
  for (const d of two.data) {
    assert.equal(d.b64_json, undefined)
    const got = await fetch(new URL(d.url, s.base), { headers: { Authorization: 'Bearer sk-right' } })
    assert.ok(isPng(await got.arrayBuffer()))
  }
  const first = await fetch(new URL(two.data[0].url, s.base), { headers: { Authorization: 'Bearer sk-right' } })
  assert.ok(Buffer.from(await first.arrayBuffer()).equals(Buffer.from(r.data[0].b64_json, 'base64')), 'the same seed, the same bytes')
})

test("images: OpenAI's other fields are accepted, wrong ones refused", async () => {
  await client.images.generate({ ...picture, quality: 'hd', style: 'vivid', user: 'u', background: 'auto', moderation: 'low', n: null, stream: null })
  const cases = { size: '63x64', n: 17, output_format: 'gif', response_format: 'xml', prompt: 'x'.repeat(20001), steps: 0, stream: true }
  for (const [param, value] of Object.entries(cases)) await refused(client.images.generate({ ...picture, [param]: value }), OpenAI.BadRequestError, { param })
  await refused(client.images.generate({ ...picture, model: 'dall-e-3' }), OpenAI.NotFoundError, { code: 'model_not_found', param: 'model' })
})

test('images: edit an upload', async () => {
  const from = Buffer.from((await client.images.generate(picture)).data[0].b64_json, 'base64')
  const image = () => toFile(from, 'from.png', { type: 'image/png' })
  const r = await client.images.edit({ ...picture, image: await image(), strength: 0.5, user: 'u' })
  const png = Buffer.from(r.data[0].b64_json, 'base64')
  assert.ok(isPng(png) && !png.equals(from))
  await client.images.edit({ ...picture, image: [await image()] })
  await refused(client.images.edit({ ...picture, image: await toFile(Buffer.from('no picture'), 'a.png') }), OpenAI.BadRequestError, { param: 'image' })
  await refused(client.images.edit({ ...picture, image: await image(), steps: 'x' }), OpenAI.BadRequestError, { param: 'steps' })
  await refused(client.images.edit({ ...picture, image: undefined }), OpenAI.BadRequestError)
})

test('images: edit the transparent part of a mask, or of the picture itself', async () => {
  const from = decodePng(Buffer.from((await client.images.generate(picture)).data[0].b64_json, 'base64'))
  const opaque = encodePng(64, 64, (x, y) => [...from.at(x, y), 255])
  const holed = encodePng(64, 64, (x, y) => [...from.at(x, y), x < 32 ? 0 : 255])
  const mask = encodePng(64, 64, (x) => [0, 0, 0, x < 32 ? 0 : 255])
  const file = (bytes, name) => toFile(bytes, name, { type: 'image/png' })
  const edit = async (more) => {
    const r = await client.images.edit({ ...picture, seed: 6, strength: 1, mask_blur: 0, ...more })
    return decodePng(Buffer.from(r.data[0].b64_json, 'base64'))
  }
  const kept = (made) => { for (let y = 0; y < 64; y++) for (let x = 32; x < 64; x++) assert.deepEqual(made.at(x, y), from.at(x, y)) }
  const drawn = (made) => assert.ok([4, 12, 20, 28].some((x) => made.at(x, 30).some((v, i) => v !== from.at(x, 30)[i])))
  const a = await edit({ image: await file(opaque, 'a.png'), mask: await file(mask, 'm.png') })
  kept(a)
  drawn(a)
  const b = await edit({ image: await file(holed, 'a.png') })
  kept(b)
  drawn(b)
  const whole = await edit({ image: await file(opaque, 'a.png') })
  assert.ok([36, 44, 52, 60].some((x) => whole.at(x, 30).some((v, i) => v !== from.at(x, 30)[i])), 'an opaque picture is no mask')
  await refused(client.images.edit({ ...picture, image: await file(opaque, 'a.png'), mask: await file(Buffer.from('x'), 'm.png') }), OpenAI.BadRequestError, { param: 'mask' })
  await refused(client.images.edit({ ...picture, image: await file(opaque, 'a.png'), mask: await file(encodePng(64, 64, () => [0, 0, 0, 255]), 'm.png') }), OpenAI.BadRequestError, { param: 'mask' })
  await refused(client.images.edit({ ...picture, image: await file(opaque, 'a.png'), mask_blur: 65 }), OpenAI.BadRequestError, { param: 'mask_blur' })
  await refused(client.images.edit({ ...picture, image: await file(opaque, 'a.png'), outpaint: { left: 5 } }), OpenAI.BadRequestError, { param: 'outpaint.left' })
})

test('images: variations of an upload', async () => {
  const from = Buffer.from((await client.images.generate(picture)).data[0].b64_json, 'base64')
  const image = () => toFile(from, 'from.png', { type: 'image/png' })
  const r = await client.images.createVariation({ model: IMAGE, image: await image(), n: 2, size: '64x64', steps: 2, seed: 3, user: 'u' })
  assert.equal(r.data.length, 2)
  for (const d of r.data) assert.ok(isPng(Buffer.from(d.b64_json, 'base64')))
  assert.ok(r.data[0].b64_json !== r.data[1].b64_json)
  const url = await client.images.createVariation({ model: IMAGE, image: await image(), size: '64x64', steps: 1, response_format: 'url' })
  assert.match(url.data[0].url, /^\/outputs\//)
  await refused(client.images.createVariation({ model: IMAGE, image: await toFile(Buffer.from('x'), 'x.png') }), OpenAI.BadRequestError, { param: 'image' })
  await refused(client.images.createVariation({ model: IMAGE, image: await image(), n: 17 }), OpenAI.BadRequestError, { param: 'n' })
  await refused(client.images.createVariation({ model: IMAGE, image: await image(), size: '63x64' }), OpenAI.BadRequestError, { param: 'size' })
})

test('images: the same in JSON: mask, outpainting, hires fix', async () => {
  const b64 = (await client.images.generate(picture)).data[0].b64_json
  const from = decodePng(Buffer.from(b64, 'base64'))
  const mask = encodePng(64, 64, (x) => (x < 32 ? [255, 255, 255] : [0, 0, 0])).toString('base64')
  const make = async (more) => decodePng(Buffer.from((await client.images.generate({ ...picture, ...more })).data[0].b64_json, 'base64'))
  const inpainted = await make({ init_image: b64, mask: 'data:image/png;base64,' + mask, mask_blur: 0, mask_fill: 'latent_noise', strength: 1 })
  for (let y = 0; y < 64; y++) for (let x = 32; x < 64; x++) assert.deepEqual(inpainted.at(x, y), from.at(x, y))
  const inverted = await make({ init_image: b64, mask, mask_invert: true, mask_blur: 0 })
  for (let y = 0; y < 64; y++) for (let x = 0; x < 32; x++) assert.deepEqual(inverted.at(x, y), from.at(x, y))
  const wide = await make({ size: undefined, init_image: b64, outpaint: { right: 24, feather: 6 } })
  assert.deepEqual([wide.width, wide.height], [88, 64])
  for (let y = 0; y < 64; y++) for (let x = 0; x < 58; x++) assert.deepEqual(wide.at(x, y), from.at(x, y))
  const large = await make({ hires: { scale: 1.5, steps: 1, upscaler: 'latent-bicubic' } })
  assert.deepEqual([large.width, large.height], [96, 96])
  const cases = {
    mask: { mask }, outpaint: { outpaint: { left: 8 } }, 'outpaint.left': { init_image: b64, outpaint: { left: 5 } }, mask_fill: { init_image: b64, mask, mask_fill: 'red' },
    inpaint_area: { init_image: b64, inpaint_area: 'masked' }, hires: { init_image: b64, hires: { scale: 2 } }, 'hires.scale': { hires: { scale: 100 } },
    'hires.upscaler': { hires: { scale: 2, upscaler: 'magic' } }, image_cfg_scale: { image_cfg_scale: -1 },
  }
  for (const [param, more] of Object.entries(cases)) await refused(client.images.generate({ ...picture, ...more }), OpenAI.BadRequestError, { param })
  const job = await client.post('/jobs', { body: { ...picture, type: 'img2img', init_image: b64, mask, inpaint_area: 'masked', mask_padding: 8 } })
  assert.match(job.params.mask, /^upload:/)
  assert.equal(job.params.inpaint_area, 'masked')
})

test('what there is not is not found, whatever the method', async () => {
  await refused(client.responses.create({ model: LLM, input: 'x' }), OpenAI.NotFoundError)
  await refused(client.files.list(), OpenAI.NotFoundError)
})

test('the key', async () => {
  for (const apiKey of ['sk-wrong', 'sk-righ', 'sk-right2', ' ']) {
    const e = await refused(new OpenAI({ baseURL: s.base + '/v1', apiKey, maxRetries: 0 }).models.list(), OpenAI.AuthenticationError, { code: 'invalid_api_key' })
    assert.doesNotMatch(e.message, /sk-/)
  }
  assert.equal((await fetch(s.base + '/v1/models')).status, 401)
  assert.equal((await fetch(s.base + '/outputs/x.png')).status, 401)
  assert.equal((await fetch(s.base + '/health')).status, 200)
})

test('browsers: the same origin only', async () => {
  const preflight = (Origin) => s.request('OPTIONS', '/v1/chat/completions', undefined, { headers: { Origin, 'Access-Control-Request-Method': 'POST', 'Access-Control-Request-Headers': 'authorization,content-type' } })
  const own = await preflight(s.base)
  assert.equal(own.status, 204)
  assert.match(own.headers.get('allow'), /POST/)
  for (const Origin of ['http://evil.example', 'null', s.base + '.evil.example', s.base.replace(/\d$/, '')]) {
    const r = await preflight(Origin)
    assert.equal(r.status, 403, Origin)
    assert.ok((await r.json()).error.message)
    assert.equal(r.headers.get('access-control-allow-origin'), null)
    const get = await s.request('GET', '/v1/models', undefined, { headers: { Origin, Authorization: 'Bearer sk-right' } })
    assert.equal(get.headers.get('access-control-allow-origin'), null)
    const post = await s.request('POST', '/v1/chat/completions', { messages: say('x') }, { headers: { Origin, Authorization: 'Bearer sk-right' } })
    assert.equal(post.status, 403)
  }
})
