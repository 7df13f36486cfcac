// load.mjs - how long until a large model is mapped and ready: `node bench/load.mjs MODEL.safetensors`
import { mkdirSync, mkdtempSync, readFileSync, statSync, symlinkSync } from 'node:fs'
import { cpus, tmpdir } from 'node:os'
import { basename, join, resolve } from 'node:path'
import { Studio } from '../tests/e2e/studio.mjs'

const file = resolve(process.argv[2] ?? 'sd15.safetensors')
const dir = mkdtempSync(join(tmpdir(), 'mysti-load-'))
mkdirSync(join(dir, 'models'))
symlinkSync(file, join(dir, 'models', basename(file)))
const s = await Studio.start({ dir })
const times = []
for (let i = 0; i < 6; i++) {
  await s.post('/v1/models/unload')
  const t0 = performance.now()
  await s.post('/v1/models/load', { model_id: basename(file) })
  times.push(performance.now() - t0)
}
const warm = times.slice(1).sort((a, b) => a - b)
const pid = await s.pid('sd')
const rss = readFileSync(`/proc/${pid}/status`, 'utf8').match(/VmRSS:\s+(\d+)/)[1] / 1024
console.log(`${cpus().length} x ${cpus()[0].model.trim()}`)
console.log(`${basename(file)}, ${(statSync(file).size / 1e9).toFixed(2)} GB: first ${times[0].toFixed(0)} ms, then median ${warm[2].toFixed(0)} ms, max ${warm[4].toFixed(0)} ms; worker then ${rss.toFixed(0)} MB resident`)
await s.stop(); await s.cleanup()
