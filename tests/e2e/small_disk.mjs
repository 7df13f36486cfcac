// small_disk.mjs - a file system of a few megabytes that a test can fill: a tmpfs in a mount namespace of its own, which
// goes away with this process. Needs Linux and either root or user namespaces for everybody.
import { spawn } from 'node:child_process'
import { closeSync, mkdtempSync, openSync, rmSync, rmdirSync, writeSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

const WAYS = [['--mount'], ['--user', '--map-root-user', '--mount']] // of unshare and, but for the second word, of nsenter

/** A process that holds the namespace with the mounted folder until its stdin is closed; throws what went wrong. */
function hold(way, path, megabytes) {
  const script = `mount -t tmpfs -o size=${megabytes}m mysti "$1" && echo ready && exec cat`
  const p = spawn('unshare', [...way, 'sh', '-c', script, 'sh', path], { stdio: ['pipe', 'pipe', 'pipe'] })
  let said = ''
  p.stderr.on('data', (d) => { said += d })
  return new Promise((ok, no) => {
    p.on('error', no)
    p.on('exit', () => no(new Error(said.trim() || 'unshare failed')))
    p.stdout.once('data', () => ok(p))
  })
}

export class SmallDisk {
  /** Throws an error with the reason where this machine does not allow it. */
  static async mount(megabytes) {
    const d = new SmallDisk()
    if (process.platform !== 'linux') throw new Error('it needs Linux')
    d.path = mkdtempSync(join(tmpdir(), 'mysti-disk-')) // as programs behind `launcher` see it
    let why
    for (const way of WAYS) {
      d.holder = await hold(way, d.path, megabytes).catch((e) => { why = e; return null })
      if (!d.holder) continue
      d.seen = `/proc/${d.holder.pid}/root${d.path}` // as this process sees it
      const user = way.includes('--user') ? ['--user', '--preserve-credentials'] : []
      d.launcher = ['nsenter', `--target=${d.holder.pid}`, ...user, '--mount']
      d.filler = join(d.seen, 'filler')
      return d
    }
    rmdirSync(d.path)
    throw why
  }

  /** To the last byte; again, when somebody has made room meanwhile. */
  fill() {
    const f = openSync(this.filler, 'a')
    for (let piece = Buffer.alloc(1 << 20); piece.length;) {
      try { if (writeSync(f, piece) === piece.length) continue } catch (e) { if (e.code !== 'ENOSPC') throw e }
      piece = piece.subarray(0, piece.length >> 1)
    }
    closeSync(f)
  }

  makeRoom() { rmSync(this.filler, { force: true }) }

  async close() {
    const gone = new Promise((ok) => this.holder.once('exit', ok))
    this.holder.stdin.end()
    await gone
    rmdirSync(this.path)
  }
}
