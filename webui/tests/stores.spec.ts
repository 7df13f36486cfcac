import { afterEach, describe, expect, it, vi } from 'vitest';
import { nextTick } from 'vue';
import { useAlerts } from '@/stores/alerts';
import type { Alert } from '@/api/types';
import { defaults, merge, useForm } from '@/stores/form';
import { useGallery } from '@/stores/gallery';
import { useJobs } from '@/stores/jobs';
import { useEmbeddings } from '@/stores/embeddings';
import { useLoras } from '@/stores/loras';
import { useModels } from '@/stores/models';
import { useStudio } from '@/stores/studio';
import { useUpscalers } from '@/stores/upscalers';
import { describe as describeWorker, useWorkers } from '@/stores/workers';
import { makeJob, makeModel, makePicture } from './make';
import { answer, calls } from './setup';

afterEach(() => vi.useRealTimers());

describe('jobs', () => {
  it('what is over stays over, whichever news comes last', () => {
    const jobs = useJobs();
    jobs.apply(makeJob({ status: 'done' }));
    jobs.apply(makeJob({ status: 'running', step: 5 }));
    expect(jobs.byId['j-1']?.status).toBe('done');
    expect(jobs.current).toBeNull();
  });
  it('an interrupted job goes on, and waits before queued ones only if its position says so', () => {
    const jobs = useJobs();
    jobs.apply(makeJob({ id: 'j-2', position: 2, created_ms: 2 }));
    jobs.apply(makeJob({ id: 'j-1', status: 'running' }));
    expect(jobs.running?.id).toBe('j-1');
    jobs.apply(makeJob({ id: 'j-1', status: 'interrupted', position: 1 }));
    expect(jobs.waiting.map((j) => j.id)).toEqual(['j-1', 'j-2']);
    expect(jobs.current?.id).toBe('j-1');
  });
  it('an interrupted job is as far as it was, until it is farther', () => {
    const jobs = useJobs();
    const at = (given: object) => {
      jobs.apply(makeJob({ status: 'running', images: 2, ...given }));
      const { image, step } = jobs.byId['j-1']!;
      return [image, step];
    };
    expect(at({ phase: 'sampling', image: 1, step: 12 })).toEqual([1, 12]);
    expect(at({ status: 'interrupted', phase: null })).toEqual([1, 12]);
    expect(at({ phase: 'loading' })).toEqual([1, 12]);
    expect(at({ phase: 'sampling', image: 1, step: 11 })).toEqual([1, 11]);
    expect(at({ status: 'cancelled', phase: null })).toEqual([0, 0]);
  });
  it('all that wait are cancelled from the last one on; what runs goes on', async () => {
    const jobs = useJobs();
    jobs.apply(makeJob({ id: 'j-1', status: 'running' }));
    for (const [id, position] of [
      ['j-2', 1],
      ['j-3', 2],
    ] as const) {
      // prettier-ignore
      jobs.apply(makeJob({ id, position }));
      answer(`POST /v1/jobs/${id}/cancel`, makeJob({ id, status: 'cancelled' }));
    }
    await jobs.clear();
    expect(calls.map((c) => c.path)).toEqual(['/v1/jobs/j-3/cancel', '/v1/jobs/j-2/cancel']);
    expect(jobs.waiting).toEqual([]);
    expect(jobs.running?.id).toBe('j-1');
  });
  it('counts progress over all pictures', () => {
    const jobs = useJobs();
    expect(jobs.fraction(makeJob({ status: 'running', step: 10, steps: 20, image: 1, images: 2 }))).toBeCloseTo(0.75);
    expect(jobs.fraction(makeJob({ status: 'running', steps: 0 }))).toBe(0);
    expect(jobs.fraction(makeJob({ status: 'done' }))).toBe(1);
  });
  it('counts the time left down between two steps', () => {
    vi.useFakeTimers();
    const jobs = useJobs();
    const job = makeJob({ status: 'running', eta_ms: 10_000 });
    jobs.apply(job);
    vi.advanceTimersByTime(4000);
    expect(jobs.timeLeft(job)).toBeLessThanOrEqual(6500);
    vi.advanceTimersByTime(60_000);
    expect(jobs.timeLeft(job)).toBe(0);
  });
  it('follows the work, not a finished picture that waits for room on the disk', async () => {
    const jobs = useJobs();
    jobs.apply(makeJob({ id: 'j-1', status: 'running', phase: 'recording', step: 20 }));
    expect([jobs.running, jobs.current?.id]).toEqual([null, 'j-1']);
    await jobs.stop(); // nothing to stop: no request is made, which would be an unanswered one here
    expect(useAlerts().toasts).toEqual([]);
    jobs.apply(makeJob({ id: 'j-2', status: 'running', phase: 'sampling' }));
    expect([jobs.running?.id, jobs.current?.id]).toEqual(['j-2', 'j-2']);
    expect(jobs.made.map((j) => j.id)).toEqual(['j-1']);
    jobs.apply(makeJob({ id: 'j-1', status: 'done' }));
    expect(jobs.made).toEqual([]);
  });
  it('forgets waiting jobs that the server no longer knows', async () => {
    const jobs = useJobs();
    jobs.apply(makeJob({ id: 'j-9' }));
    answer('GET /v1/jobs', { data: [makeJob({ id: 'j-1', status: 'running' })], next: null });
    await jobs.sync();
    expect(Object.keys(jobs.byId)).toEqual(['j-1']);
  });
  it("a refused job is told in the server's words", async () => {
    answer('POST /v1/jobs', Response.json({ error: { message: 'the queue is full', code: 'busy' } }, { status: 429 }));
    expect(await useJobs().submit('txt2img', { prompt: 'x' })).toBeNull();
    expect(useAlerts().toasts[0]).toMatchObject({ level: 'error', text: 'the queue is full' });
  });
  it('drops the preview when its job ends', () => {
    const jobs = useJobs();
    jobs.applyPreview({ job: 'j-1', step: 1, width: 8, height: 8, jpeg: 'AAAA' });
    jobs.apply(makeJob({ status: 'running' }));
    expect(jobs.preview?.src).toBe('data:image/jpeg;base64,AAAA');
    jobs.apply(makeJob({ status: 'cancelled' }));
    expect(jobs.preview).toBeNull();
  });
});

