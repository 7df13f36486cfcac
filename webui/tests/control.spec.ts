// ControlNet: which are offered, and what is sent.
import { describe, expect, it } from 'vitest';
import { useControl } from '@/stores/control';
import { useModels } from '@/stores/models';
import { makeModel } from './make';

const shape = { kind: 'data', value: 'data:image/png;base64,AA', src: '', name: 'a.png', width: 9, height: 9 } as const;

describe('control', () => {
  it('offers those that fit the loaded model; one that is gone is not chosen', () => {
    const control = useControl();
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
    useModels().list = [makeModel('controlnet/canny.pth', { type: 'controlnet' })];
    expect(control.params()).toEqual({});
    control.picture = shape;
    Object.assign(control.fields, { weight: 0.5, canny: false });
    expect(control.params()).toEqual({
      controlnet: [{ model: 'controlnet/canny.pth', image: shape.value, weight: 0.5, preprocessor: 'none' }],
    });
    useModels().list = [];
    expect(control.params()).toEqual({});
  });
});
