#!/usr/bin/env node
'use strict'
// A pod in JavaScript for Node 18 or newer, with nothing but its library.
//
//     pod.js [pod] --workspace DIR --pod NAME [--session UUID | --profile P] [--ticket-role R]
//
// It keeps the handshake (spawn/HANDSHAKE.md); main() has the order in which things happen.
// Its methods are shutdown, and run, which takes three seconds in place of real work.
// Names and directories must be UTF-8: Node has no other strings for them.
const { isUtf8 } = require('buffer')
const { once } = require('events')
const fs = require('fs')
const net = require('net')
const path = require('path')
const { PassThrough } = require('stream')
const { setImmediate: turn, setTimeout: sleep } = require('timers/promises')

const FLAGS = ['--workspace', '--pod', '--session', '--profile', '--ticket-role']
const MAX_LINE = 4 << 20 // bytes of a client's line
const MAX_PATH = process.platform === 'linux' ? 107 : 103 // bytes of a socket's path; Node cuts longer ones

function log (text) {
  try { fs.writeSync(2, `pod.js: ${text}\n`) } catch {} // a full disk ends nothing
}

function fail (status, why) {
  log(why)
  process.exit(status)
}

function parseArgs (words) {
  if (words[0] === 'pod') words = words.slice(1)
  const args = {}
  for (let i = 0; i < words.length; i += 2) {
    if (!FLAGS.includes(words[i]) || i + 1 === words.length) fail(2, `${words[i]}: unknown flag, or one without a value`)
    args[words[i]] = words[i + 1]
  }
  const name = args['--pod']
  if (args['--workspace'] === undefined || name === undefined) fail(2, '--workspace and --pod are needed')
  if ('--session' in args && '--profile' in args) fail(2, '--profile does not go with --session')
  if (['', '.', '..'].includes(name) || /[/\t\r\n]/.test(name)) {
    fail(2, '--pod must be one path element, without a tab or a line end')
  }
  if (name.includes('\ufffd')) fail(2, '--pod must be UTF-8')
  return name
}

function runtimeDir () {
  const places = { YOI_RUNTIME_DIR: '', YOI_HOME: '/run', XDG_RUNTIME_DIR: '/yoi', HOME: '/.yoi/run' }
  for (const [variable, below] of Object.entries(places)) {
    const base = process.env[variable]
    // An empty one counts as unset. Not path.resolve, which takes a/link/../b for a/b.
    if (base) return (path.isAbsolute(base) ? base : process.cwd() + '/' + base) + below
  }
  fail(1, 'no runtime directory (set YOI_HOME, YOI_RUNTIME_DIR, XDG_RUNTIME_DIR, or HOME)')
}

function writeAtomically (file, text) {
  fs.writeFileSync(file + '.tmp', text)
  fs.renameSync(file + '.tmp', file)
}

// Yields the lines of an input; one that is not finished is dropped.
async function * readLines (input) {
  let parts = []
  let size = 0
  for await (let chunk of input) {
    for (let end; (end = chunk.indexOf('\n')) >= 0; chunk = chunk.subarray(end + 1)) {
      yield Buffer.concat([...parts, chunk.subarray(0, end)])
      parts = []
      size = 0
    }
    parts.push(chunk)
    size += chunk.length
    if (size > MAX_LINE) throw new Error('the line is too long')
  }
}

// Returns the object that a line has, or undefined.
function readRequest (line) {
  try {
    const request = isUtf8(line) ? JSON.parse(line.toString()) : null
    if (request !== null && typeof request === 'object' && !Array.isArray(request)) return request
  } catch {}
}

async function serve (client) {
  // What a client has sent counts, also if it has left since. But Node forgets what was not read
  // when a write fails, so that all that is there is read before, into this.
  const input = client.pipe(new PassThrough())
  client.on('error', () => {}).on('close', () => input.end())
  async function send (event, data) {
    await turn()
    await turn()
    await new Promise(resolve => client.write(JSON.stringify({ event, data }) + '\n', resolve))
  }

  await send('snapshot', { pid: process.pid })
  try {
    for await (const line of readLines(input)) {
      const request = readRequest(line)
      if (line.length === 0) continue
      if (!request) await send('error', { message: 'no object of JSON' })
      else if (request.method === 'shutdown') process.emit('SIGINT')
      else if (request.method === 'run') await sleep(3000).then(() => send('done', {}))
      else await send('error', { message: 'unknown method' })
    }
  } catch (error) {
    await send('error', { message: error.message })
  }
  client.end(() => client.destroy())
}

// Removes the socket last: a new pod of the name may start where none answers.
function removeDirectory (directory, server) {
  for (const name of fs.readdirSync(directory, 'buffer')) {
    if (name.equals(Buffer.from('sock'))) continue
    fs.rmSync(Buffer.concat([Buffer.from(directory + '/'), name]), { recursive: true, force: true })
  }
  server.close() // removes it
  fs.rmdirSync(directory)
}

async function main () {
  const name = parseArgs(process.argv.slice(2))
  const stop = new Promise(resolve => process.on('SIGINT', resolve))
  const directory = `${runtimeDir()}/${name}`
  const socket = directory + '/sock'
  if (Buffer.byteLength(socket) > MAX_PATH) fail(1, `${socket}: too long for a socket, whose path has at most ${MAX_PATH} bytes`)
  const server = net.createServer({ allowHalfOpen: true }, serve)
  try {
    const inherited = process.umask(0o077) // what is made here is for its user alone
    fs.mkdirSync(directory, { recursive: true })
    fs.rmSync(socket, { force: true }) // of a pod that was killed
    await once(server.listen(socket), 'listening')
    server.on('error', error => log(`cannot serve a client: ${error.message}`))
    writeAtomically(directory + '/pid', `${process.pid}\n`)
    writeAtomically(directory + '/status.json', JSON.stringify({ pid: process.pid, state: 'running' }) + '\n')
    process.umask(inherited)
    // Who reads the line may connect, and may stop the pod, at once. It goes out in one write,
    // with the newline: console.error would do that later.
    const ready = Buffer.from(`YOI-READY\t${name}\t${socket}\n`)
    if (fs.writeSync(2, ready) < ready.length) throw new Error('the ready line was cut')
  } catch (error) {
    for (const file of ['pid', 'pid.tmp', 'status.json', 'status.json.tmp', 'sock']) {
      fs.rmSync(`${directory}/${file}`, { force: true })
    }
    fail(1, `${directory}: ${error.message}`)
  }
  log(`${name} listening on "${socket}"`)
  await stop
  try {
    removeDirectory(directory, server)
  } catch (error) {
    if (!['ENOENT', 'ENOTEMPTY'].includes(error.code)) fail(1, error.message)
  }
  process.exit(0)
}

main()
