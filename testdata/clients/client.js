#!/usr/bin/env node
'use strict'
// A client of the spawn handshake: starts one pod and waits until it is ready.
//
//     client.js [--timeout SECONDS] [--workspace DIR] [--profile P]
//               [--ticket-role R] [--session UUID] NAME
//
// The pod's program is the path in $YOI_POD_RUNTIME_COMMAND. Status 0 and a line on
// stdout: the pod is ready, and lives on without this process. Status 1 and a message on
// stderr: it is not, and nothing of it is left but its log. Status 2: wrong usage. Try it:
//
//     go build -o /tmp/fakepod ./fakepod/cmd/fakepod
//     YOI_POD_RUNTIME_COMMAND=/tmp/fakepod FAKEPOD_PROGRAM=deaf client.js --timeout 2 alpha
//
// It is also the how-to for people who write a client for Node: from start() on in the
// order in which things happen. It needs Node 18.14, its library, and any Unix. Arguments
// and environment must be UTF-8: Node has no other strings for them.
const { isUtf8 } = require('buffer')
const { spawn } = require('child_process')
const { once } = require('events')
const fs = require('fs')
const net = require('net')
const path = require('path')
const { setImmediate: turn, setTimeout: sleep } = require('timers/promises')
const { parseArgs } = require('util')

const READY = 'YOI-READY\t'
const MAX_LINE = 64 << 10 // bytes that are kept of one line
const BLOCK = 128 << 10 // bytes that are read of the log at once
const POLL = 5 // ms: fs.watch may run out of watches, and no system has an event of listen(2)
const NOT_YET = ['ENOENT', 'ECONNREFUSED', 'EAGAIN'] // not bound, not listening, backlog full
const UUID = /^[\da-f]{8}(-[\da-f]{4}){3}-[\da-f]{12}$/i
const O_PATH = 0o10000000 // Linux's; Node has no names for these two
const O_CLOEXEC = 0o2000000

// There is no ready pod. The message is the verdict; status is this program's.
class Failed extends Error {
  constructor (message, status = 1) { super(message); this.status = status }
}

// Starts the pod and returns a line about it. caught fills up with the signals that ask
// this program to give up.
async function start (args, caught) {
  // The name becomes a directory and stands between the tabs of a line.
  if (['', '.', '..'].includes(args.name) || /[/\0\t\r\n]/.test(args.name)) {
    throw new Failed(`invalid pod config: NAME ${quoted(args.name)} is not one path element`, 2)
  }
  if (args.workspace === '') throw new Failed('invalid pod config: --workspace is empty', 2)
  const runtime = runtimeDir()
  const deadline = performance.now() + args.timeout * 1000 // one, for the ready line and the socket
  let log, handshake
  try {
    // Absolute, since the pod is in another directory than this process.
    const workspace = args.workspace ? from(process.cwd(), args.workspace) : process.cwd()
    if (!fs.statSync(workspace, { throwIfNoEntry: false })?.isDirectory()) { // else it looks like a missing program
      throw new Error(`working directory ${workspace} is not a directory`)
    }
    log = createLog(from(workspace, runtime) + '/' + args.name)
    const child = launch(args, workspace, log.writer)
    handshake = new Handshake(args.name, workspace, child, log)
    await once(child, 'spawn') // throws if there is no process
  } catch (error) {
    const command = printable(args.program) + ' pod'
    throw new Failed(`failed to launch pod runtime command \`${command}\`: ${printable(error.message)}`)
  } finally {
    if (log) fs.closeSync(log.writer)
  }
  try {
    return await handshake.wait(args.timeout, deadline, caught)
  } catch (error) {
    await handshake.kill() // whatever went wrong: a pod that nobody knows of must not stay
    throw error
  } finally {
    fs.closeSync(log.reader)
    handshake.child.unref() // this process does not wait for the pod; the system reaps it then
  }
}

// Returns a path as it is from a directory. Not path.resolve: where .. leads behind a
// link, only the system knows.
function from (directory, name) {
  return path.isAbsolute(name) ? name : directory + '/' + name
}