describe('gallery', () => {
  it('appends pages by key without doubles, and stops at the end', async () => {
    const gallery = useGallery();
    const pages: Record<string, object> = {
      first: { data: [makePicture(3), makePicture(2)], next: 2, total: 3 },
      '2': { data: [makePicture(2), makePicture(1)], next: null, total: 3 },
    };
    answer('GET /v1/history/images', (c) =>
      Response.json(pages[new URLSearchParams(c.path.split('?')[1]).get('before') ?? 'first']),
    );
    await gallery.reload();
    await gallery.more();
    expect(gallery.items.map((p) => p.id)).toEqual([3, 2, 1]);
    const before = calls.length;
    await gallery.more();
    expect(calls.length).toBe(before);
  });
  it('drops the answer to an older search', async () => {
    const gallery = useGallery();
    let send!: (r: Response) => void;
    const slow = new Promise<Response>((resolve) => (send = resolve));
    answer('GET /v1/history/images', (c) =>
      c.path.includes('q=a') ? slow : Response.json({ data: [makePicture(2)], next: null, total: 1 }),
    );
    const first = gallery.setSearch('a');
    await gallery.setSearch('b');
    send(Response.json({ data: [makePicture(1)], next: null, total: 1 }));
    await first;
    expect(gallery.items.map((p) => p.id)).toEqual([2]);
  });
  it('shows a new picture at once, in the gallery only if it fits the search', async () => {
    const gallery = useGallery();
    answer('GET /v1/history/images', { data: [], next: null, total: 0 });
    await gallery.setSearch('red cat');
    gallery.added(makePicture(5, { prompt: 'a Cat, red' }));
    gallery.added(makePicture(6, { prompt: 'a dog' }));
    expect(gallery.items.map((p) => p.id)).toEqual([5]);
    expect(gallery.recent.map((p) => p.id)).toEqual([6, 5]);
    expect(gallery.total).toBe(1);
  });
  it('moves the full view to the next picture when one is deleted', async () => {
    const gallery = useGallery();
    answer('GET /v1/history/images', { data: [makePicture(3), makePicture(2), makePicture(1)], next: null, total: 3 });
    answer('DELETE /v1/history/images/2', {});
    await gallery.reload();
    gallery.openId = 2;
    await gallery.remove(makePicture(2));
    expect(gallery.openId).toBe(1);
    expect(gallery.total).toBe(2);
  });
  it('keeps a picture that the server would not delete', async () => {
    const gallery = useGallery();
    answer('GET /v1/history/images', { data: [makePicture(1)], next: null, total: 1 });
    await gallery.reload();
    await gallery.remove(makePicture(1));
    expect(gallery.items).toHaveLength(1);
    expect(useAlerts().toasts[0]?.level).toBe('error');
  });
});

