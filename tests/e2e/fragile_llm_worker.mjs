#!/usr/bin/env node
// fragile_llm_worker.mjs - stands in front of the real LLM worker, as a program of that name: passes everything on, and dies
// of SIGKILL as soon as a prompt says "crash", for want of memory at "exhaust", with exit code 3 at "leave", and while it
// loads a model when the file MYSTI_CURSE exists.
// MYSTI_REAL_WORKER is the real program.
import { spawn } from 'node:child_process'
import { existsSync, writeSync } from 'node:fs'
import { createServer, request } from 'node:http'

const at = process.argv.indexOf('--port') + 1, outside = Number(process.argv[at]), inside = outside + 1000
const args = process.argv.slice(2).map((a, i, all) => all[i - 1] === '--port' ? String(inside) : all[i - 1] === '--parent-pid' ? String(process.pid) : a)
const real = spawn(process.env.MYSTI_REAL_WORKER, args, { stdio: ['pipe', 'inherit', 'inherit'] })
real.on('exit', (code) => process.exit(code ?? 1))
process.stdin.on('end', () => process.exit(0)).resume()
process.on('SIGTERM', () => real.kill('SIGTERM'))

createServer((q, r) => {
  let body = ''
  q.on('data', (d) => { body += d })
  q.on('end', () => {
    const cursed = q.url === '/internal/load' && existsSync(process.env.MYSTI_CURSE ?? '')
    const asks = (word) => q.url === '/internal/complete' && body.includes(word)
    if (cursed || asks('crash')) process.kill(process.pid, 'SIGKILL')
    if (asks('leave')) process.exit(3)
    if (asks('exhaust')) {
      writeSync(2, 'ggml_cuda: out of memory\n')
      process.kill(process.pid, 'SIGABRT')
    }
    const on = request({ port: inside, host: '127.0.0.1', method: q.method, path: q.url, headers: q.headers }, (a) => {
      if (q.url !== '/internal/health') { r.writeHead(a.statusCode, a.headers); a.pipe(r); return }
      let text = ''
      a.on('data', (d) => { text += d })
      a.on('end', () => r.writeHead(a.statusCode, { 'Content-Type': 'application/json' }).end(text.replace(/"pid":\d+/, `"pid":${process.pid}`)))
    })
    on.on('error', () => r.destroy())
    r.on('close', () => on.destroy())
    on.end(body)
  })
}).listen(outside, '127.0.0.1')
