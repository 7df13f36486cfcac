// The two workers' states and the machine's memory, as the server reports them.
import { defineStore } from 'pinia';
import { computed, ref } from 'vue';
import { api } from '@/api/client';
import type { DeviceMemory, Health, MemoryEvent, WorkerEvent, WorkerHealth, WorkerName } from '@/api/types';
import { useAlerts } from './alerts';

export type Tone = 'ok' | 'busy' | 'warn' | 'error' | 'off';
export interface WorkerView extends WorkerHealth {
  tone: Tone;
  label: string;
}

const unknown: WorkerHealth = { state: 'stopped', activity: 'idle', pid: null, model: null, restarts: 0 };

export function describe(w: WorkerHealth): { tone: Tone; label: string } {
  switch (w.state) {
    case 'ready':
      if (w.activity === 'busy') return { tone: 'busy', label: 'Working' };
      if (w.activity === 'loading') return { tone: 'busy', label: 'Loading model' };
      return { tone: 'ok', label: 'Ready' };
    case 'starting':
      return { tone: 'warn', label: 'Starting' };
    case 'restoring':
      return { tone: 'warn', label: 'Restoring model' };
    case 'backoff':
      return { tone: 'error', label: 'Restarting' };
    case 'unresponsive':
      return { tone: 'error', label: 'Not responding' };
    case 'safe_mode':
      return { tone: 'error', label: 'Safe mode' };
    default:
      return { tone: 'off', label: 'Stopped' };
  }
}

export const useWorkers = defineStore('workers', () => {
  const raw = ref<Record<WorkerName, WorkerHealth>>({ sd: unknown, llm: unknown });
  const devices = ref<DeviceMemory[]>([]);
  const rss = ref({ server: 0, sd: 0, llm: 0 });
  const version = ref('');

  const view = (name: WorkerName) => computed<WorkerView>(() => ({ ...raw.value[name], ...describe(raw.value[name]) }));
  const sd = view('sd');
  const llm = view('llm');

  /** One bar per device; both workers name the same ones, so each device counts once. */
  function mergeDevices(...lists: (DeviceMemory[] | undefined)[]): DeviceMemory[] {
    const byName = new Map<string, DeviceMemory>();
    for (const device of lists.flatMap((l) => l ?? [])) byName.set(device.device, device);
    return [...byName.values()].filter((d) => d.total > 0);
  }

  function applyHealth(health: Health): void {
    raw.value = { sd: { ...unknown, ...health.workers.sd }, llm: { ...unknown, ...health.workers.llm } };
    version.value = health.version;
    rss.value = { ...rss.value, sd: health.workers.sd.rss ?? 0, llm: health.workers.llm.rss ?? 0 };
    const found = mergeDevices(health.workers.sd.memory, health.workers.llm.memory);
    if (found.length) devices.value = found;
  }
  function applyEvent(event: WorkerEvent): void {
    const { worker, ...change } = event;
    if (worker !== 'sd' && worker !== 'llm') return;
    raw.value = { ...raw.value, [worker]: { ...raw.value[worker], safe_mode_reason: null, ...change } };
  }
  function applyMemory(event: MemoryEvent): void {
    const found = mergeDevices(event.devices);
    if (found.length) devices.value = found;
    rss.value = { server: event.server_rss ?? 0, sd: event.sd_rss ?? 0, llm: event.llm_rss ?? 0 };
  }
  async function sync(): Promise<void> {
    applyHealth(await api.health());
  }
  async function retry(name: WorkerName): Promise<void> {
    try {
      await api.retryWorker(name);
    } catch (error) {
      useAlerts().failed('Could not start the worker again', error);
    }
  }

  return { sd, llm, devices, rss, version, applyHealth, applyEvent, applyMemory, sync, retry };
});
