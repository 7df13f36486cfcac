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
  | 'ip_adapter'
  | 'clip_vision'
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
  alias: string | null; // what a LoRA's trainer called it
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
  taesd?: string; // a tiny autoencoder: real previews
  prediction?: 'eps' | 'v'; // what the model says; without it its file decides
}
export interface LlmOptions {
  n_ctx?: number;
  n_gpu_layers?: number;
  slots?: number;
}

export type JobType = 'txt2img' | 'img2img' | 'upscale';

/** What an upscale is asked for with; `image` is a picture's file. */
export interface UpscaleParams {
  image: string;
  upscaler: string; // its id
  factor: number;
}
export type JobStatus = 'queued' | 'running' | 'done' | 'failed' | 'cancelled' | 'interrupted';
export type OutputFormat = 'png' | 'jpeg' | 'webp';

/** A LoRA asked for beside the prompt; this page writes tags into the prompt instead. */
export interface LoraParam {
  name: string;
  weight?: number;
  te_weight?: number;
}
/** A second pass over the enlarged picture: by `scale`, or to a size (either side follows from the other). */
export interface HiresParams {
  scale?: number;
  width?: number;
  height?: number;
  steps?: number;
  strength?: number;
  upscaler?: string;
}
/** A ControlNet with the picture that it follows. */
export interface ControlParam {
  model: string; // its id
  image: string;
  weight?: number;
  start?: number; // shares of the run
  end?: number;
  mode?: string;
  preprocessor?: string;
  low_threshold?: number; // of canny
  high_threshold?: number;
}
/** A picture as prompt. */
export interface IpAdapterParam {
  model: string; // its id
  clip_vision?: string; // the id of the encoder that it reads pictures with
  image: string;
  weight?: number;
  start?: number;
  end?: number;
}
/** As a picture's parameters tell of it; those in a file do not have its picture. */
export type Told<T extends { image: string }> = Omit<T, 'image'> & { image?: string | null };
/** How the sampler, its noise and its guidance differ from what is usual. */
export interface SamplingParams {
  guidance_rescale: number;
  guidance_start: number;
  guidance_end: number;
  dynamic_threshold: number;
  dynamic_threshold_limit: number;
  subseed: number;
  subseed_strength: number;
  seed_resize_from_w: number;
  seed_resize_from_h: number;
  eta: number;
  s_noise: number;
  s_churn: number;
  s_tmin: number;
  s_tmax: number;
  eta_noise_seed_delta: number;
}
export interface ImageParams extends Partial<SamplingParams> {
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
  emphasis?: string;
  rng: string;
  output_format: OutputFormat;
  output_compression?: number;
  vae?: string; // what decodes
  loras?: LoraParam[];
  prompt_template?: string; // what the prompt was made from, where it had wildcards
  negative_template?: string;
  init_image?: string;
  strength?: number;
  mask?: string;
  mask_invert?: boolean;
  mask_blur?: number;
  mask_fill?: string;
  inpaint_area?: 'whole' | 'masked';
  mask_padding?: number;
  outpaint?: { left: number; right: number; top: number; bottom: number; feather: number };
  hires?: HiresParams;
  image_cfg_scale?: number;
  controlnet?: ControlParam[];
  ip_adapter?: IpAdapterParam;
  refiner?: string;
  switch_at?: number;
  diffusion_tile?: number;
  diffusion_tile_overlap?: number;
  cache_interval?: number;
  model?: string;
  type?: 'upscale'; // the picture was enlarged: init_image is what it was made from
  upscaler?: string;
  factor?: number;
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
export interface ChatMessage {
  role: 'user' | 'assistant';
  content: string;
}
/** A worker's death. */
export interface Crash {
  id: number;
  at_ms: number;
  worker: WorkerName;
  pid: number;
  cause: string;
  oom: boolean;
  model: string | null; // the one that was being loaded, else the chosen one
  jobs: string[]; // what it worked at
  backtrace: string[]; // the innermost function first; empty when it could not say any more
  last_lines: string;
}
export interface Options {
  samplers: string[];
  schedulers: string[];
  rngs: string[];
  emphases: string[];
  formats: string[];
  vaes: string[];
  upscalers: string[];
  mask_fills: string[];
  control_modes: string[];
}
export interface Page<T, Id> {
  data: T[];
  next: Id | null;
  total?: number;
}
/** What takes part beside the model, as a picture's parameters tell of it. */
export interface Networks {
  controlnet?: Told<ControlParam>[];
  ip_adapter?: Told<IpAdapterParam>;
}
export interface Inspection {
  width: number;
  height: number;
  parameters: string | null;
  params: Partial<ImageParams> | null;
  networks?: Networks; // whose pictures the file does not have
}
export interface Settings {
  theme?: string;
  form?: Record<string, unknown>;
}
