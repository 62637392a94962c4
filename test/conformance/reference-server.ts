// A second server, written from docs/protocol.md alone: it holds the kit to the protocol rather
// than to one implementation. It is small, keeps everything in memory, checks its clocks by
// sweeping, and has a flag for each mutant, which breaks one rule. It is no example of how to build
// a server: it does not drain, bound its memory, or check origins.

import { createHash, createHmac, randomBytes, randomUUID } from 'node:crypto'
import { createServer, type IncomingMessage } from 'node:http'
import type { AddressInfo } from 'node:net'
import type { Duplex } from 'node:stream'
import { WebSocket, WebSocketServer } from 'ws'
import { readClientFrame, readId, type ClientFrame } from './reference-frames.js'

export type Mutant =
  | 'agrees to compression' | 'selects the first entry' | 'reads tokens from the URL'
  | 'sends a frame before the first' | 'takes unknown members'
  | 'rounds numbers' | 'reads any number of members' | 'ignores binary'
  | 'takes any sessionId' | 'answers twice' | 'executes duplicates' | 'takes gaps' | 'remembers string ids'
  | 'moves the watermark on a refusal'
  | 'runs one at a time' | 'skips a seq on resume' | 'ignores acks' | 'ignores acks of the future'
  | 'drops while detached' | 'holds in basic'
  | 'drops unwritten output' | 'keeps the token' | 'takes old tokens for ever' | 'kills the old token at once'
  | 'resumes for anyone' | 'live before replay'
  | 'forgets the watermark' | 'forgets the gap' | 'counts the gap wrong' | 'tells strangers'
  | 'resumes from the future' | 'leaves both' | 'basic close keeps'
  | 'terminates at 1001' | 'detaches at 1000' | 'heartbeats are activity' | 'says no goodbye' | 'never pings'
  | 'tolerates bad frames' | 'resumes after the window'
  | 'counts whole messages only' | 'sends no pings between outputs' | 'asks only when it is silent itself'
  | 'sends what breaks the line for ever' | 'ends attached sessions' | 'is full for ever'
  | 'sends what is refused for ever' | 'locks its users out' | 'hides which command was bad'
  | 'sends outputs of any size' | 'measures characters' | 'replays outputs of any size' | 'never says pong'
  | 'refuses without a word'
  | 'runs serial commands beside others' | 'keeps what nobody may know of' | 'leaves out who takes less'
  | 'calls the forbidden strangers'
  | 'calls an outage a refusal'

export interface ReferenceOptions {
  idleTimeoutMs?: number
  heartbeatMs?: number
  resumeWindowMs?: number
  maxMessageBytes?: number
  commandsPerSecond?: number
  maxInFlight?: number
  outboxMessages?: number
  outboxBytes?: number
  maxSessions?: number
  maxSessionsPerUser?: number
  jwtSecret?: string
  coreUrl?: string
  commandTimeoutMs?: number
  /** A command that runs alone (P-18). */
  serialCommand?: string
  /** May not connect, whatever his token says. */
  forbiddenUser?: string
  /** A token that cannot be checked now. */
  uncheckedToken?: string
  mutant?: Mutant
}

interface Output { seq: number, text: string, bytes: number, id: number | string | undefined }

interface Session {
  id: string
  userId: string
  full: boolean
  maxOutputBytes: number
  tokens: Set<string>
  lastSeq: number
  ackedSeq: number
  /** Highest seq dropped by the bound of the outbox. */
  droppedSeq: number
  /**
   * What ends of connections count for against the oldest output, without an ack between them
   * (P-51).
   */
  strikes: number
  outbox: Output[]
  outboxBytes: number
  watermark: number
  running: Set<number>
  /** Answers of the core that are waited for, and of them the last one of a serial command. */
  asked: Set<Promise<void>>
  serial: Promise<void>
  /** A sign that the client knows of the session (P-36b). */
  isKnown: boolean
  inFlight: number
  connection: Connection | undefined
  activeAt: number
  detachedAt: number
}

interface Connection {
  socket: WebSocket
  session: Session
  /** Highest seq written to this socket. */
  writtenSeq: number
  replayTo: number | undefined
  malformed: number
  refusals: number
  budget: number
  budgetAt: number
  heardAt: number
  askedAt: number
  sentAt: number
  unprobedBytes: number
  expiresAt: number
  token: string | undefined
  presented: string | undefined
  closing: boolean
}