// Returns where pods with this environment keep their directories.
function runtimeDir () {
  const places = { YOI_RUNTIME_DIR: '', YOI_HOME: '/run', XDG_RUNTIME_DIR: '/yoi', HOME: '/.yoi/run' }
  for (const [variable, below] of Object.entries(places)) {
    if (process.env[variable]) return process.env[variable] + below // an empty one counts as unset
  }
  throw new Failed('could not resolve runtime directory (set YOI_HOME, YOI_RUNTIME_DIR, XDG_RUNTIME_DIR, or HOME)')
}

// Makes the pod directory and an empty log, and opens that for the pod, and for us.
function createLog (directory) {
  const file = directory + '/stderr.log'
  const umask = process.umask(0o077) // ours may take rights from the owner, too
  fs.mkdirSync(directory, { recursive: true, mode: 0o700 })
  process.umask(umask) // the pod's is not ours to change
  // Whoever can put a link there would choose what we overwrite, and a pipe would hang us.
  const old = fs.lstatSync(file, { throwIfNoEntry: false })
  if (!fs.lstatSync(directory).isDirectory() || (old && !old.isFile())) {
    throw new Error(`${file}: a link or something else is in the way of it or its directory`)
  }
  // Appending: after the pod has truncated its log it goes on at the new end.
  const { O_WRONLY, O_APPEND, O_CREAT, O_TRUNC, O_NOFOLLOW } = fs.constants
  const writer = fs.openSync(file, O_WRONLY | O_APPEND | O_CREAT | O_TRUNC | O_NOFOLLOW, 0o600)
  fs.fchmodSync(writer, 0o600) // an older log keeps its mode
  return { file, writer, reader: fs.openSync(file, 'r') }
}

// With a slash the program is relative to our directory, without one it is in our PATH:
// it must be found before the child changes to the workspace.
function findProgram (program) {
  if (program.includes('/')) return from(process.cwd(), program)
  for (const directory of (process.env.PATH ?? '').split(':')) {
    const file = from(process.cwd(), directory) + '/' + program
    try {
      fs.accessSync(file, fs.constants.X_OK)
      if (fs.statSync(file).isFile()) return file
    } catch {}
  }
  throw new Error(`${program} is not in PATH`)
}

function launch (args, workspace, log) {
  const argv = ['pod', '--workspace', workspace]
  if (args.session) argv.push('--session', args.session)
  argv.push('--pod', args.name)
  if (args.profile && !args.session) argv.push('--profile', args.profile) // a session has its own
  if (args['ticket-role']) argv.push('--ticket-role', args['ticket-role'])
  return spawn(findProgram(args.program), argv, {
    argv0: args.program,
    cwd: workspace,
    stdio: ['ignore', 'ignore', log], // the file itself: a pipe would break when we end
    detached: true // a process group of its own, to be killed whole, and no terminal
  })
}

// What is known of a pod that is on its way. A line of its log is a latin1 string: that
// keeps every byte, be it UTF-8 or not.
class Handshake {
  offset = 0 // up to where the log was read
  before = '' // what stands just before that
  unfinished = '' // what follows the last newline
  tail = [] // the last lines
  buffer = Buffer.alloc(BLOCK)
  constructor (name, workspace, child, log) {
    Object.assign(this, { name, workspace, child, log })
    this.ended = once(child, 'exit').then(([status, signal]) => {
      this.exit = signal ? `signal: ${signal}` : `exit status ${status}`
    }, () => {}) // there was no process
  }

  async wait (timeout, deadline, caught) {
    for (let more = true; ; await (more ? turn() : sleep(POLL))) { // both let events in
      // Before the log is read: what is over by now is judged by all it has left there.
      const late = performance.now() >= deadline
      more = this.read()
      if (this.exit) throw await this.exited()
      if (caught.length > 0) throw this.verdict(`start of the pod was cancelled by ${caught[0]}`)
      if (this.socket && await this.connect()) {
        await turn() // it may have ended, and a child of it have the socket
        const [name, socket] = [this.name, this.socket].map(printable)
        if (!this.exit) return `pod ${name} is ready: process ${this.child.pid}, socket ${socket}`
      }
      if (late) throw this.verdict(`pod did not become ready within ${timeout}s, waiting for ${this.missing()}`)
    }
  }

