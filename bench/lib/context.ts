// What every load is given, and what a load is.

import type { Server, ServerKind } from './servers.js'
import type { Row, Turn } from './turns.js'

export interface Context {
  /** Servers to compare, in order; `ws`, the yardstick, is never among them. */
  readonly candidates: readonly ServerKind[]
  readonly yardstick: ServerKind
  readonly turns: number
  /** Short of everything, to see that it runs. */
  readonly isQuick: boolean
  /** Folder for CPU profiles of the candidates; undefined takes none. */
  readonly profileDir: string | undefined
  say(text: string): void
}

/** A server with its crowd, warm. */
export interface Ready {
  readonly server: Server
  readonly turn: Turn
  finish(): Promise<void>
}

export interface Load {
  readonly name: string
  readonly question: string
  /** Names of the servers it makes sense for. */
  readonly servers: readonly string[]
  run(context: Context): Promise<Row[]>
  /** For compare.ts, in loads that come in turns. */
  prepare?(kind: ServerKind, isQuick: boolean): Promise<Ready>
}

/** Around 110 bytes as a pushed message, 150 to 170 as a command. */
export const SMALL_PAYLOAD = JSON.stringify({
  item: 'review-48213', verdict: 'approve', note: 'reads well, ship it', score: 87
})
export const KIB_PAYLOAD = JSON.stringify({ text: 'The reviewer wrote a longer remark. '.repeat(28).slice(0, 1011) })
