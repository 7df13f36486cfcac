// Work on pictures: strokes, what is sent of them, hires fix taken over from a picture.
import { createPinia, setActivePinia } from 'pinia';
import { nextTick } from 'vue';
import { describe, expect, it, vi } from 'vitest';
import { draw, maskUrl, paints, type Stroke } from '@/lib/strokes';
import { useAlerts } from '@/stores/alerts';
import { useEdits } from '@/stores/edits';
import { useForm } from '@/stores/form';
import { useStudio } from '@/stores/studio';
import { makePicture } from './make';
import { answer } from './setup';

const stroke = (erase = false, x = 5): Stroke => ({ erase, size: 10, points: [[x, 5]] });
const start = { kind: 'file', value: 'a.png', src: '/outputs/a.png', name: 'a.png', width: 100, height: 60 } as const;

/** A canvas that remembers what was drawn, in words. */
function fakeCanvas() {
  const log: string[] = [];
  const ctx = {
    globalCompositeOperation: 'source-over',
    lineWidth: 0,
    beginPath: () => {},
    moveTo: (x: number, y: number) => log.push(`at ${x} ${y}`),
    lineTo: (x: number, y: number) => log.push(`to ${x} ${y}`),
    stroke: () => log.push(`${ctx.globalCompositeOperation} ${ctx.lineWidth}`),
    fillRect: (...box: number[]) => log.push(`${ctx.globalCompositeOperation} rect ${box.join(' ')}`),
  };
  const canvas = { width: 0, height: 0, getContext: () => ctx, toDataURL: () => 'data:image/png;base64,AAAA' };
  return { log, ctx: ctx as unknown as CanvasRenderingContext2D, canvas };
}

describe('strokes', () => {
  it('are drawn in their order and scaled; a single point is a dot', () => {
    const { log, ctx } = fakeCanvas();
    draw(ctx, [stroke(), { erase: true, size: 4, points: [[1, 2], [3, 4]] }], 2, '#fff'); // prettier-ignore
    expect(log).toEqual(['at 10 10', 'to 10 10', 'source-over 20', 'at 2 4', 'to 6 8', 'destination-out 8']);
  });
  it('become a picture of the size of theirs, black behind', () => {
    const { log, canvas } = fakeCanvas();
    Object.assign(document, { createElement: () => canvas });
    expect(maskUrl([stroke()], 4096, 1024)).toBe('data:image/png;base64,AAAA');
    expect([canvas.width, canvas.height]).toEqual([2048, 512]);
    expect(log.at(-1)).toBe('destination-over rect 0 0 2048 512');
  });
  it('an eraser alone paints nothing', () => {
    expect(paints([stroke(true)])).toBe(false);
    expect(paints([stroke(), stroke(true)])).toBe(true);
  });
});