  // Reads one block of the log, and reports whether there may be more.
  read () {
    // The log may have been truncated, and have grown beyond the old place since: then
    // something else stands before it.
    const n = fs.readSync(this.log.reader, this.buffer, 0, BLOCK, this.offset - this.before.length)
    const block = this.buffer.latin1Slice(0, n)
    if (!block.startsWith(this.before)) {
      Object.assign(this, { offset: 0, before: '', unfinished: '' })
      return true
    }
    const data = this.unfinished + block.slice(this.before.length)
    this.offset += n - this.before.length
    this.before = block.slice(-64)
    let lines = data.split('\n')
    this.unfinished = lines.pop().slice(0, MAX_LINE + 2) // room for a CR, and to see that it was longer
    // Of a flood only the end is wanted. A client that shows progress takes every line.
    if (this.socket || !data.includes(READY)) lines = lines.slice(-8)
    for (const line of lines) this.line(line)
    return n === BLOCK
  }

  line (line) {
    if (line.endsWith('\r') && line.length < MAX_LINE + 2) line = line.slice(0, -1)
    if (!this.socket && line.startsWith(READY)) this.ready(line)
    else this.tail = [...this.tail, line.slice(0, MAX_LINE + 1)].slice(-8)
  }

  ready (line) {
    const [name] = line.slice(READY.length).split('\t').map(bytes)
    const socket = bytes(line.slice(READY.length + name.length + 1)) // it may hold further tabs
    if (name.length === 0 || socket.length === 0 || socket.includes(0) || line.length > MAX_LINE) {
      throw this.verdict(`malformed ready line: ${quoted(bytes(line))}`)
    }
    if (!name.equals(Buffer.from(this.name))) { // the pod of somebody else
      throw this.verdict(`pod became ready under another name: got ${quoted(name)}, want ${quoted(this.name)}`)
    }
    // Relative to where the pod is, which may have changed its directory. A link whose text
    // leads elsewhere ("/x (deleted)", another root) says nothing.
    let directory = Buffer.from(this.workspace)
    try {
      const link = `/proc/${this.child.pid}/cwd`
      const text = fs.readlinkSync(link, 'buffer')
      const [there, said] = [fs.statSync(link), fs.statSync(text)]
      if (there.dev === said.dev && there.ino === said.ino) directory = text
    } catch {}
    this.socket = socket[0] === 0x2f ? socket : Buffer.concat([directory, bytes('/'), socket])
  }

  // Connects once, which is all that a pod must bear. It never waits: Node's sockets do not.
  async connect () {
    let descriptor, connection
    try {
      let address = this.socket.toString()
      // More than a socket address takes, or than a string can hold.
      if (process.platform === 'linux' && (this.socket.length > 107 || !isUtf8(this.socket))) {
        descriptor = fs.openSync(this.socket, O_PATH)
        address = `/proc/self/fd/${descriptor}`
      }
      connection = net.connect(address)
      await once(connection, 'connect')
      return true
    } catch (error) {
      if (!NOT_YET.includes(error.code)) {
        throw this.verdict(`could not connect to pod socket ${printable(this.socket)}: ${printable(error.message)}`)
      }
      this.trouble = error.code
      return false
    } finally {
      connection?.destroy()
      if (descriptor !== undefined) fs.closeSync(descriptor)
    }
  }

  async exited () {
    await this.kill() // what it has left in its group must not go on writing
    const end = fs.fstatSync(this.log.reader).size
    while (this.read() && this.offset < end); // its last words explain the exit
    return this.verdict(`pod exited before becoming ready (${this.exit})`, ': ')
  }

