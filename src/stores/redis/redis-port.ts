// What the store needs of a Redis or Valkey server: scripts, one channel of its own, and one
// setting. Whoever brings another client writes these few functions (ioredis.ts is the only file
// that knows ioredis).

import type { Script } from './scripts.js'

export type Argument = string | Buffer
export type Reply = Buffer | number | null | readonly Reply[]

export interface RedisPort {
  /**
   * Resolves when commands can be sent, and rejects where that is not to be expected: a wrong
   * address, name or password.
   */
  connect(): Promise<void>
  /**
   * Runs a script, in the order of the calls. Rejects with the server's error, or when the
   * connection is lost. Never waits for one.
   */
  run(script: Script, keys: readonly string[], args: readonly Argument[]): Promise<Reply>
  /** Resolves with the number of receivers. */
  publish(channel: string, message: string): Promise<number>
  /** Listens to a channel, also after the connection was lost and made again. */
  subscribe(channel: string, listener: (message: string) => void): Promise<void>
  unsubscribe(channel: string): Promise<void>
  /** The subscribing connection is silent: make another one. */
  reconnectSubscriber(): void
  /**
   * What the server does when its memory is full (`maxmemory-policy`); undefined where it does not
   * tell.
   */
  evictionPolicy(): Promise<string | undefined>
  /** Ends connections that it has made itself. */
  close(): Promise<void>
}

/** Runs callbacks later; injected so that tests and simulations hold the time. */
export interface Scheduler {
  /** Returns a function that cancels. */
  after(ms: number, callback: () => void): () => void
}
