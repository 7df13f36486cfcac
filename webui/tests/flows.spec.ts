// Other ways through the models: what is sent of them, and what a picture tells.
import { describe, expect, it } from 'vitest';
import { useFlows } from '@/stores/flows';
import { useStudio } from '@/stores/studio';
import { makePicture } from './make';

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
  it('step caching is sent when it is on', () => {
    const flows = useFlows();
    flows.fields.cache_interval = 3;
    expect(flows.params()).toEqual({ cache_interval: 3 });
    flows.use({});
    expect(flows.params()).toEqual({});
  });
});
