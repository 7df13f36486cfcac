// A stand-in for mysti_server that speaks docs/api.md, for working on the page without models. It makes landscapes
// instead of pictures and has no workers, but queues, streams, crashes and recovers as the real one does.
//   node tests/web/mock-server.mjs [port]      POST /mock/crash {worker}, /mock/safe-mode, /mock/gone {ms}
import { createHash, randomUUID } from 'node:crypto';
import { createReadStream, existsSync, statSync } from 'node:fs';
import { createServer } from 'node:http';
import { extname, join, normalize } from 'node:path';
import { fileURLToPath } from 'node:url';
import { png, readParameters } from './mock-picture.mjs';

const PUBLIC = process.env.MYSTI_PUBLIC ?? fileURLToPath(new URL('../../webui/dist', import.meta.url));
const TYPES = {
  '.html': 'text/html',
  '.js': 'text/javascript',
  '.css': 'text/css',
  '.svg': 'image/svg+xml',
  '.woff2': 'font/woff2',
};
// The strictest policy the page must live with.
const CSP =
  "default-src 'none'; script-src 'self'; style-src 'self' 'sha256-60LHlRjW/B3CtzIoE/Lf1/NEDvko9efWMFaGVhHu/cs='; font-src 'self'; connect-src 'self'; img-src 'self' data: blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

const PROMPTS = [
  'misty mountains at dawn, soft light, layered ridges, aerial perspective',
  'a lighthouse above a sea of fog, golden hour',
  'alpine lake under a low sun, mirror water',
  'desert dunes at dusk, long shadows, film grain',
  'northern fjord in rain, moody',
  'terraced hills after the monsoon, drifting clouds',
  'a quiet valley seen from a balloon',
  'volcanic island at sunrise, oil on canvas',
];
const WAND =
  ', morning haze between pine ridges, low golden sun, layered depth, fine atmospheric perspective, 35 mm photograph, natural colours, highly detailed';

export class ApiFailure extends Error {
  constructor(status, code, message, param = null) {
    super(message);
    Object.assign(this, { status, code, param });
  }
}
const wait = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

/** One server with its whole state; `options`: stepMs, tokenMs, pictures, key, loaded (models are), demo (those that
 *  the studio brings along). */
