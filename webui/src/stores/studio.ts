// Actions that touch several stores: making a picture, and taking a picture up again.
import { defineStore } from 'pinia';
import { computed, ref, watch } from 'vue';
import { api } from '@/api/client';
import type { ImageParams, Inspection, Networks, Picture } from '@/api/types';
import { asInitImage, readDataUrl } from '@/lib/picture-file';
import { useAlerts } from './alerts';
import { useControl } from './control';
import { useIpAdapter } from './ip-adapter';
import { useEdits } from './edits';
import { useFlows } from './flows';
import { useForm, type InitImage } from './form';
import { useGallery } from './gallery';
import { useJobs } from './jobs';
import { useModels } from './models';
import { useSampling } from './sampling';
import { useUi } from './ui';
import { useWand } from './wand';

export interface Dropped {
  picture: InitImage;
  inspection: Inspection;
}

export const useStudio = defineStore('studio', () => {
  const alerts = useAlerts();
  const control = useControl();
  const ipAdapter = useIpAdapter();
  const edits = useEdits();
  const flows = useFlows();
  const form = useForm();
  const jobs = useJobs();
  const models = useModels();
  const sampling = useSampling();
  const ui = useUi();
  const wand = useWand();
  const needsModel = ref(false); // the hint that an image model must be loaded
  const dropped = ref<Dropped | null>(null); // a picture that carries parameters: what to do with it?
  const canGenerate = computed(() => form.fields.prompt.trim() !== '');

  // Also after the form has come from the server, which may have been filled for another model.
  watch(
    [() => models.activeImage, () => form.fields.native_width, () => form.fields.native_height],
    ([model]) => {
      if (model?.width && model.height) form.fitTo({ width: model.width, height: model.height });
    },
    { immediate: true },
  );

  async function generate(): Promise<void> {
    if (!canGenerate.value || jobs.submitting) return;
    if (models.known && !models.activeImage) {
      needsModel.value = true;
      return;
    }
    needsModel.value = false;
    if (form.fields.mode === 'img2img' && !form.init) {
      alerts.toast(
        'warning',
        'Image to image needs a picture',
        'Drop, paste or choose one, or switch to text to image.',
      );
      return;
    }
    const parts = [form, sampling, edits, control, ipAdapter, flows].map((store) => store.params());
    const job = await jobs.submit(form.fields.mode, Object.assign({}, ...parts));
    if (!job) return;
    ui.follow();
    ui.pane = 'canvas';
  }

  async function tryExample(prompt: string): Promise<void> {
    form.fields.prompt = prompt;
    form.fields.mode = 'txt2img';
    await generate();
  }

  /** Escape: the wand first, then the picture. */
  function interrupt(): void {
    if (wand.streaming) wand.stop();
    else void jobs.stop();
  }

  /** `start`: what image to image begins with; undefined leaves that as it is. */
  async function takeOver(params: Partial<ImageParams> | null, networks: Networks, start?: string): Promise<void> {
    form.use(params);
    for (const store of [edits, flows, sampling]) store.use(params);
    const [lost] = await Promise.all([
      start && form.startAgain(start),
      control.use(networks.controlnet),
      ipAdapter.use(networks.ip_adapter),
    ]);
    const mask = start && params?.mask && 'The mask has to be painted again.';
    const missing = [lost, mask, ...control.missing, ipAdapter.missing].filter(Boolean);
    if (missing.length) alerts.toast('warning', 'Not all could be taken over', missing.join(' '));
    else alerts.toast('success', 'Parameters taken over', 'Prompt, size, sampler and seed are those of the picture.');
  }
  async function useParameters(p: Picture): Promise<void> {
    ui.pane = 'create';
    const params = form.paramsOf(p);
    const start = params.type === 'upscale' ? undefined : params.init_image;
    form.fields.mode = start ? 'img2img' : 'txt2img';
    await takeOver(params, params, start);
  }
  function useSeed(p: Picture): void {
    form.fields.seed = p.seed;
    alerts.toast('success', 'Seed taken over', String(p.seed));
  }
  function toImageToImage(p: Picture): void {
    form.startFromPicture(p);
    if (!form.fields.prompt.trim()) form.fields.prompt = p.prompt;
    ui.pane = 'create';
  }
  async function upscale(p: Picture, upscaler: string, factor: number): Promise<boolean> {
    const job = await jobs.submit('upscale', { image: p.file, upscaler, factor });
    if (job) alerts.toast('success', 'Upscaling', 'The larger picture comes into the gallery.');
    return job !== null;
  }
  async function remove(p: Picture): Promise<void> {
    const sure = await ui.confirm(
      'Delete this picture?',
      'The file is removed from the disk. This cannot be undone.',
      'Delete',
    );
    if (!sure) return;
    await useGallery().remove(p);
    if (ui.shown?.id === p.id) ui.shown = useGallery().recent[0] ?? null;
  }

  /** A picture that was dropped, pasted or chosen: starts image to image, and offers its parameters if it has any. */
  async function takeFile(file: File): Promise<void> {
    try {
      const picture = await asInitImage(file);
      const whole = await readDataUrl(file);
      const inspection = await api.inspect(whole.slice(whole.indexOf(',') + 1)).catch(() => null);
      if (inspection?.params) dropped.value = { picture, inspection };
      else form.startFrom(picture);
      ui.pane = 'create';
    } catch (error) {
      alerts.failed('This picture cannot be used', error);
    }
  }
  function decide(what: 'parameters' | 'picture' | 'both' | null): void {
    const d = dropped.value;
    dropped.value = null;
    if (!d || !what) return;
    if (what !== 'picture') void takeOver(d.inspection.params, d.inspection.networks ?? {});
    if (what === 'parameters') form.fields.mode = 'txt2img';
    else form.startFrom(d.picture);
  }

  return {
    needsModel,
    dropped,
    canGenerate,
    generate,
    tryExample,
    interrupt,
    useParameters,
    useSeed,
    toImageToImage,
    upscale,
    remove,
    takeFile,
    decide,
  };
});
