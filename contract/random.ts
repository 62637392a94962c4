// Random numbers that a printed seed gives again.

export interface Random {
  /** From 0 up to, but not including, 1. */
  (): number
}

export function createRandom (seed: number): Random {
  let state = seed >>> 0
  return () => {
    state = (state + 0x6d2b79f5) >>> 0
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state)
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 4_294_967_296
  }
}

/** An integer from 0 to `most`. */
export function upTo (random: Random, most: number): number {
  return Math.floor(random() * (most + 1))
}

export function oneOf<T> (random: Random, items: readonly T[]): T {
  return items[upTo(random, items.length - 1)] as T
}

/** A string of `length` bytes, each from 0 to 255. */
export function randomBytes (random: Random, length: number): string {
  let bytes = ''
  for (let at = 0; at < length; at++) bytes += String.fromCharCode(upTo(random, 255))
  return bytes
}