export function makeMock({ stepMs = 90, tokenMs = 45, pictures = 60, key = null, loaded = true, demo = false } = {}) {
  const start = Date.now();
  const mock = { server: null, stepMs, tokenMs };
  const serverId = randomUUID();
  const log = []; // the last events, for replay
  const streams = new Set();
  let eventId = 0,
    jobId = 0,
    pictureId = 0;
  const jobs = [],
    history = [];
  let settings = {};
  let running = null;

  const model = (id, type, family, quantization, size, extra = {}) => ({
    id,
    object: 'model',
    created: 1,
    owned_by: 'local',
    type,
    family,
    quantization,
    title: null,
    alias: null,
    width: type === 'image' ? 512 : null,
    height: type === 'image' ? 512 : null,
    examples: [],
    demo: id.startsWith('demo/'),
    size,
    path: id,
    supported: true,
    reason: null,
    active: false,
    loaded: false,
    ...extra,
  });
  const models = [
    model('dreamshaper_8.safetensors', 'image', 'sd1', 'f16', 2132625918),
    model('sd15/v1-5-pruned-emaonly.safetensors', 'image', 'sd1', 'f16', 2132650926),
    model('sd_xl_base_1.0.safetensors', 'image', 'sdxl', 'f16', 6938078334, {
      supported: false,
      reason: 'SDXL: this family is not supported yet',
    }),
    model('flux1-schnell-q4_0.gguf', 'diffusion_model', 'flux', 'q4_0', 6771360000, {
      supported: false,
      reason: 'FLUX: this family is not supported yet',
    }),
    model('demo/picture.safetensors', 'image', 'sd1', 'f16', 34e6, {
      title: 'Demo pictures',
      width: 128,
      height: 128,
      examples: ['a quiet valley', 'a lighthouse in the fog', 'dunes'],
    }),
    model('broken.safetensors', 'image', 'sd1', 'f16', 104857600),
    model('qwen2.5-3b-instruct-q4_k_m.gguf', 'llm', 'qwen2', 'q4_k_m', 1929903008),
    model('llama-3.2-1b-instruct-q8_0.gguf', 'llm', 'llama', 'q8_0', 1321083008),
    model('demo/writer.gguf', 'llm', 'llama', 'f16', 6e6, { title: 'Demo writer' }),
    model('vae-ft-mse-840000.safetensors', 'vae', 'sd1', 'f32', 334641164),
    model('loras/detail-tweaker.safetensors', 'lora', 'sd1', 'f16', 37861176, { alias: 'More detail' }),
    model('loras/watercolour_v2.safetensors', 'lora', 'sd1', 'f16', 151111111),
    model('embeddings/good-hands.safetensors', 'embedding', 'sd1', 'f32', 24648),
    model('embeddings/xl-calm.safetensors', 'embedding', 'sdxl', 'f16', 49000),
    model('loras/sdxl-film.safetensors', 'lora', 'sdxl', 'f16', 228454321, {
      supported: false,
      reason: 'LoRA for Stable Diffusion XL: not supported yet',
    }),
    model('t5xxl_fp16.safetensors', 'text_encoder', 't5', 'f16', 9787841024),
    model('upscalers/RealESRGAN_x4plus.pth', 'upscaler', 'esrgan-x4', 'f32', 67040989),
    model('upscalers/anime-x2.safetensors', 'upscaler', 'compact-x2', 'f16', 2504012),
    model('controlnet/control_sd15_canny.safetensors', 'controlnet', 'sd1', 'f16', 722601100),
    model('controlnet/control_sdxl_depth.safetensors', 'controlnet', 'sdxl', 'f16', 2502139104),
    model('controlnet/control_sd15_depth.safetensors', 'controlnet', 'sd1', 'f16', 722601100),
    model('ipadapter/ip-adapter-plus_sd15.safetensors', 'ip_adapter', 'sd1', 'f16', 98183288),
    model('ipadapter/ip-adapter_sdxl.safetensors', 'ip_adapter', 'sdxl', 'f16', 702585376),
    model('clip_vision/vit-h.safetensors', 'clip_vision', 'clip_vision', 'f16', 1264217240),
    model('taesd.safetensors', 'vae', 'taesd', 'f32', 9793292),
    model('odd.ckpt', 'unknown', null, null, 67040989, {
      supported: false,
      reason: "the pickle names 'posix.system', which is not allowed: nothing in it is run",
    }),
  ];
  const worker = () => ({
    state: 'ready',
    activity: 'idle',
    pid: 4711,
    port: 1235,
    model: null,
    restarts: 0,
    last_crash: null,
    rss: 42e6,
    memory: [],
  });
  const workers = { sd: worker(), llm: { ...worker(), pid: 4712, port: 1236 } };

  // --- events
  function emit(name, data, replay = true) {
    const event = { id: replay ? ++eventId : null, name, text: JSON.stringify(data) };
    if (replay) log.push(event);
    if (log.length > 1000) log.shift();
    for (const s of streams) write(s, event);
  }
  const write = (res, e) => res.write(`${e.id ? `id: ${e.id}\n` : ''}event: ${e.name}\ndata: ${e.text}\n\n`);
  function events(req, res, url) {
    res.writeHead(200, { 'Content-Type': 'text/event-stream', 'Cache-Control': 'no-store' });
    write(res, { id: null, name: 'hello', text: JSON.stringify({ server: serverId, version: '0.1.0' }) });
    const last = Number(req.headers['last-event-id'] ?? url.searchParams.get('last_event_id') ?? NaN);
    if (Number.isFinite(last)) log.filter((e) => e.id > last).forEach((e) => write(res, e));
    streams.add(res);
    res.on('close', () => streams.delete(res));
  }
  function setWorker(name, change) {
    Object.assign(workers[name], change);
    emit('worker', { worker: name, ...workers[name] });
  }
  const memory = () =>
    emit(
      'memory',
      {
        devices: [
          {
            device: 'CPU',
            total: 25.2e9,
            free: 25.2e9 - 6e9 - (workers.sd.model ? 2.4e9 : 0) - (workers.llm.model ? 2.1e9 : 0),
          },
        ],
        server_rss: 9.4e6,
        sd_rss: workers.sd.model ? 2.4e9 : 31e6,
        llm_rss: workers.llm.model ? 2.1e9 : 28e6,
      },
      false,
    );

  // --- pictures
  function parametersText(p) {
    const negative = p.negative_prompt ? `\nNegative prompt: ${p.negative_prompt}` : '';
    return `${p.prompt}${negative}\nSteps: ${p.steps}, Sampler: ${p.sampler}, Schedule type: ${p.scheduler}, CFG scale: ${p.cfg_scale}, Seed: ${p.seed}, Size: ${p.width}x${p.height}`;
  }
  function addPicture(params, seed, job, created = Date.now()) {
    const id = ++pictureId;
    const p = { ...params, seed };
    const hires =
      p.hires?.scale ?? (p.hires?.width ? p.hires.width / p.width : (p.hires?.height ?? p.height) / p.height);
    const by = (p.type === 'upscale' ? p.factor : 1) * hires;
    const file = `20260102-030405-${id}.png`;
    const entry = {
      id,
      file,
      url: `/outputs/${file}`,
      thumb_url: `/outputs/.thumbs/${file.replace('png', 'webp')}`,
      width: Math.round(p.width * by),
      height: Math.round(p.height * by),
      seed,
      model: params.model ?? workers.sd.model ?? models[0].id,
      prompt: p.prompt,
      negative_prompt: p.negative_prompt ?? '',
      parameters: parametersText(p),
      params: p,
      job,
      created_ms: created,
      bytes: 412345,
    };
    history.unshift(entry);
    return entry;
  }
  for (let i = 0; i < pictures; i++) {
    const [width, height] = [
      [512, 512],
      [512, 768],
      [768, 512],
    ][i % 3];
    addPicture(
      {
        prompt: PROMPTS[i % PROMPTS.length],
        negative_prompt: 'blurry',
        width,
        height,
        steps: 20,
        cfg_scale: 7,
        sampler: 'euler_a',
        scheduler: 'karras',
        clip_skip: 1,
        n: 1,
      },
      1000 + i * 37,
      null,
      start - (pictures - i) * 600000,
    );
  }
  const cache = new Map();
  function output(res, name) {
    const thumb = name.startsWith('.thumbs/');
    const stem = name.replace('.thumbs/', '').replace(/\.\w+$/, '');
    const p = history.find((e) => e.file.startsWith(`${stem}.`));
    if (!p) throw new ApiFailure(404, 'not_found', 'no such file');
    const small = p.params.type === 'upscale' ? 1 / p.params.factor : 1; // painting millions of pixels takes long here
    const scale = thumb ? 192 / Math.max(p.width, p.height) : small;
    if (!cache.has(name))
      cache.set(
        name,
        png(p.seed, Math.round(p.width * scale), Math.round(p.height * scale), {
          parameters: thumb ? null : p.parameters,
        }),
      );
    res.writeHead(200, { 'Content-Type': 'image/png' }).end(cache.get(name));
  }

  const uploads = new Map(); // file -> bytes
  /** As the real one keeps pictures that come with a request: by a name that stands for the bytes. */
  function keepUpload(image) {
    if (!image?.startsWith('data:')) return image;
    const bytes = Buffer.from(image.slice(image.indexOf(',') + 1), 'base64');
    const file = `${createHash('md5').update(bytes).digest('hex')}.png`;
    uploads.set(file, bytes);
    return `upload:${file}`;
  }
  function upload(res, file) {
    if (!uploads.has(file)) throw new ApiFailure(404, 'not_found', 'no such file');
    res.writeHead(200, { 'Content-Type': 'image/png' }).end(uploads.get(file));
  }
  function keepUploads(params) {
    for (const owner of [...(params.controlnet ?? []), ...(params.ip_adapter ? [params.ip_adapter] : [])])
      owner.image = keepUpload(owner.image);
    for (const key of ['init_image', 'mask']) if (params[key]) params[key] = keepUpload(params[key]);
  }

  // --- jobs
  const publicJob = (j) => ({
    ...j,
    position:
      j.status === 'queued' || j.status === 'interrupted'
        ? jobs.filter((x) => ['queued', 'interrupted'].includes(x.status)).indexOf(j) + 1
        : null,
  });
  const tell = (j) => emit('job', publicJob(j));
  function createJob(body) {
    const { type = 'txt2img', ...given } = body;
    if (type === 'upscale') return createUpscale(given);
    if (typeof given.prompt !== 'string') throw new ApiFailure(400, 'invalid', 'prompt: is required', 'prompt');
    if (given.steps !== undefined && !(given.steps >= 1 && given.steps <= 200))
      throw new ApiFailure(400, 'invalid', `steps: ${given.steps} is not between 1 and 200`, 'steps');
    if (!workers.sd.model) throw new ApiFailure(503, 'model_not_loaded', 'no image model is loaded');
    const { upscale, ...rest } = given;
    const params = {
      negative_prompt: '',
      width: 512,
      height: 512,
      steps: 20,
      cfg_scale: 7,
      sampler: 'euler_a',
      scheduler: 'discrete',
      n: 1,
      ...rest,
    };
    keepUploads(params);
    if (!(params.seed >= 0)) params.seed = Math.floor(Math.random() * 2 ** 32);
    const job = {
      id: `j-${++jobId}`,
      type: upscale ? 'upscale' : type,
      status: 'queued',
      position: 0,
      created_ms: Date.now(),
      started_ms: null,
      finished_ms: null,
      phase: null,
      step: 0,
      steps: upscale ? 4 : params.steps,
      image: 0,
      images: params.n,
      step_ms: null,
      eta_ms: null,
      attempts: 0,
      params,
      results: [],
      error: null,
    };
    if (upscale) Object.assign(params, { ...upscale, from: undefined });
    jobs.push(job);
    tell(job);
    void next();
    return job;
  }
  /** The larger picture keeps how the small one was made. */
  function createUpscale({ image, upscaler, factor }) {
    const from = history.find((p) => p.file === image);
    if (!from) throw new ApiFailure(404, 'not_found', `image: there is no '${image}'`, 'image');
    if (!models.some((m) => m.id === upscaler && m.type === 'upscaler'))
      throw new ApiFailure(400, 'invalid', `upscaler: there is no '${upscaler}'`, 'upscaler');
    return createJob({ ...from.params, n: 1, upscale: { type: 'upscale', upscaler, factor, init_image: image, from } });
  }
  function finish(job, status, error = null) {
    Object.assign(job, { status, error, finished_ms: Date.now(), phase: null, eta_ms: null });
    tell(job);
  }
  async function next() {
    const job = jobs.find((j) => j.status === 'interrupted') ?? jobs.find((j) => j.status === 'queued');
    if (running || !job || workers.sd.state !== 'ready' || !workers.sd.model) return;
    running = job;
    Object.assign(job, {
      status: 'running',
      started_ms: job.started_ms ?? Date.now(),
      attempts: job.attempts + 1,
      phase: 'encoding',
    });
    setWorker('sd', { activity: 'busy' });
    tell(job);
    await paint(job);
    running = null;
    if (workers.sd.state === 'ready') setWorker('sd', { activity: 'idle' });
    jobs.filter((j) => j.status === 'queued').forEach(tell); // positions moved up
    void next();
  }
  async function paint(job) {
    const { params: p } = job;
    const alive = () => job.status === 'running';
    for (; job.image < job.images; job.image++, job.step = 0) {
      while (job.step < job.steps) {
        await wait(mock.stepMs);
        if (!alive()) return;
        job.step++;
        Object.assign(job, {
          phase: job.type === 'upscale' ? 'upscaling' : 'sampling',
          step_ms: mock.stepMs,
          eta_ms: ((job.images - job.image - 1) * job.steps + job.steps - job.step) * mock.stepMs + 300,
        });
        tell(job);
        if (job.type === 'upscale') continue;
        const w = Math.round(p.width / 8),
          h = Math.round(p.height / 8);
        emit(
          'preview',
          {
            job: job.id,
            step: job.step,
            width: w,
            height: h,
            jpeg: png(p.seed + job.image, w, h, { noise: 1 - job.step / job.steps }).toString('base64'),
          },
          false,
        );
      }
      job.phase = 'decoding';
      tell(job);
      await wait(120);
      if (!alive()) return;
      const entry = addPicture(p, p.seed + job.image, job.id);
      job.results.push(entry);
      emit('image', entry);
    }
    finish(job, 'done');
  }
  function cancel(id) {
    const job = jobs.find((j) => j.id === id);
    if (!job) throw new ApiFailure(404, 'not_found', `there is no job ${id}`);
    if (['done', 'failed', 'cancelled'].includes(job.status))
      throw new ApiFailure(409, 'conflict', `job ${id} is already over`);
    finish(job, 'cancelled');
    return publicJob(job);
  }

  // --- workers
  const crashes = [];
  async function crash(name, { forever = false, downMs = 700 } = {}) {
    const job = name === 'sd' ? running : null;
    const what = name === 'sd' ? 'image' : 'text';
    setWorker(name, {
      state: forever ? 'safe_mode' : 'backoff',
      activity: 'idle',
      pid: null,
      restarts: workers[name].restarts + 1,
      last_crash: { at_ms: Date.now(), cause: 'killed by signal 9 (SIGKILL)' },
      ...(forever
        ? {
            safe_mode_reason:
              'It crashed again and again; last: killed by signal 9 (SIGKILL). It now runs without a model: load another one, or retry.',
          }
        : {}),
    });
    crashes.unshift({
      id: crashes.length + 1,
      at_ms: Date.now(),
      worker: name,
      pid: 4711,
      cause: workers[name].last_crash.cause,
      signal: 9,
      exit_code: null,
      oom: false,
      model: workers[name].model,
      job: job?.id ?? null,
      jobs: job ? [job.id] : [],
      backtrace: [],
      last_lines: `[12:00:00.000] [INFO] [${name}] listening on port ${workers[name].port}\n`,
    });
    if (job) {
      job.status = 'interrupted';
      tell(job);
    }
    const alert = (level, code, message, id = null) =>
      emit('alert', { level, code, worker: name, message, job: id, at_ms: Date.now() });
    const cause = 'killed by signal 9 (SIGKILL)';
    alert('error', 'worker_crashed', `The ${what} worker crashed (${cause}). It is being restarted.`);
    if (forever)
      alert('error', 'worker_safe_mode', `The ${what} worker is in safe mode. ${workers[name].safe_mode_reason}`);
    else if (job)
      alert(
        'error',
        'job_interrupted',
        `Job ${job.id} was interrupted (${cause}). It goes on by itself when the image worker is back.`,
        job.id,
      );
    if (forever) return;
    await revive(name, downMs);
    alert('info', 'worker_ready', `The ${what} worker is back.`);
  }
  async function revive(name, ms) {
    await wait(ms / 2);
    setWorker(name, { state: 'restoring', pid: 5000 + eventId, safe_mode_reason: null });
    await wait(ms / 2);
    setWorker(name, { state: 'ready', activity: 'idle' });
    void next();
  }
  async function load(type, id) {
    const m = models.find((x) => x.id === id);
    const name = type === 'llm' ? 'llm' : 'sd';
    if (!m) throw new ApiFailure(404, 'model_not_found', `there is no model '${id}'`, 'model_id');
    if (!m.supported) throw new ApiFailure(422, 'unsupported', m.reason);
    setWorker(name, { activity: 'loading' });
    await wait(500);
    setWorker(name, { activity: 'idle' });
    if (id.startsWith('broken'))
      throw new ApiFailure(
        422,
        'broken',
        `load model '${id}': the file ends inside tensor 'first_stage_model.decoder.conv_in.weight'`,
      );
    models
      .filter((x) => (x.type === 'llm') === (type === 'llm'))
      .forEach((x) => Object.assign(x, { active: x === m, loaded: x === m }));
    setWorker(name, { model: id });
    emit('models', {});
    memory();
    void next();
    return { model_id: id, type, family: m.family, load_ms: 500 };
  }
  function unload(type) {
    models
      .filter((x) => (x.type === 'llm') === (type === 'llm'))
      .forEach((x) => Object.assign(x, { active: false, loaded: false }));
    setWorker(type === 'llm' ? 'llm' : 'sd', { model: null });
    emit('models', {});
    memory();
    return {};
  }
  async function stream(res, text) {
    if (!workers.llm.model) throw new ApiFailure(503, 'model_not_loaded', 'no language model is loaded');
    res.writeHead(200, { 'Content-Type': 'text/event-stream' });
    for (const piece of text.match(/\s?\S+/g)) {
      await wait(mock.tokenMs);
      while (workers.llm.state !== 'ready') await wait(20);
      if (res.destroyed) return;
      res.write(
        `data: ${JSON.stringify({ id: 'c-1', object: 'chat.completion.chunk', choices: [{ index: 0, delta: { content: piece }, finish_reason: null }] })}\n\n`,
      );
    }
    res.end('data: [DONE]\n\n');
  }

  // --- HTTP
  function listPictures(q) {
    const words = (q.get('q') ?? '').toLowerCase().split(/\s+/).filter(Boolean);
    const all = history.filter((p) => words.every((w) => p.prompt.toLowerCase().includes(w)));
    const before = Number(q.get('before') ?? Infinity),
      limit = Number(q.get('limit') ?? 50);
    const data = all.filter((p) => p.id < before).slice(0, limit);
    const more = data.length === limit && data.at(-1).id > all.at(-1).id;
    return { data, next: more ? data.at(-1).id : null, total: all.length };
  }
  function inspect(body) {
    const file = Buffer.from(body.image, 'base64');
    const text = readParameters(file);
    const field = (name) => new RegExp(`${name}: ([^,\\n]+)`).exec(text ?? '')?.[1];
    const params = text && {
      prompt: text.split('\n')[0],
      negative_prompt: field('Negative prompt') ?? '',
      steps: Number(field('Steps')),
      cfg_scale: Number(field('CFG scale')),
      seed: Number(field('Seed')),
      sampler: field('Sampler'),
      scheduler: field('Schedule type'),
      width: file.readUInt32BE(16),
      height: file.readUInt32BE(20),
    };
    return { width: file.readUInt32BE(16), height: file.readUInt32BE(20), parameters: text, params };
  }
  function removePicture(id) {
    const at = history.findIndex((p) => p.id === id);
    if (at < 0) throw new ApiFailure(404, 'not_found', `there is no picture ${id}`);
    history.splice(at, 1);
    emit('image_deleted', { id });
    return {};
  }
  const routes = {
    'GET /health': () => ({
      status: Object.values(workers).every((w) => w.state === 'ready') ? 'ok' : 'degraded',
      version: '0.1.0',
      uptime_ms: Date.now() - start,
      workers,
    }),
    'GET /v1/models': () => ({ object: 'list', data: models }),
    'POST /v1/models/refresh': () => ({ object: 'list', data: models }),
    'POST /v1/models/load': (b) => load('image', b.model_id),
    'POST /v1/models/unload': () => unload('image'),
    'POST /v1/llm/load': (b) => load('llm', b.model_id),
    'POST /v1/llm/unload': () => unload('llm'),
    'GET /v1/options': () => ({
      samplers: ['euler', 'euler_a', 'heun', 'dpm++2m'],
      schedulers: ['discrete', 'karras'],
      rngs: ['cuda', 'cpu'],
      emphases: ['a1111', 'comfy', 'none'],
      formats: ['png', 'jpeg', 'webp'],
      vaes: ['full', 'taesd'],
      upscalers: ['latent', 'latent-bicubic', 'lanczos'],
      mask_fills: ['original', 'fill', 'latent_noise', 'latent_nothing'],
      control_modes: ['balanced', 'prompt', 'control'],
      limits: {},
    }),
    'GET /v1/crashes': () => ({ data: crashes, next: null }),
    'POST /v1/jobs': (b) => [202, publicJob(createJob(b))],
    'GET /v1/jobs': (b, q) => ({
      data: jobs
        .slice()
        .reverse()
        .slice(0, Number(q.get('limit') ?? 50))
        .map(publicJob),
      next: null,
    }),
    'GET /v1/history/images': (b, q) => listPictures(q),
    'POST /v1/images/inspect': inspect,
    'GET /v1/settings': () => settings,
    'PUT /v1/settings': (b) => (settings = { ...settings, ...b }),
    'POST /mock/crash': (b) => (void crash(b.worker, b), {}),
    'POST /mock/safe-mode': (b) => (void crash(b.worker, { forever: true }), {}),
    'POST /mock/speed': (b) => (Object.assign(mock, b), {}),
  };
  async function body(req) {
    const parts = [];
    for await (const part of req) parts.push(part);
    const text = Buffer.concat(parts).toString();
    return text ? JSON.parse(text) : {};
  }
  function file(res, path) {
    let at = join(PUBLIC, normalize(path));
    if (!existsSync(at) || statSync(at).isDirectory()) at = join(PUBLIC, 'index.html');
    res.writeHead(200, {
      'Content-Type': TYPES[extname(at)] ?? 'application/octet-stream',
      'Content-Security-Policy': CSP,
    });
    createReadStream(at).pipe(res);
  }
  const json = (res, status, value) =>
    res.writeHead(status, { 'Content-Type': 'application/json' }).end(JSON.stringify(value));
  const allowed = (req) =>
    !key ||
    req.headers.authorization === `Bearer ${key}` ||
    (req.headers.cookie ?? '').includes(`mysti_key=${encodeURIComponent(key)}`);

  async function handle(req, res) {
    const url = new URL(req.url, 'http://x');
    const path = decodeURIComponent(url.pathname);
    if (/^\/(v1|outputs)\//.test(path) && !allowed(req))
      throw new ApiFailure(401, 'unauthorized', 'an API key is needed');
    if (path === '/v1/events') return events(req, res, url);
    if (path.startsWith('/outputs/')) return output(res, path.slice(9));
    if (path.startsWith('/v1/uploads/')) return upload(res, path.slice(12));
    if (path === '/v1/prompt/enhance') return stream(res, (await body(req)).prompt + WAND);
    if (path === '/v1/chat/completions')
      return stream(res, `You said: ${(await body(req)).messages.at(-1).content}${WAND}`);
    let m;
    if ((m = /^\/v1\/jobs\/([^/]+)\/cancel$/.exec(path))) return json(res, 200, cancel(m[1]));
    if ((m = /^\/v1\/workers\/(sd|llm)\/retry$/.exec(path))) return (void revive(m[1], 500), json(res, 200, {}));
    if ((m = /^\/v1\/history\/images\/(\d+)$/.exec(path)) && req.method === 'DELETE')
      return json(res, 200, removePicture(Number(m[1])));
    const route = routes[`${req.method} ${path}`];
    if (!route)
      return path.startsWith('/v1/')
        ? json(res, 404, { error: { message: `no route ${path}`, code: 'not_found' } })
        : file(res, path);
    const answer = await route(await body(req), url.searchParams);
    return Array.isArray(answer) ? json(res, ...answer) : json(res, 200, answer);
  }
  mock.server = createServer((req, res) => {
    handle(req, res).catch((e) =>
      json(res, e.status ?? 500, {
        error: { message: e.message, type: 'error', code: e.code ?? 'internal', param: e.param ?? null },
      }),
    );
  });
  mock.listen = (port) =>
    new Promise((resolve) =>
      mock.server.listen(port, '127.0.0.1', () => resolve(`http://127.0.0.1:${mock.server.address().port}`)),
    );
  mock.close = () => {
    clearInterval(timer);
    mock.server.closeAllConnections();
    return new Promise((resolve) => mock.server.close(resolve));
  };
  const timer = setInterval(memory, 2000);
  if (loaded) {
    workers.sd.model = demo ? 'demo/picture.safetensors' : 'dreamshaper_8.safetensors';
    workers.llm.model = demo ? 'demo/writer.gguf' : 'qwen2.5-3b-instruct-q4_k_m.gguf';
    for (const m of models) m.active = m.loaded = [workers.sd.model, workers.llm.model].includes(m.id);
  }
  return mock;
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const port = Number(process.argv[2] ?? 1234);
  console.log(`mock server on ${await makeMock().listen(port)}`);
}