describe('form', () => {
  it('takes the size of the model that is loaded, and sends nothing of where it came from', async () => {
    const form = useForm();
    const models = useModels();
    useStudio();
    models.list = [makeModel('demo/a', { active: true, width: 128, height: 128 })];
    await nextTick();
    expect(form.params()).toMatchObject({ width: 128, height: 128 });
    expect(form.params()).not.toHaveProperty('native_width');
    form.fields.width = 192;
    form.fields.height = 192;
    models.list = [makeModel('b', { active: true })];
    await nextTick();
    expect(form.params()).toMatchObject({ width: 768, height: 768 });
    models.list = []; // none: the size stays
    await nextTick();
    expect(form.params()).toMatchObject({ width: 768, height: 768 });
  });
  it('a form that was filled elsewhere for another model comes in the size of this one', async () => {
    const form = useForm();
    useStudio();
    useModels().list = [makeModel('demo/a', { active: true, width: 128, height: 128 })];
    answer('GET /v1/settings', { form: { prompt: 'x', width: 768, height: 768 } });
    await nextTick();
    await form.restoreFromServer();
    await nextTick();
    expect(form.params()).toMatchObject({ prompt: 'x', width: 192, height: 192 });
  });
  it('takes over only fields of the right type', () => {
    const out = merge(defaults, { steps: '30', width: 768, prompt: 'x', evil: 1, sampler: null });
    expect(out).toMatchObject({ steps: 20, width: 768, prompt: 'x', sampler: 'euler_a' });
    expect(out).not.toHaveProperty('evil');
  });
  it('sends init image and strength only for image to image', () => {
    const form = useForm();
    form.startFrom({ kind: 'file', value: 'a.png', src: '/outputs/a.png', name: 'a.png', width: 8, height: 8 });
    expect(form.params()).toMatchObject({ init_image: 'a.png', strength: 0.75 });
    expect(form.params()).not.toHaveProperty('mode');
    form.fields.mode = 'txt2img';
    expect(form.params()).not.toHaveProperty('init_image');
    expect(form.params()).not.toHaveProperty('strength');
  });
  it('keeps the present sampler when a picture names an unknown one', () => {
    const form = useForm();
    form.use({ sampler: 'restart', scheduler: 'karras', seed: 7, steps: 33 });
    expect(form.fields).toMatchObject({ sampler: 'euler_a', scheduler: 'karras', seed: 7, steps: 33 });
  });
});

describe('models', () => {
  it('keeps the reason of a failed load beside the model', async () => {
    const models = useModels();
    const broken = makeModel('b.safetensors');
    answer(
      'POST /v1/models/load',
      Response.json({ error: { message: 'the file is cut off', code: 'broken' } }, { status: 422 }),
    );
    answer('GET /v1/models', { data: [broken] });
    expect(await models.load(broken)).toBe(false);
    expect(models.errors['b.safetensors']).toBe('the file is cut off');
    expect(models.loading.image).toBeNull();
  });
  it('loads a language model through its own route', async () => {
    const models = useModels();
    answer('POST /v1/llm/load', {});
    answer('GET /v1/models', { data: [makeModel('l.gguf', { type: 'llm', active: true, loaded: true })] });
    expect(await models.load(makeModel('l.gguf', { type: 'llm' }), { n_ctx: 4096 })).toBe(true);
    expect(calls[0]?.body).toEqual({ model_id: 'l.gguf', n_ctx: 4096 });
    expect(models.activeLlm?.id).toBe('l.gguf');
    expect(models.activeImage).toBeNull();
  });
});

