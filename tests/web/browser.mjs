// What every browser test needs: a server (a mock, or the one at MYSTI_URL), a fresh Chromium, screenshots.
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { makeMock } from './mock-server.mjs';

// playwright-core is one of the page's development dependencies.
const require = createRequire(new URL('../../webui/package.json', import.meta.url));
const { chromium } = require('playwright-core');

export const real = process.env.MYSTI_URL ?? null;
export const SHOTS = process.env.MYSTI_SCREENSHOTS ?? fileURLToPath(new URL('../../build/screenshots', import.meta.url));
export const DESKTOP = { width: 1440, height: 900 };
export const PHONE = { width: 390, height: 844 };

const FLAGS = ['--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking', '--disable-component-update', '--disable-sync'];

/** `{url, mock}`: mock is null when the tests run against a real server. */
export async function startServer(options = {}) {
  if (real) return { url: real.replace(/\/$/, ''), mock: null, close: async () => {} };
  const mock = makeMock(options);
  return { url: await mock.listen(0), mock, close: () => mock.close() };
}

export async function startBrowser() {
  const profile = mkdtempSync(join(tmpdir(), 'mysti-web-'));
  const browser = await chromium.launch({ executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium', args: FLAGS, env: { ...process.env, HOME: profile } });
  return {
    /** A page with storage of its own. `errors` collects what a page must not do: exceptions and policy violations. */
    async open(url, { size = DESKTOP, dark = false } = {}) {
      const context = await browser.newContext({ viewport: size, colorScheme: dark ? 'dark' : 'light', deviceScaleFactor: 1, hasTouch: size === PHONE });
      await context.grantPermissions(['clipboard-read', 'clipboard-write'], { origin: new URL(url).origin }).catch(() => {});
      const page = await context.newPage();
      page.setDefaultTimeout(real ? 60_000 : 15_000);
      page.errors = [];
      page.on('pageerror', (e) => page.errors.push(String(e)));
      page.on('console', (m) => {
        if (m.type() === 'error' && /Content Security Policy|Uncaught|\[Vue warn\]/.test(m.text())) page.errors.push(m.text());
      });
      await page.goto(url);
      return page;
    },
    /** An open page holds an event stream, and jobs of its own may still show: each test starts without the others' pages. */
    async closePages() {
      await Promise.all(browser.contexts().map((c) => c.close()));
    },
    async close() {
      await browser.close();
      rmSync(profile, { recursive: true, force: true });
    },
  };
}

export async function shot(page, name) {
  mkdirSync(SHOTS, { recursive: true });
  // Nothing half faded in, except what moves for ever.
  await page.evaluate(() => Promise.allSettled(document.getAnimations().filter((a) => Number.isFinite(a.effect?.getComputedTiming().endTime)).map((a) => a.finished)));
  await page.screenshot({ path: join(SHOTS, `${name}.png`) });
}
