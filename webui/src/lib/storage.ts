// What the page keeps in the browser. Storage may be full or forbidden; then things last until the page is closed.

export function load<T>(key: string, fallback: T): T {
  try {
    const text = localStorage.getItem(`mysti.${key}`);
    return text === null ? fallback : (JSON.parse(text) as T);
  } catch {
    return fallback;
  }
}

export function save(key: string, value: unknown): void {
  try {
    localStorage.setItem(`mysti.${key}`, JSON.stringify(value));
  } catch {
    /* full or forbidden: nothing to do about it here */
  }
}

/** Calls `f` once things have been quiet for `ms`; `flush` runs a waiting call now. */
export function debounce(f: () => void, ms: number): { (): void; flush(): void } {
  let timer: ReturnType<typeof setTimeout> | undefined;
  const run = () => {
    clearTimeout(timer);
    timer = undefined;
    f();
  };
  const wait = () => {
    clearTimeout(timer);
    timer = setTimeout(run, ms);
  };
  wait.flush = () => {
    if (timer !== undefined) run();
  };
  return wait;
}

// Pictures are too large for localStorage; the init image lives in IndexedDB.
function database(): Promise<IDBDatabase> {
  return new Promise((resolve, reject) => {
    const open = indexedDB.open('mysti', 1);
    open.onupgradeneeded = () => open.result.createObjectStore('blobs');
    open.onsuccess = () => resolve(open.result);
    open.onerror = () => reject(open.error);
  });
}

async function inStore<T>(mode: IDBTransactionMode, use: (s: IDBObjectStore) => IDBRequest<T>): Promise<T | null> {
  try {
    const db = await database();
    return await new Promise<T>((resolve, reject) => {
      const request = use(db.transaction('blobs', mode).objectStore('blobs'));
      request.onsuccess = () => resolve(request.result);
      request.onerror = () => reject(request.error);
    });
  } catch {
    return null;
  }
}

export const loadLarge = (key: string) => inStore<string | undefined>('readonly', (s) => s.get(key));
export const saveLarge = (key: string, value: string) => inStore('readwrite', (s) => s.put(value, key));
export const dropLarge = (key: string) => inStore('readwrite', (s) => s.delete(key));