describe('upscaling', () => {
  it('asks for a job with the picture, and its parameters stay those of the small one', async () => {
    useModels().list = [
      makeModel('a.pth', { type: 'upscaler' }),
      makeModel('b.pth', { type: 'upscaler', supported: false }),
      makeModel('c.safetensors', { type: 'vae' }),
    ];
    expect(useUpscalers().usable).toEqual([{ id: 'a.pth', title: 'a' }]);
    answer('POST /v1/jobs', makeJob({ type: 'upscale' }));
    expect(await useStudio().upscale(makePicture(7), 'a.pth', 4)).toBe(true);
    expect(calls.find((c) => c.path === '/v1/jobs')?.body).toEqual({
      type: 'upscale',
      image: '7.png',
      upscaler: 'a.pth',
      factor: 4,
    });
    const large = makePicture(8, { width: 2048, height: 2048, params: { type: 'upscale', width: 512, height: 512 } });
    expect(useForm().paramsOf(large)).toMatchObject({ width: 512, height: 512 });
  });
});

describe('embeddings', () => {
  it('are words for either prompt', () => {
    const form = useForm();
    const embeddings = useEmbeddings();
    useModels().list = [
      makeModel('embeddings/sub/calm.pt', { type: 'embedding' }),
      makeModel('loud.safetensors', { type: 'embedding', family: 'sdxl' }),
      makeModel('m.safetensors', { active: true }),
    ];
    expect(embeddings.all.map((e) => [e.name, e.fits])).toEqual([
      ['calm', true],
      ['loud', false],
    ]);
    const [calm, loud] = embeddings.all;
    embeddings.add(calm!, 'prompt');
    embeddings.add(loud!, 'prompt');
    form.fields.negative_prompt = 'bad, ';
    embeddings.add(calm!, 'negative_prompt');
    expect([form.fields.prompt, form.fields.negative_prompt]).toEqual(['calm, loud', 'bad, calm']);
  });
});

describe('LoRAs', () => {
  const lora = (id: string, given = {}) => makeModel(id, { type: 'lora', ...given });
  it('go by their file, or by their path where two files have one name', () => {
    useModels().list = [
      lora('loras/a.safetensors', { alias: 'Nice' }),
      lora('x/b.safetensors'),
      lora('y/b.safetensors', { family: 'sdxl' }),
      makeModel('m.safetensors', { active: true }),
    ];
    const loras = useLoras();
    expect(loras.all.map((l) => [l.name, l.fits])).toEqual([
      ['a', true],
      ['x/b', true],
      ['y/b', false],
    ]);
    expect(['a', 'Nice', 'loras/a', 'a.safetensors', 'x/b', 'c', 'm'].map(loras.known)).toEqual([
      ...Array(5).fill(true),
      false,
      false,
    ]);
  });
  it('are what the prompt says', () => {
    const form = useForm();
    const loras = useLoras();
    useModels().list = [lora('a.safetensors')];
    form.fields.prompt = 'cat';
    loras.add(loras.all[0]!);
    expect(form.fields.prompt).toBe('cat <lora:a:1>');
    loras.weigh(loras.tags[0]!, 0.5);
    expect(form.params().prompt).toBe('cat <lora:a:0.5>');
    loras.remove(loras.tags[0]!);
    expect(form.fields.prompt).toBe('cat');
    form.use({ prompt: 'dog', loras: [{ name: 'a', weight: 0.75 }] });
    expect(form.fields.prompt).toBe('dog <lora:a:0.75>');
  });
});

