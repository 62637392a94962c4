// Which command a connection was lost by, and what becomes of it (P-49b, P-49c).

import type { ClientErrorCode } from './api.js'
import { BAD_FRAME_CODE, INTERNAL_CODE, MAX_STRIKES, TOO_LARGE_CODE } from './bounds.js'
import { fail, onTheirWay, type CommandList, type Item } from './command-list.js'

/** What was sent is at fault. */
const FAULT_CODES = [1002, 1007, TOO_LARGE_CODE, BAD_FRAME_CODE]
/**
 * Settles the culprit, now that it is known what the server had accepted.
 *
 * @param lossCode     what the connection was closed with
 * @param wasAnswered  an answer or a refusal came on it
 */
export function blame (list: CommandList, watermark: number, lossCode: number, wasAnswered: boolean): void {
  const suspects = onTheirWay(list, watermark + 1)
  const [first] = suspects
  const isFault = FAULT_CODES.includes(lossCode)
  if (first === undefined) return
  if (!isFault) {
    first.strikes = wasAnswered ? 0 : first.strikes + Number(lossCode < 4000 || lossCode === INTERNAL_CODE)
    if (first.strikes < MAX_STRIKES) return
  }
  const give = (item: Item, code: ClientErrorCode): void =>
    fail(list, item, code, `Connections are closed when it is sent (${lossCode}).`)
  if (lossCode === TOO_LARGE_CODE) {
    give(suspects.reduce((a, b) => a.body.length < b.body.length ? b : a), 'MESSAGE_TOO_LARGE')
  } else if (!isFault || suspects.length === 1) {
    give(first, lossCode === BAD_FRAME_CODE ? 'BAD_FRAME' : 'UNDELIVERABLE')
  } else {
    for (const item of suspects) item.isSuspect = true
  }
}