describe('edits', () => {
  it('undo, redo, clear; a new stroke forgets what was undone; another picture has no mask', async () => {
    const edits = useEdits();
    const form = useForm();
    form.startFrom(start);
    await nextTick();
    edits.add(stroke(false, 1));
    edits.add(stroke(false, 2));
    edits.undo();
    expect(edits.strokes).toEqual([stroke(false, 1)]);
    edits.redo();
    edits.redo();
    expect(edits.strokes).toHaveLength(2);
    edits.undo();
    edits.add(stroke(false, 3));
    edits.redo();
    expect(edits.strokes.map((s) => s.points[0]![0])).toEqual([1, 3]);
    form.startFrom({ ...start, src: '/other' }); // the same picture, loaded again
    await nextTick();
    expect(edits.hasMask).toBe(true);
    form.startFrom({ ...start, name: 'b.png' });
    await nextTick();
    expect(edits.hasMask).toBe(false);
    edits.undo();
    expect(edits.strokes).toEqual([]);
  });

  it('sends the mask and how to use it, in image to image only', async () => {
    const { canvas } = fakeCanvas();
    Object.assign(document, { createElement: () => canvas });
    const edits = useEdits();
    const form = useForm();
    form.startFrom(start);
    await nextTick();
    expect(edits.params()).toEqual({});
    edits.add(stroke());
    expect(edits.params()).toEqual({
      mask: 'data:image/png;base64,AAAA',
      mask_invert: false,
      mask_blur: 4,
      inpaint_area: 'whole',
      mask_padding: 32,
    });
    Object.assign(edits.fields, { mask_fill: 'latent_noise', inpaint_area: 'masked', image_cfg_scale: 1.2 });
    expect(edits.params()).toMatchObject({ mask_fill: 'latent_noise', inpaint_area: 'masked', image_cfg_scale: 1.2 });
    expect(edits.size).toEqual([100, 60]);
    form.fields.mode = 'txt2img';
    expect(edits.params()).toEqual({});
  });

  it('an extended picture keeps its own size', async () => {
    const edits = useEdits();
    const form = useForm();
    form.startFrom(start);
    await nextTick();
    Object.assign(edits.fields, { left: 16, bottom: 8 });
    const sent = { ...form.params(), ...edits.params() };
    expect(sent.outpaint).toEqual({ left: 16, right: 0, top: 0, bottom: 8, feather: 32 });
    expect(JSON.parse(JSON.stringify(sent))).not.toHaveProperty('width');
    expect(sent).not.toHaveProperty('mask');
    expect(edits.size).toEqual([96 + 16, 56 + 8]);
  });

  it('hires fix is sent, and taken over with the size of the first pass', () => {
    const edits = useEdits();
    const form = useForm();
    const studio = useStudio();
    edits.fields.hires = true;
    expect(edits.params()).toEqual({ hires: { scale: 2, steps: 0, strength: 0.7, upscaler: 'latent' } });
    expect(edits.size).toEqual([form.fields.width * 2, form.fields.height * 2]);
    const picture = makePicture(1);
    studio.useParameters(picture);
    expect(edits.fields.hires).toBe(false);
    const hires = { width: 960, height: 896, strength: 0.5, upscaler: 'lanczos' };
    studio.useParameters({ ...picture, width: 960, height: 896, params: { width: 640, height: 640, hires } });
    expect(form.fields).toMatchObject({ width: 640, height: 640 });
    expect(edits.params()).toEqual({ hires: { ...hires, steps: 0 } });
    studio.useParameters({ ...picture, params: { width: 640, height: 640, hires: { scale: 1.5 } } });
    expect(edits.params()).toEqual({ hires: { scale: 1.5, steps: 0, strength: 0.7, upscaler: 'latent' } });
  });

  it('a picture made from another one brings that back, and how it was worked on; the mask is named', async () => {
    vi.stubGlobal('createImageBitmap', async () => ({ width: 96, height: 56, close: () => {} }));
    const edits = useEdits();
    const form = useForm();
    const studio = useStudio();
    const alerts = useAlerts();
    const outpaint = { left: 8, right: 0, top: 16, bottom: 0, feather: 20 };
    const worked = {
      inpaint_area: 'masked',
      mask_blur: 9,
      mask_fill: 'fill',
      mask_invert: true,
      mask_padding: 8,
    } as const;
    const params = { init_image: 'upload:a.png', strength: 0.4, mask: 'upload:m.png', outpaint, ...worked };
    answer('GET /v1/uploads/a.png', () => new Response('A', { headers: { 'Content-Type': 'image/png' } }));
    answer('GET /outputs/b.png', () => new Response('B', { headers: { 'Content-Type': 'image/png' } }));
    await studio.useParameters(makePicture(1, { params }));
    expect(form.fields).toMatchObject({ mode: 'img2img', strength: 0.4 });
    expect(form.init).toMatchObject({ kind: 'data', value: 'data:A', width: 96, height: 56 });
    expect(edits.fields).toMatchObject({ ...worked, ...outpaint });
    expect(alerts.toasts.at(-1)?.text).toBe('The mask has to be painted again.');
    await studio.useParameters(makePicture(2, { params: { init_image: 'b.png' } }));
    expect(form.init).toMatchObject({ kind: 'file', value: 'b.png', src: '/outputs/b.png' });
    expect(edits.fields).toMatchObject({ inpaint_area: 'whole', mask_fill: 'auto', left: 0 });
    await studio.useParameters(makePicture(3, { params: { init_image: 'upload:gone.png' } }));
    expect(alerts.toasts.at(-1)?.text).toBe('The picture that it began with is no longer on the server.');
    await studio.useParameters(makePicture(4, { params: { type: 'upscale', init_image: 'b.png' } }));
    expect(form.fields.mode).toBe('txt2img');
  });

  it('hires fix goes to a size; a side that is left away follows from the other, as the engine reckons it', async () => {
    const edits = useEdits();
    const form = useForm();
    Object.assign(form.fields, { width: 512, height: 768 });
    Object.assign(edits.fields, { hires: true, hires_scale: 1.5 });
    edits.enlargeBy('size');
    expect(edits.params().hires).toEqual({ width: 768, height: 1152, steps: 0, strength: 0.7, upscaler: 'latent' });
    edits.fields.hires_width = 1000;
    edits.enlargeBy('scale');
    expect(edits.params().hires).toMatchObject({ scale: 1.5 });
    edits.enlargeBy('size'); // the size that was typed is still there
    expect(edits.size).toEqual([1000, 1152]);
    edits.fields.hires_height = 0;
    expect(edits.params().hires).not.toHaveProperty('height');
    expect(edits.size).toEqual([1000, 1496]); // 1500, in steps of 8
    Object.assign(edits.fields, { hires_width: 0, hires_height: 1152 });
    expect(edits.params().hires).not.toHaveProperty('width');
    expect(edits.size).toEqual([768, 1152]);
    edits.fields.hires_height = 0; // neither: the factor
    expect(edits.params().hires).toMatchObject({ scale: 1.5 });
    expect(edits.size).toEqual([768, 1152]);
    edits.fields.hires_width = 640;
    await nextTick();
    setActivePinia(createPinia());
    expect(useEdits().fields).toMatchObject({ hires_by: 'size', hires_width: 640, hires_height: 0 });
  });
});
