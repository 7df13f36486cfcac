// How the sampler differs from what is usual: what is sent, what a picture tells, and which group says that it is set.
import { describe, expect, it } from 'vitest';
import { samplingDefaults, useSampling, type SamplingGroup } from '@/stores/sampling';
import { useStudio } from '@/stores/studio';
import { calls } from './setup';
import { makePicture } from './make';

describe('sampling', () => {
  it('sends what differs, and takes over what a picture was made with', async () => {
    const sampling = useSampling();
    expect(sampling.params()).toEqual({});
    Object.assign(sampling.fields, { guidance_rescale: 0.7, eta: 0, subseed: 5, subseed_strength: 0.2 });
    const sent = { guidance_rescale: 0.7, eta: 0, subseed: 5, subseed_strength: 0.2 };
    expect(sampling.params()).toEqual(sent);
    const studio = useStudio();
    studio.useParameters(makePicture(1, { params: { s_churn: 10, seed_resize_from_w: 512 } }));
    expect(sampling.params()).toEqual({ s_churn: 10, seed_resize_from_w: 512 });
    await studio.generate();
    const job = calls.find((c) => c.path === '/v1/jobs');
    expect(job?.body).toMatchObject({ s_churn: 10, seed_resize_from_w: 512 });
    studio.useParameters(makePicture(2));
    expect(sampling.params()).toEqual({});
  });
  it('each field belongs to one group', () => {
    const sampling = useSampling();
    const groups: SamplingGroup[] = ['guidance', 'variation', 'noise'];
    for (const key of Object.keys(samplingDefaults) as (keyof typeof samplingDefaults)[]) {
      sampling.fields[key] = 0.125;
      expect(groups.filter(sampling.isChanged), key).toHaveLength(1);
      sampling.fields[key] = samplingDefaults[key];
    }
    expect(groups.filter(sampling.isChanged)).toEqual([]);
  });
});
