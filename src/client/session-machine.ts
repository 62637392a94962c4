// The life of one client's session as a pure machine: a state and an event in, the next state out,
// with what is to be done in its `effects`.
//
// Order: connecting → created, or resumed and its replay → live → … → lost, where the server's
// instruction decides whether and when the next attempt follows. Frames that are not shaped as they
// should be throw, and then the state is what it was. No sockets, timers, clocks or promises here.

import { closeAction } from '../io/protocol/close-codes.js'
import { BAD_FRAME_CODE, DETACH_CODE } from './bounds.js'
import { attempt, created, identify, live, loaded, resumed } from './session-attach.js'
import { detached, drop, end, lost, pause } from './session-loss.js'
import { acknowledge, handled, output, refusal, takeAck } from './session-output.js'
import {
  act, tell, type Context, type Draft, type Events, type GoodbyePayload, type SessionEvent, type SessionPayload,
  type SessionState
} from './session-state.js'

type Transitions = { [K in keyof Events]: (s: Draft, ...args: Parameters<Events[K]>) => void }

const transitions: Transitions = {
  start: attempt,
  connect (s) {
    if (s.phase === 'detached') attempt(s)
  },
  detach (s) {
    if (s.isPaused) return
    s.isPaused = true
    pause(s, 'detached_by_client')
  },
  close (s) {
    // Either would do (P-38); close codes get lost behind proxies, and frames are possible only on
    // an open socket.
    if (s.isAttached) act(s, 'send', '{"type":"end"}')
    act(s, 'close', 1000)
    end(s, 'ended_by_client')
  },
  dispose: s => end(s, 'disposed', false, 'DISPOSED'),
  loaded,
  token (s, subject) {
    if (subject === undefined) return
    if (s.userId === undefined) identify(s, subject, s.subject)
    s.subject = subject
  },
  failed (s, reason, cause) {
    if (reason === 'token_failed') {
      tell(s, 'error', { code: 'TOKEN_FAILED', message: 'There are no credentials.', cause })
      lost(s, { code: DETACH_CODE, reason, action: 'resume_later', message: String(cause) })
    } else {
      tell(s, 'error', { code: 'HANDSHAKE_INVALID', message: 'No WebSocket takes this address or token.', cause })
      end(s, reason)
    }
  },
  frame (s, frame) {
    const { type, seq, payload } = frame
    if (type === 'session_created') created(s, payload as SessionPayload)
    else if (type === 'session_resumed') resumed(s, payload as SessionPayload)
    else if (type === 'live') live(s, true)
    else if (type === 'ping') acknowledge(s)
    else if (type === 'goodbye') {
      const { code, reason, action, retryAfterMs } = payload as GoodbyePayload
      // What comes after it, if anything, is the close (P-42), which may be slow to arrive or never
      // does.
      act(s, 'close', DETACH_CODE)
      lost(s, { code, reason, action: action ?? closeAction(code) }, retryAfterMs)
    } else if (seq !== undefined) output(s, frame, seq)
    else if (type === 'error') refusal(s, frame)
  },
  handled,
  lost: (s, loss) => lost(s, loss),
  transmit (s, heads) {
    act(s, 'save')
    for (const head of heads) act(s, 'send', head + takeAck(s))
  },
  blamed: s => drop(s, 'bad_frame', BAD_FRAME_CODE),
  stateLost (s) {
    s.resumeToken = undefined
    act(s, 'close', 1000)
    lost(s, { code: 1006, reason: 'state_lost', action: 'new' })
  },
  wake (s, isSure) {
    if (s.phase !== 'detached') return act(s, 'probe', isSure)
    if (s.isPaused || s.isOffline) return
    const retryInMs = Math.max(0, s.notBefore - s.now)
    act(s, 'arm', 'retry', retryInMs)
    if (retryInMs > 0 && s.told !== undefined) detached(s, { ...s.told, retryInMs })
  },
  hide (s) {
    act(s, 'release')
    s.isStale = true
    s.isLoading = false
    if (s.isPaused) act(s, 'save')
    else pause(s, 'page_hidden')
  },
  retry: attempt,
  ack: acknowledge
}

export function transition (state: SessionState, [name, ...args]: SessionEvent, context: Context): SessionState {
  const s: Draft = { ...state, ...context, effects: [] }
  if (state.phase !== 'ended') (transitions[name] as (s: Draft, ...args: unknown[]) => void)(s, ...args)
  return s
}
