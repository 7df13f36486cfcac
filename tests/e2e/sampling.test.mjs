// sampling.test.mjs - variations, guidance and the options of samplers, from the request to the text in the picture.
import { after, before, test } from 'node:test'
import assert from 'node:assert/strict'
import { Studio } from './studio.mjs'

const small = { prompt: 'a red cube', width: 64, height: 64, steps: 2, seed: 42 }
let s
before(async () => {
  s = await Studio.start()
  await s.loadImageModel()
})
after(() => s.cleanup())

const make = (more = {}) => s.post('/v1/images/generations', { ...small, ...more })
const picture = async (more) => (await make(more)).data[0].b64_json

test('what a picture says of its sampling makes it again', async () => {
  const asked = {
    sampler: 'DPM++ 2M SDE Karras', eta: 0.5, s_noise: 1.01, guidance_start: 0.5, guidance_end: 1, guidance_rescale: 0.7, dynamic_threshold: 0.995,
    dynamic_threshold_limit: 2, subseed: 7, subseed_strength: 0.25, seed_resize_from_w: 96, seed_resize_from_h: 64, eta_noise_seed_delta: 31337,
  }
  const first = await make(asked)
  const said = await s.post('/v1/images/inspect', { image: first.data[0].b64_json })
  assert.equal(said.params.sampler, 'dpm++2m_sde')
  for (const key of Object.keys(asked).filter((k) => k !== 'sampler' && k !== 'guidance_end')) assert.equal(said.params[key], asked[key], `${key}: ${said.parameters}`)
  for (const word of [/Variation seed: 7, Variation seed strength: 0.25/, /Seed resize from: 96x64/, /ENSD: 31337/, /Eta: 0.5/, /CFG rescale: 0.7/])
    assert.match(said.parameters, word)
  assert.equal((await s.post('/v1/images/generations', said.params)).data[0].b64_json, first.data[0].b64_json)
})

test('variations: one seed, subseeds that follow each other', async () => {
  const two = await make({ n: 2, subseed: 7, subseed_strength: 0.5 })
  assert.deepEqual(two.data.map((d) => d.seed), [42, 42])
  assert.equal(await picture({ subseed: 8, subseed_strength: 0.5 }), two.data[1].b64_json)
  const { data } = await s.get('/v1/history/images?limit=2')
  const second = await s.post('/v1/images/inspect', { image: two.data[1].b64_json })
  assert.match(second.parameters, /Variation seed: 8,/)
  assert.ok(data.every((entry) => entry.params.seed === 42))
  const drawn = await make({ subseed_strength: 0.5 })
  assert.ok(drawn.parameters.subseed >= 0)
  assert.equal(await picture({ subseed_strength: 0 }), await picture())
  assert.equal(await picture({ subseed: drawn.parameters.subseed, subseed_strength: 0.5 }), drawn.data[0].b64_json)
})

test('a bad value names its field', async () => {
  const bad = {
    eta: [-0.5, 2, 'x'], s_noise: [-1, 3], s_churn: [-1, 101], s_tmin: [-1], s_tmax: [1001], guidance_start: [-1, 2], guidance_end: [2], guidance_rescale: [-1, 1.5],
    dynamic_threshold: [0.1, 2], dynamic_threshold_limit: [0, 101], subseed: [-2, 1.5], subseed_strength: [-0.1, 1.1], seed_resize_from_w: [8, 5000],
    seed_resize_from_h: [1.5], eta_noise_seed_delta: [-1, 1e12],
  }
  for (const [param, values] of Object.entries(bad)) {
    for (const value of values) {
      const r = await s.request('POST', '/v1/images/generations', { ...small, [param]: value })
      const { error } = await r.json()
      assert.equal(r.status, 400, `${param} ${value}`)
      assert.equal(error.param, param)
    }
  }
})

test('names of three programs, and all that is offered is taken', async () => {
  const o = await s.get('/v1/options')
  for (const [sampler, name] of [['DPM++ SDE', 'dpm++sde'], ['uni_pc_bh2', 'uni_pc_bh2'], ['dpmpp_2s_ancestral_cfg_pp', 'dpm++2s_a_cfg_pp'], ['LCM', 'lcm']]) {
    const { parameters } = await make({ sampler, cfg_scale: 1.5 })
    assert.equal(parameters.sampler, name)
    assert.ok(o.samplers.includes(name) && o.schedulers.includes(parameters.scheduler))
  }
  // Each is accepted; what it computes is the sampler's own test.
  for (const sampler of o.samplers) {
    const r = await s.request('POST', '/v1/jobs', { type: 'txt2img', ...small, sampler, scheduler: o.schedulers.at(-1) })
    assert.equal(r.status, 202)
    await s.request('POST', `/v1/jobs/${(await r.json()).id}/cancel`)
  }
})
