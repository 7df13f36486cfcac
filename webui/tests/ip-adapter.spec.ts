// A picture as prompt: which adapters and encoders are offered, and what is sent.
import { describe, expect, it } from 'vitest';
import { useIpAdapter } from '@/stores/ip-adapter';
import { useModels } from '@/stores/models';
import { makeModel } from './make';
import { answer } from './setup';

const shape = { kind: 'data', value: 'data:image/png;base64,AA', src: '', name: 'a.png', width: 9, height: 9 } as const;

describe('picture as prompt', () => {
  it('sends what is chosen, and nothing without a picture or an adapter for the model', () => {
    const adapter = useIpAdapter();
    useModels().list = [
      makeModel('m.safetensors', { loaded: true }),
      makeModel('ipadapter/plus.safetensors', { type: 'ip_adapter' }),
      makeModel('ipadapter/xl.safetensors', { type: 'ip_adapter', family: 'sdxl' }),
      makeModel('ipadapter/face.bin', { type: 'ip_adapter', supported: false }),
      makeModel('clip_vision/h.safetensors', { type: 'clip_vision', family: 'clip_vision' }),
      makeModel('clip_vision/g.safetensors', { type: 'clip_vision', family: 'clip_vision' }),
    ];
    expect(adapter.options.map((o) => o.label)).toEqual(['plus']);
    expect(adapter.encoders.map((o) => o.label)).toEqual(['h', 'g']);
    expect(adapter.params()).toEqual({});
    adapter.picture = shape;
    adapter.encoder = 'clip_vision/g.safetensors';
    adapter.fields.weight = 0.5;
    expect(adapter.params()).toEqual({
      ip_adapter: {
        model: 'ipadapter/plus.safetensors',
        clip_vision: 'clip_vision/g.safetensors',
        image: shape.value,
        weight: 0.5,
      },
    });
    Object.assign(adapter.fields, { start: 0.2, end: 0.9 });
    expect(adapter.params().ip_adapter).toMatchObject({ start: 0.2, end: 0.9 });
    useModels().list = [];
    expect(adapter.params()).toEqual({});
  });
  it('comes back with its picture; what is missing is named', async () => {
    const adapter = useIpAdapter();
    useModels().list = [
      makeModel('ipadapter/plus.safetensors', { type: 'ip_adapter' }),
      makeModel('clip_vision/h.safetensors', { type: 'clip_vision', family: 'clip_vision' }),
    ];
    answer('GET /v1/uploads/a.png', () => new Response('A'));
    const told = { model: 'ipadapter/plus.safetensors', clip_vision: 'clip_vision/h.safetensors', weight: 0.4 };
    await adapter.use({ ...told, image: 'upload:a.png' });
    expect(adapter.params()).toEqual({ ip_adapter: { ...told, image: 'data:A' } });
    await adapter.use({ ...told, image: 'upload:gone.png' });
    expect(adapter.missing).toBe('plus: its picture is no longer on the server.');
    expect(adapter.params()).toEqual({});
    await adapter.use({ ...told, clip_vision: 'clip_vision/g.safetensors', image: 'upload:a.png' });
    expect(adapter.missing).toBe('g, which it reads pictures with, is not there.');
    expect(adapter.params()).toEqual({});
    await adapter.use();
    expect(adapter.missing).toBe('');
  });
});
