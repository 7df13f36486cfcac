// The queue: every picture that is asked for is a job on the server; this mirrors it.
import { defineStore } from 'pinia';
import { computed, ref } from 'vue';
import { api } from '@/api/client';
import type { ImageParams, Job, JobType, Preview, UpscaleParams } from '@/api/types';
import { errorText } from '@/lib/format';
import { useAlerts } from './alerts';

const isOver = (job: Job) => job.status === 'done' || job.status === 'failed' || job.status === 'cancelled';
const KEEP = 60; // finished jobs that are remembered for the batch strip and the error card

/** A job that was interrupted begins to count anew, but goes on from about where it was. */
const goesOn = (before: Job, job: Job) =>
  !isOver(job) && job.phase !== 'sampling' && job.step === 0 && job.image <= before.image;

export const useJobs = defineStore('jobs', () => {
  const byId = ref<Record<string, Job>>({});
  const seenAt = ref<Record<string, number>>({}); // when the last news of a job came, to count its time left down
  const preview = ref<{ job: string; src: string; step: number } | null>(null);
  const submitting = ref(false);
  const cancelling = ref<Record<string, boolean>>({});
  const now = ref(Date.now());
  setInterval(() => (now.value = Date.now()), 500);

  const all = computed(() => Object.values(byId.value));
  /** Its pictures are made, but the disk takes no note of them yet. */
  const isMade = (job: Job) => job.status === 'running' && job.phase === 'recording';
  const running = computed(() => all.value.find((j) => j.status === 'running' && !isMade(j)) ?? null);
  const waiting = computed(() =>
    all.value
      .filter((j) => j.status === 'queued' || j.status === 'interrupted')
      .sort((a, b) => (a.position ?? 0) - (b.position ?? 0) || a.created_ms - b.created_ms),
  );
  const made = computed(() => all.value.filter(isMade));
  /** What the canvas follows: the running job, or the next one. */
  const current = computed(() => running.value ?? waiting.value[0] ?? made.value[0] ?? null);
  const lastOver = computed(
    () => all.value.filter(isOver).sort((a, b) => (b.finished_ms ?? 0) - (a.finished_ms ?? 0))[0] ?? null,
  );

  function forgetOld(): void {
    const old = all.value
      .filter(isOver)
      .sort((a, b) => b.created_ms - a.created_ms)
      .slice(KEEP);
    for (const job of old) delete byId.value[job.id];
  }

  /** News may overtake each other (a list fetched before an event arrives after it): what is over stays over. */
  function apply(job: Job): void {
    const before = byId.value[job.id];
    if (before && isOver(before) && !isOver(job)) return;
    byId.value[job.id] = before && goesOn(before, job) ? { ...job, image: before.image, step: before.step } : job;
    seenAt.value[job.id] = Date.now();
    if (isOver(job) && preview.value?.job === job.id) preview.value = null;
    if (isOver(job)) delete cancelling.value[job.id];
    forgetOld();
  }
  function applyPreview(p: Preview): void {
    preview.value = { job: p.job, step: p.step, src: `data:image/jpeg;base64,${p.jpeg}` };
  }

  /** Share done, 0..1, over all pictures of the job. */
  function fraction(job: Job): number {
    if (isOver(job)) return job.status === 'done' ? 1 : 0;
    const perImage = job.steps > 0 ? Math.min(1, job.step / job.steps) : 0;
    return Math.min(1, (job.image + perImage) / Math.max(1, job.images));
  }
  function timeLeft(job: Job): number | null {
    if (job.status !== 'running' || job.eta_ms === null) return null;
    return Math.max(0, job.eta_ms - (now.value - (seenAt.value[job.id] ?? now.value)));
  }

  async function sync(): Promise<void> {
    const page = await api.jobs({ limit: 50 });
    const listed = new Set(page.data.map((j) => j.id));
    for (const job of all.value) if (!isOver(job) && !listed.has(job.id)) delete byId.value[job.id];
    page.data.forEach(apply);
  }
  async function submit(type: JobType, params: Partial<ImageParams> | UpscaleParams): Promise<Job | null> {
    submitting.value = true;
    try {
      const job = await api.createJob(type, params);
      apply(job);
      return job;
    } catch (error) {
      useAlerts().failed('The picture was not started', error);
      return null;
    } finally {
      submitting.value = false;
    }
  }
  async function cancel(id: string): Promise<void> {
    cancelling.value[id] = true;
    try {
      apply(await api.cancelJob(id));
    } catch (error) {
      delete cancelling.value[id];
      useAlerts().failed('The job could not be stopped', error);
      await sync().catch(() => {});
    }
  }
  /** All that wait; the last one first, so that none of them begins meanwhile. */
  async function clear(): Promise<void> {
    for (const job of waiting.value.slice().reverse()) await cancel(job.id);
  }
  const stop = () => (current.value && !isMade(current.value) ? cancel(current.value.id) : Promise.resolve());
  const problem = (job: Job | null) => (job?.status === 'failed' ? errorText(job.error) : '');

  return {
    byId,
    preview,
    submitting,
    cancelling,
    running,
    waiting,
    made,
    isMade,
    current,
    lastOver,
    apply,
    applyPreview,
    fraction,
    timeLeft,
    sync,
    submit,
    cancel,
    clear,
    stop,
    problem,
  };
});