  // Ends the whole group and waits until its leader was reaped.
  async kill () {
    try {
      process.kill(-this.child.pid, 'SIGKILL') // its children, also when it has ended itself
    } catch {} // nobody is left
    this.child.kill('SIGKILL') // it may have left its group; nothing is done if it was reaped
    await Promise.race([this.ended, sleep(5000, null, { ref: false })]) // only a dead disk can hold it up
  }

  missing () {
    if (!this.socket) return 'the ready line'
    const file = fs.statSync(this.socket, { throwIfNoEntry: false })
    const why = {
      ENOENT: 'it does not exist',
      ECONNREFUSED: file && !file.isSocket() ? 'it is not a socket' : 'nobody listens on it',
      EAGAIN: 'its backlog is full, nobody accepts connections'
    }
    return `its socket ${printable(this.socket)} (${why[this.trouble] ?? 'the pod has just ended'})`
  }

  // Returns the failure with its evidence.
  verdict (text, beforeTail = '; last lines: ') {
    if (this.tail.length > 0) text += beforeTail + this.tail.map(line => printable(bytes(line))).join(' | ')
    if (this.unfinished) text += `; unfinished line: ${quoted(bytes(this.unfinished))}`
    return new Failed(`${text}\n\tlog: ${printable(this.log.file)}`)
  }
}

function bytes (latin1) { return Buffer.from(latin1, 'latin1') }

// Returns text so that it cannot rule a terminal: a pod may write anything.
function printable (text) {
  text = text.toString() // invalid UTF-8 in a Buffer becomes U+FFFD
  const escape = c => c === ' ' ? c : c === '\t' ? '\\t' : `\\u{${c.codePointAt(0).toString(16)}}`
  return text.slice(0, 1000).replace(/[\p{C}\p{Z}]/gu, escape) + (text.length > 1000 ? '…' : '')
}

function quoted (text) { return `"${printable(text).replaceAll('"', '\\"')}"` }

// Closes what this process has inherited by mistake: it would go on to the pod, and whoever
// reads such a pipe would hang. Node's own descriptors are all close-on-exec.
function closeInherited () {
  if (process.platform !== 'linux') return // Node itself sees to the first 16
  for (const fd of fs.readdirSync('/proc/self/fdinfo').map(Number)) {
    const info = `/proc/self/fdinfo/${fd}`
    if (fd <= 2 || !fs.existsSync(info)) continue // that of the reading itself is gone
    const flags = parseInt(fs.readFileSync(info, 'latin1').match(/^flags:\s*(\d+)/m)[1], 8)
    if (!(flags & O_CLOEXEC)) fs.closeSync(fd)
  }
}

function readArgs () {
  const flags = ['timeout', 'workspace', 'profile', 'ticket-role', 'session']
  const options = Object.fromEntries(flags.map(flag => [flag, { type: 'string' }]))
  const { values, positionals } = parseArgs({ options, allowPositionals: true })
  const program = process.env.YOI_POD_RUNTIME_COMMAND // a path, never a command line
  const args = { ...values, timeout: Number(values.timeout ?? 20), name: positionals[0], program }
  const refuse = message => { throw new Error(message) }
  if (positionals.length !== 1) refuse('want one pod NAME')
  if (!program) refuse('which pod? Set YOI_POD_RUNTIME_COMMAND to the path of its program')
  if (!(args.timeout > 0 && args.timeout < Infinity)) refuse('--timeout must be a number of seconds above 0')
  if (args.session !== undefined && !UUID.test(args.session)) refuse('--session must be a UUID')
  return args
}

async function main () {
  closeInherited()
  const caught = []
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) process.on(signal, () => caught.push(signal))
  let args
  try {
    args = readArgs()
    fs.writeSync(1, await start(args, caught) + '\n') // console.log hides that it cannot be written
  } catch (error) {
    console.error(`client.js: ${args ? error.message : printable(error.message.split('\n')[0])}`)
    process.exitCode = error.status ?? (args ? 1 : 2)
  }
}

main()
