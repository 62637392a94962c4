// The first frame on a connection: `session_created` or `session_resumed` (P-5, P-27). Printed by
// hand around the part that is the same for every connection: after a deploy thousands are printed
// at once.

import type { Millis, Seq, SessionId, UserId } from '../types.js'
import { REVISION, SUBPROTOCOL } from './frames.js'

export interface GreetingTerms {
  readonly idleTimeoutMs: Millis
  readonly resumeWindowMs: Millis
  readonly heartbeatMs: Millis
  readonly maxMessageBytes: number
  readonly commandsPerSecond: number
  readonly maxInFlight: number
}

/** What the client is told of its session. */
export interface GreetedSession {
  readonly id: SessionId
  readonly userId: UserId
  readonly profile: 'basic' | 'full'
  readonly maxOutputBytes: number
}

export interface Resumption {
  readonly lastCommand: number
  readonly replay: { readonly from: Seq, readonly to: Seq } | null
  readonly gap: { readonly from: Seq, readonly to: Seq } | null
}

export interface Greeting {
  created(session: GreetedSession, resumeToken: string | null, previous: object | undefined): string
  resumed(session: GreetedSession, resumeToken: string | null, resumption: Resumption): string
}

export function createGreeting (terms: GreetingTerms): Greeting {
  const { idleTimeoutMs, resumeWindowMs, heartbeatMs, maxMessageBytes, commandsPerSecond, maxInFlight } = terms
  const common = `"revision":"${REVISION}","idleTimeoutMs":${idleTimeoutMs},"heartbeatMs":${heartbeatMs},` +
    `"limits":{"maxMessageBytes":${maxMessageBytes},"commandsPerSecond":${commandsPerSecond},` +
    `"maxInFlight":${maxInFlight},"maxOutputBytes":`

  function members ({ id, userId, profile, maxOutputBytes }: GreetedSession, resumeToken: string | null): string {
    const isFull = profile === 'full'
    const token = resumeToken === null ? 'null' : `"${resumeToken}"`
    return `"sessionId":${JSON.stringify(
      id
    )},"userId":${JSON.stringify(userId)},"protocol":"${isFull ? SUBPROTOCOL : 'basic'}",` +
      (isFull ? `"resumeToken":${token},"resumeWindowMs":${resumeWindowMs},` : '') +
      common + `${maxOutputBytes}}`
  }

  return {
    created (session, resumeToken, previous) {
      const former = previous === undefined ? '' : `,"previous":${JSON.stringify(previous)}`
      return `{"type":"session_created","payload":{${members(session, resumeToken)}${former}}}`
    },

    resumed (session, resumeToken, { lastCommand, replay, gap }) {
      return `{"type":"session_resumed","payload":{${members(session, resumeToken)},` +
        `"lastCommand":${lastCommand},"replay":${JSON.stringify(replay)},"gap":${JSON.stringify(gap)}}}`
    }
  }
}