export interface ReferenceServer { url: string, admin: string, close(): Promise<void> }

const ACTIONS: Record<number, string> = { 40: 'stop', 41: 'resume_later', 42: 'resume', 43: 'new', 44: 'stop' }
const UNKNOWN_MS = 30_000
const HIGH_WATER_BYTES = 256 * 1024
async function readText (request: IncomingMessage): Promise<string> {
  let text = ''
  for await (const more of request.setEncoding('utf8')) text += more
  return text
}
const hash = (token: string) => createHash('sha256').update(token).digest('hex')

export async function startReferenceServer (given: ReferenceOptions = {}): Promise<ReferenceServer> {
  const options = {
    idleTimeoutMs: 3_600_000,
    heartbeatMs: 25_000,
    resumeWindowMs: 3_600_000,
    maxMessageBytes: 65_536,
    commandsPerSecond: 200,
    maxInFlight: 32,
    outboxMessages: 1000,
    outboxBytes: 1_048_576,
    commandTimeoutMs: 30_000,
    maxSessions: 10_000,
    maxSessionsPerUser: 64,
    serialCommand: undefined,
    forbiddenUser: undefined,
    uncheckedToken: undefined,
    ...given
  }
  const is = (mutant: Mutant) => options.mutant === mutant
  const sessions = new Map<string, Session>()
  const tombstones = new Map<string, { reason: string, session: Session }>()
  const connections = new Set<Connection>()

  // Output

  function isTooLarge (session: Session, text: string): boolean {
    return !is('sends outputs of any size') &&
      (is('measures characters') ? text.length : Buffer.byteLength(text)) > session.maxOutputBytes
  }
  function append (session: Session, frame: Record<string, unknown>, id?: number | string, isForMany = false): number {
    session.isKnown = true
    const seq = session.lastSeq + 1
    let text = JSON.stringify({ type: frame['type'], seq, ...frame })
    if (isTooLarge(session, text)) {
      if (frame['type'] === 'message' && !isForMany) return 0
      if (frame['type'] === 'message' && is('leaves out who takes less')) return 0
      text = JSON.stringify(frame['type'] === 'message'
        ? { type: 'gap', seq, payload: { reason: 'too_large' } }
        : { type: 'error', seq, code: 'RESULT_TOO_LARGE', payload: 'Too large.', id })
    }
    session.lastSeq = seq
    session.outbox.push({ seq, text, bytes: Buffer.byteLength(text), id })
    session.outboxBytes += Buffer.byteLength(text)
    session.activeAt = performance.now()
    pump(session)
    while (session.outbox.length > options.outboxMessages || session.outboxBytes > options.outboxBytes ||
        (is('drops while detached') && session.connection === undefined && session.outbox.length > 0)) {
      const oldest = session.outbox[0]!
      const { connection } = session
      if (connection !== undefined && oldest.seq > connection.writtenSeq) {
        if (is('drops unwritten output')) connection.writtenSeq = oldest.seq
        else end(connection, 4101, 'slow_consumer')
      }
      session.outbox.shift()
      session.outboxBytes -= oldest.bytes
      session.droppedSeq = oldest.seq
    }
    return seq
  }
  function pump (session: Session): void {
    const { connection } = session
    if (connection === undefined || connection.closing) return
    const first = session.outbox.findIndex(({ seq }) => seq > connection.writtenSeq)
    for (let at = first; at >= 0 && at < session.outbox.length &&
        connection.socket.bufferedAmount < HIGH_WATER_BYTES; at++) {
      const output = session.outbox[at]!
      connection.sentAt = performance.now()
      connection.writtenSeq = output.seq
      const fragments = output.text.match(/[^]{1,8000}/g)!
      for (const [n, part] of fragments.entries()) {
        const isLast = n === fragments.length - 1
        connection.socket.send(part, { fin: isLast }, isLast ? () => pump(session) : undefined)
        connection.unprobedBytes += part.length
        if (connection.unprobedBytes < 8000 || is('sends no pings between outputs')) continue
        connection.unprobedBytes = 0
        connection.socket.ping()
      }
      if (connection.replayTo !== undefined && output.seq >= connection.replayTo) goLive(connection)
    }
    if (!session.full && !is('holds in basic')) release(session, connection.writtenSeq)
  }
  function goLive (connection: Connection): void {
    connection.replayTo = undefined
    if (!is('live before replay')) tell(connection, { type: 'live' })
  }
  function release (session: Session, seq: number): void {
    while (session.outbox[0] !== undefined && session.outbox[0].seq <= seq) {
      session.outboxBytes -= session.outbox.shift()!.bytes
    }
    if (seq > session.ackedSeq) session.strikes = 0
    session.ackedSeq = Math.max(session.ackedSeq, seq)
  }
  function tell (connection: Connection, frame: object): void {
    connection.sentAt = performance.now()
    if (!connection.closing) connection.socket.send(JSON.stringify(frame))
  }

  // Endings

  function end (connection: Connection, code: number, reason: string): void {
    if (connection.closing) return
    const action = ACTIONS[Math.floor(code / 100)]
    if (!is('says no goodbye')) tell(connection, { type: 'goodbye', payload: { code, reason, action } })
    connection.closing = true
    connection.socket.close(code, reason)
    setTimeout(() => connection.socket.terminate(), 5000).unref()
    gone(connection, code, reason)
  }
  /**
   * The connection no longer speaks for its session; what becomes of that depends on how it ended.
   */
  function gone (connection: Connection, code: number, reason: string): void {
    const { session } = connection
    connection.closing = true
    connections.delete(connection)
    if (session.connection !== connection) return
    session.connection = undefined
    session.detachedAt = performance.now()
    const suspect = session.outbox[0]
    const isRefusal = [1009, 1007, 1003, 1002].includes(code) && !is('sends what is refused for ever')
    const isLoss = code === 1006 && (suspect?.bytes ?? 0) >= 16_384 && !is('sends what breaks the line for ever')
    const isSuspect = suspect !== undefined && suspect.seq <= connection.writtenSeq
    if (isSuspect) session.strikes += isRefusal ? 3 : isLoss ? 1 : 0
    if (isSuspect && session.strikes >= 9) {
      session.strikes = 0
      session.outbox.shift()
      session.outboxBytes -= suspect.bytes
      session.droppedSeq = suspect.seq
    }
    if (!sessions.has(session.id) || code === 4003) return
    const byClient = (code === 1000 && !is('detaches at 1000')) || code === 1005 || code === 4000 ||
      (code === 1001 && is('terminates at 1001'))
    if (!session.full) {
      if (!is('basic close keeps')) bury(session, 'disconnected')
    } else if (byClient) {
      bury(session, 'ended_by_client')
    } else if (reason === 'idle' || options.resumeWindowMs === 0) {
      bury(session, 'idle')
    }
  }
  function keptForMs ({ isKnown }: Session): number {
    return isKnown || is('keeps what nobody may know of')
      ? options.resumeWindowMs
      : Math.min(options.resumeWindowMs, UNKNOWN_MS)
  }
  function bury (session: Session, reason: string): void {
    sessions.delete(session.id)
    tombstones.set(session.id, { reason, session })
  }

  // Commands

  function onCommand (connection: Connection, frame: Extract<ClientFrame, { kind: 'command' }>): void {
    const { session } = connection
    const { id } = frame
    const refuse = (code: string, more: object = {}) => tell(connection, {
      type: 'error',
      code,
      payload: 'Refused.',
      ...(id === undefined ? {} : { id }),
      ...more
    })
    if (typeof id === 'number' && id <= session.watermark && !is('executes duplicates')) {
      const held = session.outbox.find((output) => output.id === id)
      if (held !== undefined && held.seq <= connection.writtenSeq) connection.socket.send(held.text)
      else if (held === undefined && !session.running.has(id)) refuse('RESULT_EXPIRED')
      return
    }
    const now = performance.now()
    connection.budget = Math.min(
      options.commandsPerSecond, connection.budget + (now - connection.budgetAt) * options.commandsPerSecond / 1000
    )
    connection.budgetAt = now
    if (typeof id === 'number' && id > session.watermark + 1 && !is('takes gaps')) {
      if (is('moves the watermark on a refusal')) session.watermark++
      return refuse('COMMAND_GAP', { expected: session.watermark + 1 })
    }
    if (connection.budget < 1) {
      if (++connection.refusals > 100) return end(connection, 4102, 'rate_limited')
      return refuse('RATE_LIMITED', { retryAfterMs: Math.ceil(1000 / options.commandsPerSecond) })
    }
    if (session.inFlight >= options.maxInFlight) return refuse('TOO_MANY_IN_FLIGHT', { retryAfterMs: 50 })
    connection.budget--
    connection.refusals = 0
    session.activeAt = now
    if (typeof id === 'number') {
      session.watermark = Math.max(session.watermark, id)
      session.running.add(id)
    }
    if (typeof id === 'string' && is('remembers string ids')) {
      const held = session.outbox.find((output) => output.id === id)
      if (held !== undefined) return connection.socket.send(held.text)
    }
    session.inFlight++
    execute(session, frame)
  }
  let turn = Promise.resolve()
  function execute (session: Session, { command, payload, id }: Extract<ClientFrame, { kind: 'command' }>): void {
    let answered = false
    const answer = (frame: Record<string, unknown>) => {
      if (answered && !is('answers twice')) return
      answered = true
      session.inFlight--
      if (typeof id === 'number') session.running.delete(id)
      append(session, { ...frame, ...(id === undefined ? {} : { id }) }, id)
      if (is('answers twice') && typeof id === 'number' && frame['type'] === 'result') {
        append(session, { ...frame, id }, id)
      }
    }
    if (options.coreUrl !== undefined) {
      const timer = setTimeout(
        () => answer({ type: 'error', code: 'COMMAND_TIMEOUT', payload: 'Late.' }),
        options.commandTimeoutMs
      )
      const ask = async () => {
        const frame = await askCore(session, command, payload, id)
        clearTimeout(timer)
        answer(frame)
      }
      if (is('runs one at a time')) turn = turn.then(ask)
      else askInTurn(session, command === options.serialCommand && !is('runs serial commands beside others'), ask)
    } else if (command === 'echo') answer({ type: 'result', payload })
    else if (command === 'context.set' && (typeof payload !== 'object' || payload === null)) {
      answer({ type: 'error', code: 'INVALID_PAYLOAD', payload: 'No object.' })
    } else if (['ping', 'context.get', 'context.set'].includes(command)) answer({ type: 'result', payload: null })
    else answer({ type: 'error', code: 'UNKNOWN_COMMAND', payload: 'No such command.' })
  }
  function askInTurn (session: Session, isSerial: boolean, ask: () => Promise<void>): void {
    const earlier: Promise<unknown> = isSerial ? Promise.all([...session.asked]) : session.serial
    const asked = earlier.then(ask)
    session.asked.add(asked)
    void asked.then(() => session.asked.delete(asked))
    if (isSerial) session.serial = asked
  }
  async function askCore (
    session: Session, command: string, payload: unknown, id: number | string | undefined
  ): Promise<Record<string, unknown>> {
    try {
      const text = JSON.stringify({
        type: 'session.command',
        timestamp: new Date().toISOString(),
        data: { session: { id: session.id }, id, command, payload }
      })
      const key = `${session.id}.${typeof id === 'number' ? id : randomUUID()}`
      const post = () => fetch(options.coreUrl!, {
        method: 'POST',
        redirect: 'manual',
        headers: { 'content-type': 'application/json', 'webhook-id': key },
        body: text
      })
      let response = await post()
      while (response.status === 503 && response.headers.has('retry-after')) response = await post()
      if (response.status >= 500 || (response.status >= 300 && response.status < 400)) {
        return { type: 'error', code: 'OUTCOME_UNKNOWN', payload: 'The core failed.' }
      }
      const told = await response.text()
      const body: any = told === '' ? {} : JSON.parse(told)
      if (response.status >= 400) return { type: 'error', code: body.code, payload: body.message }
      for (const { event, payload } of body.messages ?? []) append(session, { type: 'message', event, payload })
      return { type: 'result', payload: body.payload ?? null }
    } catch {
      return { type: 'error', code: 'OUTCOME_UNKNOWN', payload: 'The core is gone.' }
    }
  }

  // Frames

  function onMessage (connection: Connection, data: Buffer, binary: boolean): void {
    if (connection.closing) return
    const { session } = connection
    connection.heardAt = performance.now()
    session.isKnown = true
    if (connection.token !== undefined) {
      // The first frame on the new connection settles that the new token arrived (P-28).
      if (!is('takes old tokens for ever')) session.tokens = new Set([hash(connection.token)])
      connection.token = undefined
    }
    if (is('heartbeats are activity')) session.activeAt = performance.now()
    if (binary && is('ignores binary')) return
    const text = data.toString()
    const frame = binary
      ? undefined
      : readClientFrame(text, {
        lenient: is('takes unknown members'), rounds: is('rounds numbers'), counts: !is('reads any number of members')
      })
    if (frame === undefined) {
      if (++connection.malformed > 10 && !is('tolerates bad frames')) return end(connection, 4400, 'bad_frame')
      return tell(connection, {
        type: 'error',
        code: 'BAD_FRAME',
        payload: 'Not a client frame.',
        ...(is('hides which command was bad') ? {} : { id: readId(text) })
      })
    }
    const named = frame.sessionId ?? (session.full ? session.id : undefined)
    if (named !== session.id && !is('takes any sessionId')) {
      tell(connection, { type: 'error', code: 'SESSION_INVALID', payload: 'Invalid or expired session.' })
      return end(connection, 4409, 'session_invalid')
    }
    if (frame.ack !== undefined && session.full && !is('ignores acks')) {
      if (frame.ack > session.lastSeq && !is('ignores acks of the future')) {
        tell(connection, { type: 'error', code: 'BAD_ACK', payload: 'An ack of the future.' })
        return end(connection, 4400, 'bad_frame')
      }
      release(session, Math.min(frame.ack, session.lastSeq))
    }
    if (frame.kind === 'command') onCommand(connection, frame)
    if (frame.kind === 'end') end(connection, 4000, 'ended_by_client')
    if (frame.kind === 'ping' && !is('never says pong')) tell(connection, { type: 'pong' })
  }

  // Attach

  function describe (session: Session): Record<string, unknown> {
    const limits = {
      maxMessageBytes: options.maxMessageBytes,
      commandsPerSecond: options.commandsPerSecond,
      maxInFlight: options.maxInFlight,
      maxOutputBytes: session.maxOutputBytes
    }
    const told = {
      sessionId: session.id,
      userId: session.userId,
      protocol: session.full ? 'holdfast.v1' : 'basic',
      revision: '1.1',
      idleTimeoutMs: options.idleTimeoutMs,
      heartbeatMs: options.heartbeatMs,
      limits
    }
    return session.full ? { ...told, resumeWindowMs: options.resumeWindowMs } : told
  }
  function issueToken (session: Session, presented: string | undefined): string | undefined {
    if (!session.full || options.resumeWindowMs === 0) return undefined
    const token = is('keeps the token') && presented !== undefined ? presented : randomBytes(32).toString('base64url')
    if (is('kills the old token at once')) session.tokens.clear()
    session.tokens.add(hash(token))
    return token
  }
  function attach (
    socket: WebSocket, stream: Duplex, session: Session, expiresAt: number, presented: string | undefined
  ): Connection {
    const now = performance.now()
    const connection: Connection = {
      socket,
      session,
      writtenSeq: 0,
      replayTo: undefined,
      malformed: 0,
      refusals: 0,
      budget: options.commandsPerSecond,
      budgetAt: now,
      heardAt: now,
      askedAt: now,
      sentAt: now,
      unprobedBytes: 0,
      expiresAt,
      token: issueToken(session, presented),
      presented,
      closing: false
    }
    connections.add(connection)
    const older = session.connection
    session.connection = connection
    if (older !== undefined && !is('leaves both')) end(older, 4003, 'replaced')
    socket.on('message', (data: Buffer, binary) => onMessage(connection, data, binary))
    if (!is('counts whole messages only')) stream.on('data', () => { connection.heardAt = performance.now() })
    socket.on('error', () => {})
    socket.on('close', (code) => { if (!connection.closing) gone(connection, code, '') })
    return connection
  }
  function create (
    socket: WebSocket,
    stream: Duplex,
    userId: string,
    full: boolean,
    expiresAt: number,
    maxOutputBytes: number,
    previous?: object
  ): void {
    const now = performance.now()
    const session: Session = {
      id: randomUUID(),
      userId,
      full,
      maxOutputBytes,
      tokens: new Set(),
      lastSeq: 0,
      ackedSeq: 0,
      droppedSeq: 0,
      strikes: 0,
      outbox: [],
      outboxBytes: 0,
      watermark: 0,
      running: new Set(),
      asked: new Set(),
      serial: Promise.resolve(),
      isKnown: false,
      inFlight: 0,
      connection: undefined,
      activeAt: now,
      detachedAt: now
    }
    sessions.set(session.id, session)
    const connection = attach(socket, stream, session, expiresAt, undefined)
    if (is('sends a frame before the first')) tell(connection, { type: 'ping' })
    tell(connection, {
      type: 'session_created',
      payload: { ...describe(session), resumeToken: connection.token, previous }
    })
  }
  function resume (
    socket: WebSocket, stream: Duplex, userId: string, entry: string, expiresAt: number, maxOutputBytes: number
  ): void {
    const [id = '', token = '', last = '', ...more] = entry.split('.')
    const lastSeq = /^\d{1,16}$/.test(last) && more.length === 0 ? Number(last) : Number.NaN
    const session = sessions.get(id) ?? tombstones.get(id)?.session
    const known = session !== undefined && Number.isSafeInteger(lastSeq) && session.tokens.has(hash(token)) &&
      (session.userId === userId || is('resumes for anyone'))
    const refuse = (reason: string, lastCommand?: number) => create(
      socket, stream, userId, true, expiresAt, maxOutputBytes, { sessionId: id, reason, lastCommand }
    )
    if (!known) return refuse(is('tells strangers') && tombstones.has(id) ? tombstones.get(id)!.reason : 'unknown')
    const tombstone = tombstones.get(id)
    if (tombstone !== undefined && !is('resumes after the window')) return refuse(tombstone.reason, session.watermark)
    if (lastSeq > session.lastSeq && !is('resumes from the future')) {
      bury(session, 'state_lost')
      if (session.connection !== undefined) end(session.connection, 4302, 'state_lost')
      return refuse('state_lost', session.watermark)
    }
    sessions.set(id, session)
    release(session, lastSeq)
    session.maxOutputBytes = maxOutputBytes
    for (const output of is('replays outputs of any size') ? [] : session.outbox) {
      if (!isTooLarge(session, output.text)) continue
      const { seq, id } = output
      output.text = JSON.stringify(
        id === undefined
          ? { type: 'gap', seq, payload: { reason: 'too_large' } }
          : { type: 'error', seq, code: 'RESULT_TOO_LARGE', payload: 'Too large.', id }
      )
    }
    if (is('skips a seq on resume')) session.lastSeq++
    const connection = attach(socket, stream, session, expiresAt, token)
    const first = session.outbox[0]
    const gap = session.droppedSeq > lastSeq
      ? { from: lastSeq + 1, to: session.droppedSeq - (is('counts the gap wrong') ? 1 : 0) }
      : null
    const replay = first === undefined ? null : { from: first.seq, to: session.outbox.at(-1)!.seq }
    connection.writtenSeq = Math.max(lastSeq, session.droppedSeq)
    connection.replayTo = replay?.to
    tell(connection, {
      type: 'session_resumed',
      payload: { ...describe(session), resumeToken: connection.token },
      lastCommand: is('forgets the watermark') ? 0 : session.watermark,
      replay,
      gap: is('forgets the gap') ? null : gap
    })
    if (is('live before replay')) tell(connection, { type: 'live' })
    if (replay === null) goLive(connection)
    pump(session)
  }

  // HTTP

  function authenticate (
    request: IncomingMessage, entries: string[]
  ): { userId: string, expiresAt: number } | undefined {
    if (options.jwtSecret === undefined) return { userId: 'human_reviewer_1', expiresAt: Number.POSITIVE_INFINITY }
    const fromUrl = is('reads tokens from the URL')
      ? new URL(request.url!, 'http://x').searchParams.get('token') ?? undefined
      : undefined
    const encoded = entries.find((entry) => entry.startsWith('auth64.'))?.slice(7)
    const fromEntry = encoded === undefined ? undefined : Buffer.from(encoded, 'base64url').toString()
    const token = /^Bearer (.+)$/.exec(request.headers.authorization ?? '')?.[1] ??
      entries.find((entry) => entry.startsWith('auth.'))?.slice(5) ?? fromEntry ?? fromUrl
    const [head, body, mac] = (token ?? '').split('.')
    if (mac === undefined ||
        createHmac('sha256', options.jwtSecret).update(`${head}.${body}`).digest('base64url') !== mac) {
      return undefined
    }
    const { sub, exp } = JSON.parse(Buffer.from(body!, 'base64url').toString())
    const leftMs = exp * 1000 - Date.now()
    return leftMs <= 0 ? undefined : { userId: sub, expiresAt: performance.now() + leftMs }
  }
  const http = createServer((request, response) => {
    const answer = (status: number, body: object) => response.writeHead(status, { 'content-type': 'application/json' })
      .end(JSON.stringify(body))
    const [, root, id = '', part] = new URL(request.url!, 'http://x').pathname.split('/')
    if (root === 'ws') return answer(426, refusal(426, 'UPGRADE_REQUIRED'))
    if (root === 'users') {
      return void readText(request).then((text) => {
        for (const session of sessions.values()) {
          if (session.userId === id) append(session, { type: 'message', ...JSON.parse(text) }, undefined, true)
        }
        answer(202, {})
      })
    }
    const session = sessions.get(id)
    if (session === undefined) return answer(tombstones.has(id) ? 410 : 404, {})
    if (request.method === 'GET') {
      return answer(200, {
        id,
        state: session.connection === undefined ? 'detached' : 'active',
        lastSeq: session.lastSeq,
        outboxMessages: session.outbox.length
      })
    }
    if (request.method === 'DELETE' && part === 'connection') {
      if (session.connection !== undefined) end(session.connection, 4203, 'detached_by_operator')
      return response.writeHead(204).end()
    }
    if (request.method === 'DELETE') {
      bury(session, 'ended_by_operator')
      if (session.connection !== undefined) end(session.connection, 4001, 'ended_by_operator')
      return response.writeHead(204).end()
    }
    void readText(request).then((text) => {
      const seq = append(session, { type: 'message', ...JSON.parse(text) })
      answer(seq === 0 ? 413 : 202, { seq })
    })
  })
  const refusal = (statusCode: number, code: string) => ({ statusCode, code, error: code, message: 'Refused.' })
  function refuse (socket: Duplex, status: number, code: string): void {
    const body = JSON.stringify(refusal(status, code))
    socket.end(
      `HTTP/1.1 ${status} Refused\r\nContent-Type: application/json\r\nContent-Length: ` +
        `${body.length}\r\nRetry-After: ${Math.ceil(options.heartbeatMs / 1000) + 10}\r\nConnection: ` +
        `close\r\n\r\n${body}`
    )
  }
  const upgrades = new WebSocketServer({
    noServer: true,
    maxPayload: options.maxMessageBytes,
    perMessageDeflate: is('agrees to compression'),
    handleProtocols: (offered) => is('selects the first entry') ? [...offered][0]! : 'holdfast.v1'
  })
  http.on('upgrade', (request, socket, head) => {
    const { headers, rawHeaders } = request
    const offered = (headers['sec-websocket-protocol'] ?? '')
      .split(',')
      .map((entry) => entry.trim())
      .filter((entry) => entry !== '')
    const full = offered.includes('holdfast.v1')
    const hosts = rawHeaders.filter((name, n) => n % 2 === 0 && name.toLowerCase() === 'host').length
    const wellFormed = request.method === 'GET' && request.httpVersion === '1.1' && hosts === 1 &&
      headers['content-length'] === undefined && /^[A-Za-z0-9+/]{22}==$/.test(headers['sec-websocket-key'] ?? '')
    if (!wellFormed) return refuse(socket, 400, 'BAD_HANDSHAKE')
    const isList = offered.length <= 8 && new Set(offered).size === offered.length
    if (offered.length > 0 && (!full || !isList)) return refuse(socket, 400, 'SUBPROTOCOL_UNSUPPORTED')
    const who = authenticate(request, offered)
    const deny = (status: number, code: string, close: number, reason: string, more: object = {}) => {
      if (!offered.includes('refuse.goodbye') || is('refuses without a word')) return refuse(socket, status, code)
      upgrades.handleUpgrade(request, socket, head, (client) => {
        client.send(JSON.stringify({
          type: 'goodbye',
          payload: { code: close, reason, action: ACTIONS[Math.floor(close / 100)], ...more }
        }))
        client.close(close, reason)
      })
    }
    const isUnchecked = options.uncheckedToken !== undefined &&
      headers.authorization === `Bearer ${options.uncheckedToken}`
    if (isUnchecked && !is('calls an outage a refusal')) {
      return deny(503, 'AUTH_UNAVAILABLE', 4105, 'auth_unavailable', { retryAfterMs: 1000 })
    }
    if (who === undefined) return deny(401, 'UNAUTHENTICATED', 4401, 'unauthenticated')
    if (who.userId === options.forbiddenUser) {
      return is('calls the forbidden strangers')
        ? deny(401, 'UNAUTHENTICATED', 4401, 'unauthenticated')
        : deny(403, 'FORBIDDEN', 4403, 'forbidden')
    }
    const isResume = offered.some((one) => one.startsWith('resume.'))
    const givesWay = (candidates: Session[]) => is('ends attached sessions')
      ? candidates[0]
      : candidates.filter(({ connection }) => connection === undefined).sort((a, b) => a.detachedAt - b.detachedAt)[0]
    const own = [...sessions.values()].filter((session) => session.userId === who.userId)
    const wait = { retryAfterMs: options.heartbeatMs + 10_000 }
    if (options.jwtSecret !== undefined && !isResume && own.length >= options.maxSessionsPerUser) {
      const oldest = givesWay(own)
      if (oldest === undefined || is('locks its users out')) return deny(429, 'USER_QUOTA', 4429, 'quota', wait)
      bury(oldest, 'quota')
    } else if (!isResume && sessions.size >= options.maxSessions) {
      const oldest = givesWay(own) ?? givesWay([...sessions.values()])
      if (oldest === undefined || is('is full for ever')) return deny(503, 'SERVER_FULL', 4104, 'overloaded', wait)
      bury(oldest, 'overloaded')
      if (oldest.connection !== undefined) end(oldest.connection, 4104, 'overloaded')
    }
    const wish = offered.find((one) => /^output\.\d{1,15}$/.test(one))?.slice(7)
    const maxOutputBytes = Math.min(options.outboxBytes, Math.max(1024, Number(wish ?? options.outboxBytes)))
    const entry = offered.find((one) => one.startsWith('resume.'))?.slice(7)
    upgrades.handleUpgrade(request, socket, head, (client) => {
      if (full && entry !== undefined) resume(client, socket, who.userId, entry, who.expiresAt, maxOutputBytes)
      else create(client, socket, who.userId, full, who.expiresAt, maxOutputBytes)
    })
  })
  const sweep = setInterval(() => {
    const now = performance.now()
    for (const connection of connections) {
      if (now > connection.expiresAt) end(connection, 4202, 'credentials_expired')
      else if (now - connection.heardAt > options.heartbeatMs + 10_000) end(connection, 4103, 'heartbeat_missed')
      else if ((now - connection.sentAt > options.heartbeatMs * 0.8 ||
          (!is('asks only when it is silent itself') &&
              now - Math.max(connection.heardAt, connection.askedAt) > options.heartbeatMs * 0.8)) &&
              !is('never pings')) {
        connection.askedAt = now
        if (connection.session.full) tell(connection, { type: 'ping' })
        else connection.socket.ping()
        connection.sentAt = now
      }
    }
    for (const session of [...sessions.values()]) {
      if (now - session.activeAt > options.idleTimeoutMs) {
        bury(session, 'idle')
        if (session.connection !== undefined) end(session.connection, 4300, 'idle')
      } else if (session.connection === undefined && session.full && now - session.detachedAt > keptForMs(session)) {
        bury(session, 'resume_window')
      }
    }
  }, 50)
  await new Promise<void>((resolve) => http.listen(0, '127.0.0.1', resolve))
  const { port } = http.address() as AddressInfo
  return {
    url: `ws://127.0.0.1:${port}/ws`,
    admin: `http://127.0.0.1:${port}`,
    close () {
      clearInterval(sweep)
      for (const client of upgrades.clients) client.terminate()
      http.closeAllConnections()
      return new Promise((resolve) => http.close(() => resolve()))
    }
  }
}
