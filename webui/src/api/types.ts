// What travels between the page and the server; the words are those of docs/api.md.

export type WorkerName = 'sd' | 'llm';
export type WorkerState = 'stopped' | 'starting' | 'restoring' | 'ready' | 'unresponsive' | 'backoff' | 'safe_mode';
export type Activity = 'idle' | 'loading' | 'busy';

export interface DeviceMemory {
  device: string;
  total: number;
  free: number;
}

export interface WorkerHealth {
  state: WorkerState;
  activity?: Activity;
  pid: number | null;
  model: string | null;
  loaded?: boolean;
  restarts: number;
  last_crash?: { at_ms: number; cause: string } | null;
  rss?: number;
  memory?: DeviceMemory[];
  safe_mode_reason?: string | null;
}
export interface Health {
  status: 'ok' | 'degraded';
  version: string;
  uptime_ms: number;
  workers: Record<WorkerName, WorkerHealth>;
}
export interface WorkerEvent extends WorkerHealth {
  worker: WorkerName;
}
export interface MemoryEvent {
  devices: DeviceMemory[];
  server_rss: number;
  sd_rss: number;
  llm_rss: number;
}

export type ModelType =
  | 'image'
  | 'llm'
  | 'vae'
  | 'lora'
  | 'text_encoder'
  | 'controlnet'
  | 'upscaler'
  | 'embedding'
  | 'diffusion_model'
  | 'unknown';
export interface Model {
  id: string;
  type: ModelType;
  family: string | null;
  quantization: string | null;
  title: string | null;
  width: number | null; // of its pictures, where none are asked for
  height: number | null;
  examples: string[]; // prompts that it can do
  demo: boolean; // one of the studio's own
  size: number;
  path: string;
  supported: boolean;
  reason: string | null;
  active: boolean;
  loaded: boolean;
}
export interface ImageComponents {
  vae?: string;
  clip_l?: string;
  clip_g?: string;
  t5xxl?: string;
  llm?: string;
}
export interface LlmOptions {
  n_ctx?: number;
  n_gpu_layers?: number;
  slots?: number;
}

export type JobType = 'txt2img' | 'img2img';
export type JobStatus = 'queued' | 'running' | 'done' | 'failed' | 'cancelled' | 'interrupted';
export type OutputFormat = 'png' | 'jpeg' | 'webp';

export interface ImageParams {
  prompt: string;
  negative_prompt: string;
  width: number;
  height: number;
  steps: number;
  cfg_scale: number;
  sampler: string;
  scheduler: string;
  seed: number;
  n: number;
  clip_skip: number;
  rng: string;
  output_format: OutputFormat;
  init_image?: string;
  strength?: number;
  model?: string;
}
export interface ErrorBody {
  message: string;
  type?: string;
  code?: string;
  param?: string | null;
}

export interface Picture {
  id: number;
  file: string;
  url: string;
  thumb_url: string | null;
  width: number;
  height: number;
  seed: number;
  model: string | null;
  prompt: string;
  negative_prompt: string;
  parameters: string | null;
  params: Partial<ImageParams> | null;
  job: string | null;
  created_ms: number;
  bytes: number;
}
export interface Job {
  id: string;
  type: JobType;
  status: JobStatus;
  position: number | null;
  created_ms: number;
  started_ms: number | null;
  finished_ms: number | null;
  phase: string | null;
  step: number;
  steps: number;
  image: number;
  images: number;
  step_ms: number | null;
  eta_ms: number | null;
  attempts: number;
  params: Partial<ImageParams>;
  results: Picture[];
  error: ErrorBody | string | null;
}
export interface Preview {
  job: string;
  step: number;
  width: number;
  height: number;
  jpeg: string;
}
export interface Alert {
  level: 'info' | 'warning' | 'error';
  code: string;
  worker?: WorkerName | null;
  message: string;
  job: string | null;
  at_ms: number;
}
export interface Options {
  samplers: string[];
  schedulers: string[];
  rngs: string[];
  formats: string[];
}
export interface Page<T, Id> {
  data: T[];
  next: Id | null;
  total?: number;
}
export interface Inspection {
  width: number;
  height: number;
  parameters: string | null;
  params: Partial<ImageParams> | null;
}
export interface Settings {
  theme?: string;
  form?: Record<string, unknown>;
}
