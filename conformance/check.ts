// What a check is, and the rules of docs/protocol.md by their numbers with the words that a report
// names them by.

import type { Scope } from './kit.js'
import type { Profile } from './peer.js'

export interface Check {
  readonly rule: string
  /** What the server does if the rule holds; present tense, no subject. */
  readonly title: string
  readonly profiles: readonly Profile[]
  /** Runs after all others, alone. */
  readonly last: boolean
  /** Takes seconds by its nature and is started first. */
  readonly slow: boolean
  run(scope: Scope): Promise<void>
}

export interface CheckOptions {
  last?: boolean
  slow?: boolean
}

export const FULL: readonly Profile[] = ['full']
export const BASIC: readonly Profile[] = ['basic']
export const BOTH: readonly Profile[] = ['basic', 'full']

export function check (
  rule: string, title: string, profiles: readonly Profile[], run: Check['run'], options: CheckOptions = {}
): Check {
  return { rule, title, profiles, run, last: options.last ?? false, slow: options.slow ?? false }
}

export const RULES: Readonly<Record<string, string>> = {
  'P-1': 'one JSON object in each text message, no extension',
  'P-2': 'the subprotocol offered decides the profile',
  'P-3': 'credentials in the header or the auth entry, never in the URL',
  'P-4': 'refusals are HTTP answers before the upgrade',
  'P-5': 'the server speaks first',
  'P-6': 'a malformed frame is answered BAD_FRAME and has no other effect',
  'P-7': 'a binary message is a malformed frame',
  'P-8': 'too large, broken UTF-8, broken framing close with 1009, 1007, 1002',
  'P-9': 'a sessionId that is not the connection\'s is answered SESSION_INVALID and closes with 4409',
  'P-10': 'an accepted command gets one answer, a refused one is not executed',
  'P-11': 'integer ids are contiguous',
  'P-12': 'a duplicate is never executed',
  'P-13': 'an id beyond the next is refused COMMAND_GAP',
  'P-14': 'a string id only correlates',
  'P-15': 'errors of handlers and cores are answers',
  'P-16': 'a refusal does not move the watermark',
  'P-17': 'commands run concurrently up to maxInFlight',
  'P-18': 'a serial command runs alone',
  'P-19': 'a late command is answered COMMAND_TIMEOUT once',
  'P-20': 'outputs are numbered without a hole',
  'P-21': 'acks are cumulative',
  'P-22': 'an ack of the future closes with 4400',
  'P-23': 'outputs are held until acknowledged',
  'P-24': 'the basic profile holds nothing and ignores acks',
  'P-25': 'a full outbox drops its oldest outputs and keeps the session',
  'P-26': 'a connection that does not drain is closed with 4101 before outputs are dropped',
  'P-27': 'a resume names session, token and lastSeq',
  'P-28': 'a resume token works once, the presented one until the first frame',
  'P-29': 'a resume is authenticated and the user is the session\'s',
  'P-30': 'session_resumed, replay, live, then newer output',
  'P-31': 'lastCommand is the watermark',
  'P-32': 'gap names exactly what was dropped',
  'P-33': 'a refused resume goes on with a new session and a reason',
  'P-34': 'a lastSeq of the future is state_lost',
  'P-35': 'the newest valid attach takes the session over',
  'P-36': 'a detached session is kept for resumeWindowMs',
  'P-37': 'every close of a basic connection terminates',
  'P-38': '1000, no status and end terminate',
  'P-39': 'every other end detaches',
  'P-40': 'an idle session ends with 4300',
  'P-41': 'an operator terminates with 4001 and detaches with 4203',
  'P-42': 'goodbye precedes every close by the server',
  'P-43': 'something comes at least every heartbeatMs, a silent peer is dropped with 4103',
  'P-44': 'a socket that does not drain gets everything later',
  'P-45': 'the 11th malformed frame closes with 4400',
  'P-46': 'too many commands are refused RATE_LIMITED, then closed with 4102',
  'P-47': 'expired credentials close with 4202 and keep the session',
  'P-48': 'a draining node refuses upgrades and closes with 4200',
  'P-49': 'the hundreds digit of a close code says what to do',
  'P-50': 'outputs are as small as the client asks',
  'P-51': 'an output that its client does not take goes into the gap',
  'P-52': 'a ping of the client is answered pong',
  'P-53': 'a client that offers refuse.goodbye is refused with a close code',
  'P-54': 'a new session beyond the quota ends the longest detached one',
  'P-55': 'messages that need not wait for the store are outputs like all others'
}
