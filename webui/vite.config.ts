import { defineConfig } from 'vitest/config';
import vue from '@vitejs/plugin-vue';
import { fileURLToPath } from 'node:url';

// `npm run dev` serves the page with hot reload and passes the API on to a running server.
const server = process.env.MYSTI_URL ?? 'http://127.0.0.1:1234';

export default defineConfig({
  plugins: [vue()],
  resolve: { alias: { '@': fileURLToPath(new URL('./src', import.meta.url)) } },
  build: {
    target: 'es2022',
    assetsInlineLimit: 0, // no data: fonts or scripts, so that a strict content security policy holds
    modulePreload: { polyfill: false },
    reportCompressedSize: true,
  },
  server: { proxy: { '/v1': server, '/health': server, '/outputs': server } },
  test: {
    root: fileURLToPath(new URL('.', import.meta.url)),
    include: ['tests/**/*.spec.ts'],
    environment: 'node',
    setupFiles: ['tests/setup.ts'],
  },
});