describe('workers', () => {
  it.each([
    ['ready', 'idle', 'ok'],
    ['ready', 'busy', 'busy'],
    ['ready', 'loading', 'busy'],
    ['starting', 'idle', 'warn'],
    ['restoring', 'loading', 'warn'],
    ['backoff', 'idle', 'error'],
    ['unresponsive', 'busy', 'error'],
    ['safe_mode', 'idle', 'error'],
    ['stopped', 'idle', 'off'],
  ] as const)('%s and %s is shown as %s', (state, activity, tone) => {
    expect(describeWorker({ state, activity, pid: 1, model: null, restarts: 0 }).tone).toBe(tone);
  });
  it('changes one worker by events and leaves the other alone', () => {
    const workers = useWorkers();
    workers.applyEvent({
      worker: 'sd',
      state: 'safe_mode',
      safe_mode_reason: 'five deaths',
      model: null,
      pid: null,
      restarts: 5,
    });
    expect(workers.sd.safe_mode_reason).toBe('five deaths');
    workers.applyEvent({ worker: 'sd', state: 'ready', model: 'x', pid: 4, restarts: 5 });
    expect(workers.sd).toMatchObject({ label: 'Ready', safe_mode_reason: null });
    expect(workers.llm.tone).toBe('off');
  });
});

describe('alerts', () => {
  it('lists a replayed alert once and survives a reload', () => {
    const alerts = useAlerts();
    const alert = {
      level: 'error',
      code: 'worker_crashed',
      worker: 'sd',
      message: 'It crashed.',
      job: 'j-1',
      at_ms: 5,
    } as const;
    alerts.add(alert);
    alerts.add(alert);
    expect(alerts.list).toHaveLength(1);
    expect(alerts.unseen).toBe(1);
    expect(JSON.parse(localStorage.getItem('mysti.alerts') ?? '[]')).toHaveLength(1);
  });

  const say = (code: string, message: string, more: Partial<Alert> = {}): Alert => {
    const level = code === 'worker_ready' ? 'info' : 'error';
    return { level, code, worker: 'sd', message, job: null, at_ms: 1, ...more };
  };

  it('tells one crash in one toast, to its end', () => {
    const alerts = useAlerts();
    alerts.add(say('worker_crashed', 'The image worker crashed (signal 9). It is being restarted.'));
    const { id } = alerts.toasts[0]!;
    alerts.add(say('job_interrupted', 'Job j-1 was interrupted.', { job: 'j-1' }));
    expect(alerts.toasts).toHaveLength(1);
    expect(alerts.toasts[0]).toMatchObject({
      level: 'error',
      text: expect.stringContaining('goes on when the worker is back'),
    });
    alerts.add(say('worker_ready', 'The image worker is back.'));
    expect(alerts.toasts).toHaveLength(1);
    expect(alerts.toasts[0]).toMatchObject({
      id,
      level: 'info',
      title: 'The image worker is back.',
      text: 'The image worker crashed (signal 9). Your picture is not lost: it goes on when the worker is back.',
    });
    expect(alerts.list).toHaveLength(3);
    alerts.add(say('worker_crashed', 'The image worker crashed (signal 11). It is being restarted.'));
    expect(alerts.toasts.map((t) => t.text)).toEqual([undefined]);
    alerts.dismiss(id);
    alerts.add(say('worker_ready', 'The image worker is back.', { at_ms: 2 }));
    expect(alerts.toasts.map((t) => t.title)).toEqual(['The image worker is back.']);
  });

  it('keeps what failed in sight when the worker is back', () => {
    const alerts = useAlerts();
    alerts.add(say('worker_crashed', 'The image worker crashed (signal 9). It is being restarted.'));
    alerts.add(say('job_failed', 'Job j-1 is given up: it died 2 times.', { job: 'j-1' }));
    alerts.add(say('worker_ready', 'The image worker is back.'));
    expect(alerts.toasts).toHaveLength(1);
    expect(alerts.toasts[0]).toMatchObject({ level: 'error', text: expect.stringContaining('given up') });
  });

  it('keeps the stories of the two workers, and what belongs to neither, apart', () => {
    const alerts = useAlerts();
    alerts.add(say('worker_crashed', 'The image worker crashed.'));
    alerts.add(say('worker_out_of_memory', 'The text worker crashed. Unload the other model.', { worker: 'llm' }));
    alerts.add(say('history_failed', 'The picture is not in the history.', { worker: null }));
    alerts.add(say('worker_safe_mode', 'The image worker is in safe mode.'));
    expect(alerts.toasts.map((t) => t.title)).toEqual([
      'The image worker is in safe mode.',
      'The text worker crashed. Unload the other model.',
      'The picture is not in the history.',
    ]);
  });
});
