// Other ways through the models: what is sent of them, and what a picture tells.
import { describe, expect, it } from 'vitest';
import { useFlows } from '@/stores/flows';
import { useModels } from '@/stores/models';
import { useStudio } from '@/stores/studio';
import { makeModel, makePicture } from './make';

describe('flows', () => {
  it('a refiner is sent when there is one, and taken over from a picture', () => {
    const flows = useFlows();
    const studio = useStudio();
    expect(flows.params()).toEqual({});
    flows.fields.refiner = 'xl-refiner.safetensors';
    expect(flows.params()).toEqual({ refiner: 'xl-refiner.safetensors', switch_at: 0.8 });
    const picture = makePicture(1);
    studio.useParameters(picture);
    expect(flows.params()).toEqual({});
    const given = { refiner: 'b.safetensors', switch_at: 0.5 };
    studio.useParameters({ ...picture, params: given });
    expect(flows.params()).toEqual(given);
  });
  it('tiles are sent when there are any', () => {
    const flows = useFlows();
    flows.fields.diffusion_tile = 768;
    expect(flows.params()).toEqual({ diffusion_tile: 768, diffusion_tile_overlap: 64 });
    flows.use({ diffusion_tile: 512, diffusion_tile_overlap: 128 });
    expect(flows.params()).toEqual({ diffusion_tile: 512, diffusion_tile_overlap: 128 });
    flows.use(null);
    expect(flows.params()).toEqual({});
  });
  it('a tiny autoencoder decodes when it is asked for and there is one', () => {
    const flows = useFlows();
    flows.fields.vae = 'taesd';
    expect(flows.params()).toEqual({});
    useModels().list = [makeModel('taesd.safetensors', { type: 'vae', family: 'taesd' })];
    expect(flows.params()).toEqual({ vae: 'taesd' });
  });
  it('step caching is sent when it is on', () => {
    const flows = useFlows();
    flows.fields.cache_interval = 3;
    expect(flows.params()).toEqual({ cache_interval: 3 });
    flows.use({});
    expect(flows.params()).toEqual({});
  });
});
