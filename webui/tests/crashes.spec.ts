// Crash reports: fetched when they are looked at, and anew when something happens meanwhile.
import { nextTick } from 'vue';
import { describe, expect, it } from 'vitest';
import type { Crash } from '@/api/types';
import { useAlerts } from '@/stores/alerts';
import { crashText, useCrashes } from '@/stores/crashes';
import { answer, calls } from './setup';

const crash = (id: number, given: Partial<Crash> = {}): Crash => ({
  id,
  at_ms: id,
  worker: 'sd',
  pid: 4711,
  cause: 'killed by signal 11 (SIGSEGV)',
  oom: false,
  model: 'm.safetensors',
  jobs: ['j-1'],
  backtrace: ['run+0x4c (a.c)'],
  last_lines: 'loading\n',
  ...given,
});
const settled = () => new Promise((resolve) => setTimeout(resolve));

describe('crash reports', () => {
  it('come page by page, and anew with an alert while they are looked at', async () => {
    const crashes = useCrashes();
    const alert = (at_ms: number) =>
      useAlerts().add({ level: 'error', code: 'worker_crashed', worker: 'sd', message: 'x', job: null, at_ms });
    alert(1);
    await nextTick();
    expect(calls).toEqual([]);
    answer('GET /v1/crashes', ({ path }) =>
      Response.json(path.includes('before=2') ? { data: [crash(1)], next: null } : { data: [crash(2)], next: 2 }),
    );
    crashes.show();
    await settled();
    await crashes.more();
    expect([crashes.list.map((c) => c.id), crashes.next]).toEqual([[2, 1], null]);
    answer('GET /v1/crashes', { data: [crash(3)], next: null });
    alert(2);
    await settled();
    expect(crashes.list.map((c) => c.id)).toEqual([3]);
    answer('GET /v1/crashes', new Error('away'));
    crashes.show();
    await settled();
    expect(crashes.error).not.toBe('');
    expect(crashes.list.map((c) => c.id)).toEqual([3]);
  });
  it('are copied with all that is known', () => {
    const lines = crashText(crash(1)).split('\n');
    expect(lines[0]).toBe('Image worker (4711): killed by signal 11 (SIGSEGV)');
    expect(lines.slice(2)).toEqual(['Model: m.safetensors', 'Work: j-1', 'run+0x4c (a.c)', 'loading']);
    expect(crashText(crash(1, { model: null, jobs: [], backtrace: [], last_lines: '' })).split('\n')).toHaveLength(2);
  });
});
