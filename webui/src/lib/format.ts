// Numbers, times and the field's names as people read them.
import type { ErrorBody } from '@/api/types';

export function bytes(n: number): string {
  const units = ['B', 'KB', 'MB', 'GB', 'TB'];
  let i = 0;
  while (n >= 1000 && i < units.length - 1) {
    n /= 1000;
    i++;
  }
  return `${n >= 100 || i === 0 ? Math.round(n) : n.toFixed(1)} ${units[i]}`;
}

/** 900 -> "1 s", 75_000 -> "1:15 min", 4_000_000 -> "1:06 h". */
export function duration(ms: number): string {
  const s = Math.max(0, Math.ceil(ms / 1000));
  if (s < 60) return `${s} s`;
  const two = (n: number) => String(n).padStart(2, '0');
  if (s < 3600) return `${Math.floor(s / 60)}:${two(s % 60)} min`;
  return `${Math.floor(s / 3600)}:${two(Math.floor((s % 3600) / 60))} h`;
}

export function clock(ms: number): string {
  return new Date(ms).toLocaleTimeString([], { hour: '2-digit', minute: '2-digit', second: '2-digit' });
}

export function dateTime(ms: number): string {
  return new Date(ms).toLocaleString([], { dateStyle: 'medium', timeStyle: 'short' });
}

const NAMES: Record<string, string> = {
  euler: 'Euler',
  euler_a: 'Euler a',
  heun: 'Heun',
  dpm2: 'DPM2',
  dpm2_a: 'DPM2 a',
  lms: 'LMS',
  lcm: 'LCM',
  ddim: 'DDIM',
  tcd: 'TCD',
  ipndm: 'iPNDM',
  ipndm_v: 'iPNDM v',
  uni_pc: 'UniPC',
  uni_pc_bh2: 'UniPC bh2',
  'dpm++2m': 'DPM++ 2M',
  'dpm++2mv2': 'DPM++ 2M v2',
  'dpm++2s_a': 'DPM++ 2S a',
  'dpm++2m_sde': 'DPM++ 2M SDE',
  'dpm++2m_sde_heun': 'DPM++ 2M SDE Heun',
  'dpm++3m_sde': 'DPM++ 3M SDE',
  'dpm++sde': 'DPM++ SDE',
  res_multistep: 'RES multistep',
  res_multistep_a: 'RES multistep a',
  er_sde: 'ER SDE',
  euler_cfg_pp: 'Euler CFG++',
  euler_a_cfg_pp: 'Euler a CFG++',
  'dpm++2s_a_cfg_pp': 'DPM++ 2S a CFG++',
  'dpm++2m_cfg_pp': 'DPM++ 2M CFG++',
  res_multistep_cfg_pp: 'RES multistep CFG++',
  ddim_cfg_pp: 'DDIM CFG++',
  discrete: 'Discrete',
  karras: 'Karras',
  exponential: 'Exponential',
  ays: 'AYS',
  gits: 'GITS',
  sgm_uniform: 'SGM uniform',
  simple: 'Simple',
  ddim_uniform: 'DDIM uniform',
  kl_optimal: 'KL optimal',
  beta: 'Beta',
  smoothstep: 'Smoothstep',
  linear_quadratic: 'Linear quadratic',
  png: 'PNG',
  jpeg: 'JPEG',
  webp: 'WebP',
  a1111: 'A1111',
  comfy: 'ComfyUI',
  none: 'Ignored',
  cuda: 'GPU (Philox)',
  cpu: 'CPU (MT19937)',
  auto: 'Automatic',
  full: 'The VAE',
  taesd: 'TAESD (quick)',
  balanced: 'Both the same',
  prompt: 'The prompt',
  control: 'The control picture',
  eps: 'Noise (eps)',
  v: 'Velocity (v)',
  original: 'Original',
  fill: 'Colours around',
  latent_noise: 'Latent noise',
  latent_nothing: 'Latent nothing',
  latent: 'Latent',
  'latent-antialiased': 'Latent (antialiased)',
  'latent-bicubic': 'Latent (bicubic)',
  'latent-bicubic-antialiased': 'Latent (bicubic antialiased)',
  'latent-nearest': 'Latent (nearest)',
  'latent-nearest-exact': 'Latent (nearest-exact)',
  lanczos: 'Lanczos',
  nearest: 'Nearest',
};
export const termName = (id: string): string => NAMES[id] ?? id;

const FAMILIES: Record<string, string> = {
  sd1: 'SD 1.x',
  sd2: 'SD 2.x',
  sdxl: 'SDXL',
  sd3: 'SD 3',
  flux: 'FLUX',
  flux2: 'FLUX.2',
  qwen_image: 'Qwen-Image',
  wan: 'Wan',
  chroma: 'Chroma',
};
export const familyName = (id: string): string => FAMILIES[id] ?? id;

const PHASES: Record<string, string> = {
  loading: 'Loading the model',
  encoding: 'Reading the prompt',
  sampling: 'Painting',
  decoding: 'Developing',
  saving: 'Saving',
  recording: 'Finished: waits to be written to the disk',
  upscaling: 'Upscaling',
};
export const phaseName = (phase: string | null): string => (phase ? (PHASES[phase] ?? phase) : 'Starting');

export const fileName = (path: string): string => path.split('/').pop() ?? path;
export const modelTitle = (id: string): string => fileName(id).replace(/\.(safetensors|gguf|ckpt|pth?)$/i, '');

export function errorText(error: ErrorBody | string | null | undefined): string {
  if (!error) return '';
  return typeof error === 'string' ? error : error.message;
}
