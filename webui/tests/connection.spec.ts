import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';
import { useAlerts } from '@/stores/alerts';
import { useConnection } from '@/stores/connection';
import { useForm } from '@/stores/form';
import { useGallery } from '@/stores/gallery';
import { useJobs } from '@/stores/jobs';
import { useUi } from '@/stores/ui';
import { makeJob, makePicture } from './make';
import { answer, calls, FakeEventSource } from './setup';

beforeEach(() => {
  vi.useFakeTimers();
  answer('GET /v1/history/images', { data: [], next: null, total: 0 });
  answer('GET /v1/jobs', { data: [], next: null });
});
afterEach(() => vi.useRealTimers());

describe('the connection', () => {
  it('hands each event to its store', async () => {
    const connection = useConnection();
    connection.start();
    FakeEventSource.last.send('hello', { server: 's', version: '1' });
    await vi.runOnlyPendingTimersAsync();
    expect(connection.link).toBe('online');
    FakeEventSource.last.send('job', makeJob({ status: 'running' }), '1');
    FakeEventSource.last.send('image', makePicture(9), '2');
    FakeEventSource.last.send(
      'alert',
      { level: 'error', code: 'x', message: 'It crashed.', job: 'j-1', at_ms: 1 },
      '3',
    );
    expect(useJobs().running?.id).toBe('j-1');
    expect(useUi().shown?.id).toBe(9);
    expect(useForm().lastSeed).toBe(9);
    expect(useAlerts().list[0]?.message).toBe('It crashed.');
    FakeEventSource.last.send('image_deleted', { id: 9 }, '4');
    expect(useGallery().recent).toHaveLength(0);
    expect(useUi().shown).toBeNull();
  });
  it('asks for the models again when a worker has another one', async () => {
    useConnection().start();
    FakeEventSource.last.send('hello', { server: 's', version: '1' });
    await vi.advanceTimersByTimeAsync(1000);
    const asked = () => calls.filter((c) => c.path === '/v1/models').length;
    const before = asked();
    const worker = { worker: 'llm', state: 'ready', pid: 1, restarts: 0, model: 'x.gguf', loaded: true };
    FakeEventSource.last.send('worker', { ...worker, activity: 'idle' });
    FakeEventSource.last.send('worker', { ...worker, activity: 'busy' });
    await vi.advanceTimersByTimeAsync(1000);
    expect(asked()).toBe(before + 1);
    FakeEventSource.last.send('worker', { ...worker, activity: 'idle' });
    await vi.advanceTimersByTimeAsync(1000);
    expect(asked()).toBe(before + 1);
  });
  it('opens the stream again with the last event it saw, later and later, and says when the server is away', async () => {
    const connection = useConnection();
    connection.start();
    FakeEventSource.last.send('hello', { server: 's', version: '1' });
    FakeEventSource.last.send('models', {}, '41');
    answer('GET /v1/jobs', new TypeError('Failed to fetch'));
    FakeEventSource.last.onerror?.();
    expect(FakeEventSource.last.closed).toBe(true);
    await vi.advanceTimersByTimeAsync(500);
    expect(connection.link).toBe('offline');
    expect(FakeEventSource.last.url).toBe('/v1/events?last_event_id=41');
    const opened = FakeEventSource.all.length;
    FakeEventSource.last.onerror?.();
    await vi.advanceTimersByTimeAsync(500);
    expect(FakeEventSource.all.length).toBe(opened); // the second pause is longer
    await vi.advanceTimersByTimeAsync(500);
    expect(FakeEventSource.all.length).toBe(opened + 1);
    FakeEventSource.last.send('hello', { server: 's', version: '1' });
    expect(connection.link).toBe('online');
  });
  it('asks for the key instead of calling the server unreachable', async () => {
    const connection = useConnection();
    connection.start();
    answer('GET /v1/jobs', () => Response.json({ error: { message: 'key', code: 'unauthorized' } }, { status: 401 }));
    FakeEventSource.last.onerror?.();
    await vi.advanceTimersByTimeAsync(100);
    expect(connection.keyWanted).toBe(true);
    expect(connection.link).not.toBe('offline');
  });
  it('lets go of the stream while hidden, but not while a picture is made, and catches up when looked at', async () => {
    const look = (state: 'hidden' | 'visible') => {
      Object.assign(document, { visibilityState: state });
      document.dispatchEvent(new Event('visibilitychange'));
    };
    useConnection().start();
    FakeEventSource.last.send('job', makeJob({ status: 'running' }), '5');
    look('hidden');
    await vi.advanceTimersByTimeAsync(45_000);
    expect(FakeEventSource.last.closed).toBe(false);
    FakeEventSource.last.send('job', makeJob({ status: 'done' }), '6');
    await vi.advanceTimersByTimeAsync(45_000);
    expect(FakeEventSource.last.closed).toBe(true);
    look('visible');
    expect(FakeEventSource.last).toMatchObject({ closed: false, url: '/v1/events?last_event_id=6' });
  });
  it('is not upset by an event that is no JSON', () => {
    const warn = vi.spyOn(console, 'warn').mockImplementation(() => {});
    useConnection().start();
    FakeEventSource.last.dispatchEvent(Object.assign(new Event('job'), { data: '{', lastEventId: '' }));
    expect(warn).toHaveBeenCalledOnce();
  });
});
