// The types that follow from the host example of the README, which scripts/check-package.js puts
// beside this file.

import { connect } from 'holdfast/client'
import type { commands } from './desk.js'

const session = connect<typeof commands>('ws://127.0.0.1:3001/ws')
const { approved }: { approved: number } = await session.send('review.approve', { draft: 7 })
// @ts-expect-error a text is not an integer
await session.send('review.open', { draft: 'seven' })
// @ts-expect-error no such command
await session.send('review.reject', { draft: 7 })

export const used = approved
