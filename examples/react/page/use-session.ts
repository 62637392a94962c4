// A Holdfast session for as long as a component is mounted. Copy this file; in a project of your
// own, import from 'holdfast/client'.
//
// An effect may be cleaned up and run again at any time: StrictMode does it at every mount, and a
// hot update for each file that changes. Hence the cleanup is `dispose()`, which leaves the session
// as it is, so that the next effect goes on with it: nothing that was sent runs twice, and nothing
// that comes meanwhile is missed. `close()` is for a person who signs out.

import { useEffect, useRef, useState } from 'react'
import {
  connect, type ClientState, type CommandMap, type EventMap, type EventPayloadOf, type Reason, type Session
} from '../../../src/client/client.js'

export interface Status {
  readonly state: ClientState
  /** Why the session is not live; null while it is, or connects for the first time. */
  readonly reason: Reason | null
  /** When the next attempt is due, by `Date.now`; null if none is. */
  readonly retryAtMs: number | null
}

export interface UseSessionOptions<E extends EventMap> {
  /** Who is signed in. Another user gets a session of his own, and is never offered this one's. */
  readonly user: string
  /** Asked before every attempt to connect, so a token may change at any time. */
  readonly token: () => string | Promise<string>
  /** Called in order, each message once. They may be written inline: the latest ones are called. */
  readonly messages: { readonly [K in keyof E & string]?: (payload: EventPayloadOf<E[K]>) => void }
  /**
   * Loads what the messages keep current from then on. Called when the session is live for the
   * first time after a mount, and wherever messages cannot bring everything: in a new session, and
   * after a gap.
   */
  readonly load: () => void
}

export interface UsedSession<C extends CommandMap> {
  readonly status: Status
  /** Also before the session exists, as in an effect of a child. It never changes. */
  readonly send: Session<C>['send']
  /**
   * Attempts now: instead of waiting, after another sign-in, or in a new session once this one has
   * ended.
   */
  readonly retry: () => void
  /** Signs out. */
  readonly close: () => void
}

const CONNECTING: Status = { state: 'connecting', reason: null, retryAtMs: null }

interface Sender<C extends CommandMap> {
  session: Session<C> | undefined
  begin (session: Session<C>): void
  readonly send: Session<C>['send']
}

/** Holds what is sent before the first effect has made a session. */
function createSender<C extends CommandMap> (): Sender<C> {
  const early: Array<(session: Session<C>) => void> = []
  const later = (args: Parameters<Session<C>['send']>): Promise<unknown> => new Promise((resolve, reject) => {
    early.push(session => { session.send(...args).then(resolve, reject) })
  })
  const sender: Sender<C> = {
    session: undefined,
    begin (session) {
      sender.session = session
      for (const run of early.splice(0)) run(session)
    },
    send: ((...args: Parameters<Session<C>['send']>) =>
      sender.session?.send(...args) ?? later(args)) as Session<C>['send']
  }
  return sender
}

export function useSession<C extends CommandMap, E extends EventMap> (
  url: string, options: UseSessionOptions<E>
): UsedSession<C> {
  const [status, setStatus] = useState(CONNECTING)
  const [sender] = useState(createSender<C>)
  /** Sessions that a person asked for after an end. */
  const [round, setRound] = useState(0)
  const { user } = options

  // What is called later is what the last render gave.
  const latest = useRef(options)
  useEffect(() => { latest.current = options })

  useEffect(() => {
    const session = connect<C, E>(url, {
      token: () => latest.current.token(),
      persistenceKey: `holdfast:${url}#${user}`
    })
    let isMounted = true
    let isStale = true
    const show = (next: Status): void => { if (isMounted) setStatus(next) }

    session.on('connecting', () => show({ ...CONNECTING, state: session.state }))
    session.on('detached', ({ reason, retryInMs }) => {
      show({ state: 'detached', reason, retryAtMs: retryInMs === null ? null : Date.now() + retryInMs })
    })
    session.on('replaced', () => show({ state: 'ended', reason: 'replaced', retryAtMs: null }))
    session.on('ended', ({ reason, renewing }) => { if (!renewing) show({ state: 'ended', reason, retryAtMs: null }) })
    session.on('gap', () => { isStale = true })
    session.on('live', ({ resumed }) => {
      show({ state: 'live', reason: null, retryAtMs: null })
      if (isStale || !resumed) latest.current.load()
      isStale = false
    })
    session.on('message', ({ event, payload }) => {
      latest.current.messages[event]?.(payload as EventPayloadOf<E[string]>)
    })
    sender.begin(session)

    return () => {
      isMounted = false
      session.dispose()
    }
  }, [url, user, round, sender])

  const [actions] = useState(() => ({
    retry: () => {
      if (sender.session?.state === 'ended') setRound(last => last + 1)
      else sender.session?.connect()
    },
    close: () => sender.session?.close()
  }))
  return { status, send: sender.send, ...actions }
}
