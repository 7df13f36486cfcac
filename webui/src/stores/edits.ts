// Work on pictures: the mask and how it is filled, outpainting, hires fix. Kept in the browser at every change.
import { defineStore } from 'pinia';
import { computed, ref, watch } from 'vue';
import type { HiresParams, ImageParams } from '@/api/types';
import { kept } from '@/lib/kept';
import { load, save } from '@/lib/storage';
import { maskUrl, paints, type Stroke } from '@/lib/strokes';
import { useForm } from './form';

export interface EditFields {
  mask_invert: boolean;
  mask_blur: number;
  mask_fill: string; // 'auto': what the server takes when nothing is said
  inpaint_area: 'whole' | 'masked';
  mask_padding: number;
  left: number;
  right: number;
  top: number;
  bottom: number;
  feather: number;
  hires: boolean;
  hires_by: 'scale' | 'size';
  hires_scale: number;
  hires_width: number; // 0: follows from the height, and the other way round
  hires_height: number;
  hires_steps: number;
  hires_strength: number;
  hires_upscaler: string;
  image_cfg_scale: number;
}

export const editDefaults: EditFields = {
  mask_invert: false,
  mask_blur: 4,
  mask_fill: 'auto',
  inpaint_area: 'whole',
  mask_padding: 32,
  left: 0,
  right: 0,
  top: 0,
  bottom: 0,
  feather: 32,
  hires: false,
  hires_by: 'scale',
  hires_scale: 2,
  hires_width: 0,
  hires_height: 0,
  hires_steps: 0,
  hires_strength: 0.7,
  hires_upscaler: 'latent',
  image_cfg_scale: 1.5,
};

/** What a picture's parameters tell of work on the picture that it began with. */
const OF_PICTURE = [
  'mask_invert',
  'mask_blur',
  'mask_fill',
  'inpaint_area',
  'mask_padding',
  'image_cfg_scale',
] as const;
const SIDES = ['left', 'right', 'top', 'bottom', 'feather'] as const;

export const useEdits = defineStore('edits', () => {
  const form = useForm();
  const fields = kept('edits', editDefaults);
  const strokes = ref<Stroke[]>(load<Stroke[]>('strokes', []));
  const undone = ref<Stroke[]>([]);
  const open = ref(false); // the mask is being painted
  const hasMask = computed(() => paints(strokes.value));
  const extends_ = computed(() => {
    const { left, right, top, bottom } = fields.value;
    return left + right + top + bottom > 0;
  });

  watch(strokes, (s) => save('strokes', s));
  // A mask belongs to its picture.
  watch(
    () => form.init && `${form.init.name} ${form.init.width} ${form.init.height}`,
    () => clear(),
  );

  function add(stroke: Stroke): void {
    strokes.value = [...strokes.value, stroke];
    undone.value = [];
  }
  function undo(): void {
    const last = strokes.value.at(-1);
    if (!last) return;
    undone.value = [...undone.value, last];
    strokes.value = strokes.value.slice(0, -1);
  }
  function redo(): void {
    const next = undone.value.at(-1);
    if (!next) return;
    strokes.value = [...strokes.value, next];
    undone.value = undone.value.slice(0, -1);
  }
  function clear(): void {
    strokes.value = [];
    undone.value = [];
  }

  /** How much hires fix enlarges; without any size to reach by the factor, as in A1111. */
  const enlarges = computed((): Pick<HiresParams, 'scale' | 'width' | 'height'> => {
    const { hires_by, hires_scale: scale, hires_width: width, hires_height: height } = fields.value;
    if (hires_by === 'scale' || !(width || height)) return { scale };
    return { ...(width ? { width } : {}), ...(height ? { height } : {}) };
  });
  /** The size that the next picture will have. */
  const size = computed((): [number, number] => {
    const { mode, width, height } = form.fields;
    const f = fields.value;
    const down = (x: number) => Math.floor(x / 8) * 8;
    if (mode === 'txt2img') {
      if (!f.hires) return [width, height];
      const { scale = 1, width: w, height: h } = enlarges.value;
      if (!w && !h) return [down(width * scale + 0.01), down(height * scale + 0.01)];
      return [down(w ?? (width * h!) / height), down(h ?? (height * w!) / width)];
    }
    if (!form.init) return [width, height];
    const masked = f.inpaint_area === 'masked' && (hasMask.value || extends_.value);
    if (!extends_.value) return masked ? [form.init.width, form.init.height] : [width, height];
    const keep = masked ? (x: number) => x : down;
    return [keep(form.init.width) + f.left + f.right, keep(form.init.height) + f.top + f.bottom];
  });

  /** Begins with the size that the factor gave. */
  function enlargeBy(how: EditFields['hires_by']): void {
    const f = fields.value;
    if (how === 'size' && !f.hires_width && !f.hires_height) [f.hires_width, f.hires_height] = size.value;
    f.hires_by = how;
  }
  function ofPicture(): Partial<ImageParams> {
    const f = fields.value;
    const out: Partial<ImageParams> = {};
    if (!form.init) return out;
    if (hasMask.value) {
      out.mask = maskUrl(strokes.value, form.init.width, form.init.height);
      Object.assign(out, { mask_invert: f.mask_invert, mask_blur: f.mask_blur });
    }
    if (hasMask.value || extends_.value) {
      if (f.mask_fill !== 'auto') out.mask_fill = f.mask_fill;
      Object.assign(out, { inpaint_area: f.inpaint_area, mask_padding: f.mask_padding });
    }
    if (extends_.value) {
      const { left, right, top, bottom, feather } = f;
      out.outpaint = { left, right, top, bottom, feather };
      if (f.inpaint_area === 'whole') Object.assign(out, { width: undefined, height: undefined }); // the picture's own
    }
    if (f.image_cfg_scale !== editDefaults.image_cfg_scale) out.image_cfg_scale = f.image_cfg_scale;
    return out;
  }
  /** What goes with the form's parameters, and over them. */
  function params(): Partial<ImageParams> {
    const f = fields.value;
    if (form.fields.mode !== 'txt2img') return ofPicture();
    if (!f.hires) return {};
    const { hires_steps: steps, hires_strength: strength, hires_upscaler: upscaler } = f;
    return { hires: { ...enlarges.value, steps, strength, upscaler } };
  }
  /** Parameters read from a picture. */
  function use(given: Partial<ImageParams> | null): void {
    for (const key of OF_PICTURE) Object.assign(fields.value, { [key]: given?.[key] ?? editDefaults[key] });
    for (const key of SIDES) fields.value[key] = given?.outpaint?.[key] ?? editDefaults[key];
    const h = given?.hires;
    fields.value.hires = h !== undefined;
    if (!h) return;
    Object.assign(fields.value, {
      hires_by: h.width || h.height ? 'size' : 'scale',
      hires_scale: h.scale ?? editDefaults.hires_scale,
      hires_width: h.width ?? 0,
      hires_height: h.height ?? 0,
      hires_steps: h.steps ?? 0,
      hires_strength: h.strength ?? editDefaults.hires_strength,
      hires_upscaler: h.upscaler ?? editDefaults.hires_upscaler,
    });
  }

  return {
    fields,
    strokes,
    undone,
    open,
    hasMask,
    extends: extends_,
    size,
    add,
    undo,
    redo,
    clear,
    enlargeBy,
    params,
    use,
  };
});
