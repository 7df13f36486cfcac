import type { Job, Model, Picture } from '@/api/types';

export const makeJob = (given: Partial<Job> = {}): Job => ({
  id: 'j-1',
  type: 'txt2img',
  status: 'queued',
  position: 1,
  created_ms: 1,
  started_ms: null,
  finished_ms: null,
  phase: null,
  step: 0,
  steps: 20,
  image: 0,
  images: 1,
  step_ms: null,
  eta_ms: null,
  attempts: 0,
  params: {},
  results: [],
  error: null,
  ...given,
});
export const makePicture = (id: number, given: Partial<Picture> = {}): Picture => ({
  id,
  file: `${id}.png`,
  url: `/outputs/${id}.png`,
  thumb_url: null,
  width: 512,
  height: 512,
  seed: id,
  model: 'm',
  prompt: `picture ${id}`,
  negative_prompt: '',
  parameters: null,
  params: null,
  job: null,
  created_ms: id,
  bytes: 1,
  ...given,
});
export const makeModel = (id: string, given: Partial<Model> = {}): Model => ({
  id,
  type: 'image',
  family: 'sd1',
  quantization: 'f16',
  title: null,
  alias: null,
  width: 512,
  height: 512,
  examples: [],
  demo: false,
  size: 1,
  path: id,
  supported: true,
  reason: null,
  active: false,
  loaded: false,
  ...given,
});

/** A body that arrives in exactly these pieces. */
export function bodyOf(...pieces: (string | Uint8Array)[]): ReadableStream<Uint8Array> {
  const encoder = new TextEncoder();
  return new ReadableStream({
    start(controller) {
      for (const p of pieces) controller.enqueue(typeof p === 'string' ? encoder.encode(p) : p);
      controller.close();
    },
  });
}
export const token = (text: string) => `data: ${JSON.stringify({ choices: [{ delta: { content: text } }] })}\n\n`;
