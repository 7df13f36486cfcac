// The parameters of the next picture. Kept in the browser at every change, and on the server as a second home.
import { defineStore } from 'pinia';
import { computed, ref, watch } from 'vue';
import { api } from '@/api/client';
import type { ImageParams, JobType, Options, OutputFormat, Picture } from '@/api/types';
import { withLoras } from '@/lib/loras';
import { asInitImage } from '@/lib/picture-file';
import { carryOver, type Native } from '@/lib/sizes';
import { debounce, dropLarge, load, loadLarge, save, saveLarge } from '@/lib/storage';
import { pictureOf } from './network';

/** Where image to image starts: a picture of the gallery by its file name, or a picture from outside as a data URL. */
export interface InitImage {
  kind: 'file' | 'data';
  value: string;
  src: string;
  name: string;
  width: number;
  height: number;
}

export interface FormFields {
  mode: JobType;
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
  emphasis: string;
  rng: string;
  output_format: OutputFormat;
  output_compression: number; // of jpeg and webp: their quality
  strength: number;
  native_width: number; // of the model that width and height were chosen for
  native_height: number;
}

export const defaults: FormFields = {
  mode: 'txt2img',
  prompt: '',
  negative_prompt: '',
  width: 512,
  height: 512,
  steps: 20,
  cfg_scale: 7,
  sampler: 'euler_a',
  scheduler: 'discrete',
  seed: -1,
  n: 1,
  clip_skip: 1,
  emphasis: 'a1111',
  rng: 'cuda',
  output_format: 'png',
  output_compression: 90,
  strength: 0.75,
  native_width: 512,
  native_height: 512,
};

const fallbackOptions: Options = {
  samplers: ['euler', 'euler_a', 'heun', 'dpm++2m'],
  schedulers: ['discrete', 'karras'],
  rngs: ['cuda', 'cpu'],
  emphases: ['a1111', 'comfy', 'none'],
  formats: ['png', 'jpeg', 'webp'],
  vaes: ['full', 'taesd'],
  upscalers: ['latent'],
  mask_fills: ['original', 'fill', 'latent_noise', 'latent_nothing'],
  control_modes: ['balanced', 'prompt', 'control'],
};

/** Takes over the fields of `from` that have the right type; anything else stays as it is. */
export function merge(into: FormFields, from: Record<string, unknown> | null | undefined): FormFields {
  const out: FormFields & Record<string, unknown> = { ...into };
  for (const key of Object.keys(defaults)) {
    const value = from?.[key];
    if (typeof value === typeof defaults[key as keyof FormFields]) out[key] = value;
  }
  return out;
}

export const useForm = defineStore('form', () => {
  const stored = load<Record<string, unknown> | null>('form', null);
  const fields = ref<FormFields>(merge(defaults, stored));
  const init = ref<InitImage | null>(load<InitImage | null>('init', null));
  const lastSeed = ref<number | null>(load<number | null>('lastSeed', null));
  const options = ref<Options>(fallbackOptions);
  const aspect = computed(() => fields.value.width / fields.value.height);

  const toServer = debounce(() => api.saveSettings({ form: { ...fields.value } }).catch(() => {}), 3000);
  watch(
    fields,
    (f) => {
      save('form', f);
      toServer();
    },
    { deep: true },
  );
  watch(lastSeed, (s) => save('lastSeed', s));

  watch(init, (picture) => {
    save('init', picture && picture.kind === 'data' ? { ...picture, value: '', src: '' } : picture);
    if (picture?.kind === 'data') void saveLarge('init', picture.value);
    else void dropLarge('init');
  });

  async function restoreInit(): Promise<void> {
    if (init.value?.kind !== 'data' || init.value.value) return;
    const data = await loadLarge('init');
    init.value = data ? { ...init.value, value: data, src: data } : null;
  }
  async function sync(): Promise<void> {
    const given = await api.options();
    const lists = { ...fallbackOptions };
    for (const key of Object.keys(lists) as (keyof Options)[]) lists[key] = given[key] ?? lists[key];
    options.value = lists;
  }
  /** A browser that knows nothing yet takes what another one left on the server. */
  async function restoreFromServer(): Promise<void> {
    if (stored) return;
    const settings = await api.settings().catch(() => null);
    const { native_width, native_height } = defaults; // what is not said of the size there
    if (settings?.form) fields.value = merge({ ...fields.value, native_width, native_height }, settings.form);
  }

  function params(): Partial<ImageParams> {
    const { mode, strength, native_width, native_height, ...common } = fields.value;
    if (mode === 'txt2img' || !init.value) return common;
    return { ...common, strength, init_image: init.value.value };
  }
  /** Parameters read from a picture; an unknown sampler or schedule keeps the present one. */
  function use(given: Partial<ImageParams> | null): void {
    const next = merge(fields.value, given as Record<string, unknown> | null);
    if (!options.value.samplers.includes(next.sampler)) next.sampler = fields.value.sampler;
    if (!options.value.schedulers.includes(next.scheduler)) next.scheduler = fields.value.scheduler;
    next.emphasis = given?.emphasis ?? defaults.emphasis;
    next.prompt = withLoras(next.prompt, given?.loras);
    const { mode, n, output_format, output_compression } = fields.value;
    fields.value = { ...next, mode, n, output_format, output_compression };
  }
  /** Of an enlarged picture those of the small one. */
  const paramsOf = (p: Picture): Partial<ImageParams> => ({
    ...(p.params?.type === 'upscale' ? {} : { width: p.width, height: p.height }),
    ...p.params,
    prompt: p.prompt,
    negative_prompt: p.negative_prompt,
    seed: p.seed,
  });
  function startFrom(picture: InitImage): void {
    init.value = picture;
    fields.value.mode = 'img2img';
  }
  /** The picture that another one was made from; what is wrong when it cannot be had. */
  async function startAgain(image: string): Promise<string> {
    const [given, why] = await pictureOf(image);
    if (!given) return `The picture that it began with ${why}.`;
    const picture = await asInitImage(new File([given.blob], given.name, { type: given.blob.type }));
    startFrom(
      image.startsWith('upload:') ? picture : { ...picture, kind: 'file', value: image, src: `/outputs/${image}` },
    );
    return '';
  }
  const startFromPicture = (p: Picture) =>
    startFrom({ kind: 'file', value: p.file, src: p.url, name: p.file, width: p.width, height: p.height });
  /** The size in the form becomes one of the model's. */
  function fitTo(native: Native): void {
    const f = fields.value;
    const from = { width: f.native_width, height: f.native_height };
    if (from.width === native.width && from.height === native.height) return;
    const [width, height] = carryOver(from, native, f.width, f.height);
    Object.assign(f, { width, height, native_width: native.width, native_height: native.height });
  }
  function swap(): void {
    const { width, height } = fields.value;
    Object.assign(fields.value, { width: height, height: width });
  }

  return {
    fields,
    init,
    lastSeed,
    options,
    aspect,
    restoreInit,
    sync,
    restoreFromServer,
    params,
    use,
    paramsOf,
    startFrom,
    startAgain,
    startFromPicture,
    fitTo,
    swap,
  };
});
