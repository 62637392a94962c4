// A cursor belongs to the list that gave it: same filters, same order. With another one a walk
// would skip or repeat sessions without a word. The store's cursor is a position; what is handed
// out names the list as well.

import { HoldfastError } from '../errors.js'

/**
 * Names a list by its filters and order; `limit` may change from page to page. A value of four
 * bytes: it tells mistakes apart and keeps no secret.
 */
export function fingerprintOf (filters: object): string {
  const text = JSON.stringify(Object.entries(filters)
    .filter(([, value]) => value !== undefined && value !== false)
    .sort(([a], [b]) => a < b ? -1 : 1))
  // FNV-1a.
  let hash = 0x811c9dc5
  for (let i = 0; i < text.length; i++) hash = Math.imul(hash ^ text.charCodeAt(i), 0x01000193)
  return (hash >>> 0).toString(36)
}

export function bindCursor (position: string, list: string): string {
  return `${position}.${list}`
}

/** @throws INVALID_CURSOR */
export function unbindCursor (cursor: string, list: string): string {
  const at = cursor.lastIndexOf('.')
  if (at === -1 || cursor.slice(at + 1) !== list) throw new HoldfastError('INVALID_CURSOR')
  return cursor.slice(0, at)
}
