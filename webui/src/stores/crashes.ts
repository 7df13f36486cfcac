// The workers' deaths, as the server keeps them.
import { defineStore } from 'pinia';
import { ref, watch } from 'vue';
import { api } from '@/api/client';
import type { Crash } from '@/api/types';
import { dateTime } from '@/lib/format';
import { useAlerts } from './alerts';

export const workerTitle = (worker: Crash['worker']): string => (worker === 'sd' ? 'Image worker' : 'Text worker');

/** For a report of it. */
export function crashText(c: Crash): string {
  const head = [`${workerTitle(c.worker)} (${c.pid}): ${c.cause}`, dateTime(c.at_ms)];
  const facts = [c.model && `Model: ${c.model}`, c.jobs.length && `Work: ${c.jobs.join(', ')}`].filter(Boolean);
  return [...head, ...facts, ...c.backtrace, c.last_lines.trimEnd()].filter(Boolean).join('\n');
}

export const useCrashes = defineStore('crashes', () => {
  const alerts = useAlerts();
  const open = ref(false);
  const list = ref<Crash[]>([]);
  const next = ref<number | null>(null);
  const error = ref('');

  async function fetchPage(before: number | null): Promise<void> {
    try {
      const page = await api.crashes(before);
      list.value = before === null ? page.data : [...list.value, ...page.data];
      next.value = page.next;
      error.value = '';
    } catch (e) {
      error.value = e instanceof Error ? e.message : String(e);
    }
  }
  function show(): void {
    open.value = true;
    void fetchPage(null);
  }
  const more = () => fetchPage(next.value);
  watch(
    () => alerts.list[0],
    () => open.value && void fetchPage(null),
  );

  return { open, list, next, error, show, more };
});
