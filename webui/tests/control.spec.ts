// ControlNet: which are offered, and what is sent.
import { createPinia, setActivePinia } from 'pinia';
import { beforeEach, describe, expect, it } from 'vitest';
import { nextTick } from 'vue';
import { CONTROLS_MAX, useControl } from '@/stores/control';
import { useModels } from '@/stores/models';
import { makeModel } from './make';
import { answer } from './setup';

const shape = { kind: 'data', value: 'data:image/png;base64,AA', src: '', name: 'a.png', width: 9, height: 9 } as const;

const canny = () => {
  useModels().list = [makeModel('controlnet/canny.pth', { type: 'controlnet' })];
};

describe('control', () => {
  it('offers those that fit the loaded model; one that is gone is not chosen', () => {
    const control = useControl().all[0]!;
    useModels().list = [
      makeModel('m.safetensors', { loaded: true }),
      makeModel('controlnet/canny.pth', { type: 'controlnet' }),
      makeModel('controlnet/depth.pth', { type: 'controlnet' }),
      makeModel('controlnet/xl.pth', { type: 'controlnet', family: 'sdxl' }),
      makeModel('controlnet/lllite.pth', { type: 'controlnet', supported: false }),
    ];
    expect(control.options.map((o) => o.label)).toEqual(['canny', 'depth']);
    expect(control.model).toBe('controlnet/canny.pth');
    control.model = 'controlnet/depth.pth';
    expect(control.model).toBe('controlnet/depth.pth');
    control.model = 'controlnet/gone.pth';
    expect(control.model).toBe('controlnet/canny.pth');
  });
  it('sends nothing without a picture or a ControlNet', () => {
    const control = useControl();
    canny();
    expect(control.params()).toEqual({});
    control.all[0]!.picture = shape;
    Object.assign(control.all[0]!.fields, { weight: 0.5, canny: false });
    expect(control.params()).toEqual({
      controlnet: [{ model: 'controlnet/canny.pth', image: shape.value, weight: 0.5, preprocessor: 'none' }],
    });
    useModels().list = [];
    expect(control.params()).toEqual({});
  });
  it('sends each one that has a picture, with what is said of it', () => {
    const control = useControl();
    canny();
    control.add();
    control.add();
    const [first, , third] = control.all;
    first!.picture = { ...shape, value: 'a.png' };
    Object.assign(first!.fields, { start: 0.1, end: 0.6, mode: 'prompt', low_threshold: 50, high_threshold: 80 });
    third!.picture = { ...shape, value: 'b.png' };
    third!.fields.canny = false;
    expect(control.used).toBe(2);
    const model = 'controlnet/canny.pth';
    const canned = { preprocessor: 'canny', low_threshold: 50, high_threshold: 80 };
    const b = { model, image: 'b.png', weight: 1, preprocessor: 'none' };
    expect(control.params()).toEqual({
      controlnet: [{ model, image: 'a.png', weight: 1, start: 0.1, end: 0.6, mode: 'prompt', ...canned }, b],
    });
    control.remove(first!);
    expect(control.params()).toEqual({ controlnet: [b] });
  });
  it('keeps what is chosen, without the pictures; there is always one to fill in', async () => {
    const control = useControl();
    control.add();
    control.all[1]!.fields.weight = 0.3;
    control.all[1]!.picture = shape;
    await nextTick();
    setActivePinia(createPinia());
    const again = useControl();
    expect(again.all.map((c) => [c.fields.weight, c.picture])).toEqual([
      [1, null],
      [0.3, null],
    ]);
    for (const c of [...again.all]) again.remove(c);
    expect(again.all.length).toBe(1);
    for (let i = 0; i < 20; i++) again.add();
    expect(again.all.length).toBe(CONTROLS_MAX);
  });
});

describe('ControlNets of a picture', () => {
  const model = 'controlnet/canny.pth';
  const told = { model, weight: 0.5, start: 0.1, end: 0.9, preprocessor: 'canny', mode: 'prompt', low_threshold: 5, high_threshold: 9 }; // prettier-ignore
  beforeEach(canny);

  it('come back with their pictures, from wherever those are', async () => {
    answer('GET /v1/uploads/a.png', new Response('A'));
    answer('GET /outputs/b%20c.png', new Response('B'));
    const control = useControl();
    const depth = { model, weight: 1, start: 0, end: 1, preprocessor: 'none', mode: 'balanced' };
    await control.use([
      { ...told, image: 'upload:a.png' },
      { ...depth, image: 'b c.png' },
    ]);
    expect(control.missing).toEqual([]);
    expect(control.params()).toEqual({
      controlnet: [
        { ...told, image: 'data:A' },
        { model, weight: 1, preprocessor: 'none', image: 'data:B' },
      ],
    });
    await control.use();
    expect(control.params()).toEqual({});
    expect(control.all[0]!.fields.weight).toBe(0.5);
  });

  it('say by name what is gone, and are off until they have a picture', async () => {
    answer('GET /v1/uploads/a.png', new Response('A'));
    const control = useControl();
    await control.use([
      { ...told, image: 'upload:gone.png' },
      { ...told, model: 'controlnet/depth.pth', image: 'upload:a.png' },
      { model, weight: 0.3 },
    ]);
    expect(control.missing).toEqual([
      'canny: its picture is no longer on the server.',
      'depth is not there for the loaded model.',
      'canny: its picture is not in the file.',
    ]);
    expect(control.params()).toEqual({});
    control.all[0]!.show(shape);
    expect(control.missing).toHaveLength(2);
    expect(control.params()).toEqual({ controlnet: [{ ...told, image: shape.value }] });
  });

  it('a picture that comes late does not take the place of one that was chosen', async () => {
    let come = (_: Response) => {};
    answer('GET /v1/uploads/a.png', () => new Promise<Response>((resolve) => (come = resolve)));
    const control = useControl();
    const use = control.use([{ ...told, image: 'upload:a.png' }]);
    control.all[0]!.show(shape);
    come(new Response('late'));
    await use;
    expect(control.all[0]!.picture).toEqual(shape);
  });
});
