// The one module that talks to the server. Stores call it; components never do.
import type {
  ChatMessage,
  Crash,
  Health,
  ImageComponents,
  ImageParams,
  Inspection,
  Job,
  JobType,
  LlmOptions,
  Model,
  Options,
  Page,
  Picture,
  Settings,
  UpscaleParams,
  WorkerName,
} from './types';
import { readEventStream } from './event-stream';

/** A refusal in the server's own words. `status` 0 and code `unreachable`: no answer came at all. */
export class ApiError extends Error {
  constructor(
    message: string,
    readonly status: number,
    readonly code: string,
    readonly param: string | null = null,
  ) {
    super(message);
    this.name = 'ApiError';
  }
}

const KEY_NAME = 'mysti.key';
let unauthorized: () => void = () => {};

/** Called whenever the server wants an API key that we don't have. */
export function onUnauthorized(handler: () => void): void {
  unauthorized = handler;
}

/** Keeps the key for requests (header) and for event streams and pictures (cookie: they cannot send headers). */
export function setApiKey(key: string): void {
  localStorage.setItem(KEY_NAME, key);
  document.cookie = `mysti_key=${encodeURIComponent(key)}; path=/; SameSite=Strict; max-age=31536000`;
}

function headers(hasBody: boolean): Record<string, string> {
  const out: Record<string, string> = {};
  const key = localStorage.getItem(KEY_NAME);
  if (key) out.Authorization = `Bearer ${key}`;
  if (hasBody) out['Content-Type'] = 'application/json';
  return out;
}

async function failure(response: Response): Promise<ApiError> {
  const body = await response.json().catch(() => null);
  const error = body?.error;
  const message = error?.message ?? `The server answered ${response.status} ${response.statusText}`.trim();
  return new ApiError(message, response.status, error?.code ?? 'http', error?.param ?? null);
}

async function send(method: string, path: string, body?: unknown, signal?: AbortSignal): Promise<Response> {
  let response: Response;
  try {
    response = await fetch(path, {
      method,
      signal,
      headers: headers(body !== undefined),
      body: body === undefined ? undefined : JSON.stringify(body),
    });
  } catch (cause) {
    if (signal?.aborted) throw cause;
    throw new ApiError('The server cannot be reached.', 0, 'unreachable');
  }
  if (response.status === 401) unauthorized();
  if (!response.ok) throw await failure(response);
  return response;
}

async function call<T>(method: string, path: string, body?: unknown): Promise<T> {
  const response = await send(method, path, body);
  return (await response.json()) as T;
}

function query(values: Record<string, string | number | null | undefined>): string {
  const entries = Object.entries(values).filter(([, v]) => v !== null && v !== undefined && v !== '');
  return entries.length ? `?${new URLSearchParams(entries.map(([k, v]) => [k, String(v)]))}` : '';
}

const segment = (id: string | number) => encodeURIComponent(id);

interface CompletionChunk {
  choices?: { delta?: { content?: string }; text?: string }[];
  error?: { message: string; code?: string };
}

/** Yields the text of an OpenAI-shaped stream, piece by piece. Aborting the signal ends it quietly. */
async function* streamText(path: string, body: unknown, signal: AbortSignal): AsyncGenerator<string> {
  const response = await send('POST', path, body, signal);
  if (!response.body) return;
  for await (const data of readEventStream(response.body)) {
    if (data === '[DONE]') return;
    const chunk = JSON.parse(data) as CompletionChunk;
    if (chunk.error) throw new ApiError(chunk.error.message, 200, chunk.error.code ?? 'stream');
    const text = chunk.choices?.[0]?.delta?.content ?? chunk.choices?.[0]?.text;
    if (text) yield text;
  }
}

export const api = {
  health: () => call<Health>('GET', '/health'),
  retryWorker: (worker: WorkerName) => call<unknown>('POST', `/v1/workers/${worker}/retry`, {}),
  crashes: (before: number | null) => call<Page<Crash, number>>('GET', `/v1/crashes${query({ limit: 20, before })}`),
  eventsUrl: (lastId: string | null) => `/v1/events${query({ last_event_id: lastId })}`,

  models: async () => (await call<{ data: Model[] }>('GET', '/v1/models')).data,
  refreshModels: async () => (await call<{ data: Model[] }>('POST', '/v1/models/refresh', {})).data,
  loadModel: (model_id: string, parts: ImageComponents = {}) =>
    call<unknown>('POST', '/v1/models/load', { model_id, ...parts }),
  unloadModel: () => call<unknown>('POST', '/v1/models/unload', {}),
  loadLlm: (model_id: string, options: LlmOptions = {}) =>
    call<unknown>('POST', '/v1/llm/load', { model_id, ...options }),
  unloadLlm: () => call<unknown>('POST', '/v1/llm/unload', {}),

  options: () => call<Options>('GET', '/v1/options'),
  createJob: (type: JobType, params: Partial<ImageParams> | UpscaleParams) =>
    call<Job>('POST', '/v1/jobs', { ...params, type }),
  jobs: (filter: { status?: string; limit?: number; before?: string } = {}) =>
    call<Page<Job, string>>('GET', `/v1/jobs${query(filter)}`),
  job: (id: string) => call<Job>('GET', `/v1/jobs/${segment(id)}`),
  cancelJob: (id: string) => call<Job>('POST', `/v1/jobs/${segment(id)}/cancel`, {}),

  pictures: (filter: { limit?: number; before?: number | null; q?: string } = {}) =>
    call<Page<Picture, number>>('GET', `/v1/history/images${query(filter)}`),
  deletePicture: (id: number) => call<unknown>('DELETE', `/v1/history/images/${segment(id)}`),
  /** By the name that a job's parameters have for it: `upload:<file>`, or a picture's file. */
  picture: async (name: string) => {
    const upload = name.startsWith('upload:');
    const path = upload ? `/v1/uploads/${segment(name.slice('upload:'.length))}` : `/outputs/${encodeURI(name)}`;
    return (await send('GET', path)).blob();
  },
  inspect: (image: string) => call<Inspection>('POST', '/v1/images/inspect', { image }),

  enhance: (prompt: string, signal: AbortSignal) => streamText('/v1/prompt/enhance', { prompt, stream: true }, signal),

  chat: (messages: ChatMessage[], signal: AbortSignal) =>
    streamText('/v1/chat/completions', { messages, stream: true }, signal),

  settings: () => call<Settings>('GET', '/v1/settings'),
  saveSettings: (settings: Settings) => call<unknown>('PUT', '/v1/settings', settings),
};
