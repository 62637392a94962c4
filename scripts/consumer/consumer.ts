// A stranger's project, type-checked against the packed package by scripts/check-package.js.
// Nothing here runs.

import Fastify from 'fastify'
import { Type } from 'typebox'
import {
  CLOSE, ERRORS, buildApp, commandError, configWith, createHttpCore, defineCommand, type Authenticate, type PlatformCore
} from 'holdfast'
import { connect } from 'holdfast/client'
import dispatcher from 'holdfast/plugins/dispatcher'
import sessionManager from 'holdfast/plugins/session-manager'
import websocketGateway, { websocketOptions } from 'holdfast/plugins/websocket-gateway'

const commands = {
  approve: defineCommand({ payload: Type.Object({ draft: Type.Integer() }) }, ({ payload, session }) => {
    if (payload.draft < 1) throw commandError('NO_SUCH_DRAFT', 'There is no such draft.')
    session.send('approved', { draft: payload.draft })
    return { approved: payload.draft }
  })
}

const session = connect<typeof commands>('ws://127.0.0.1:3000/ws')
const { approved }: { approved: number } = await session.send('approve', { draft: 7 })
// @ts-expect-error a text is not an integer
await session.send('approve', { draft: 'seven' })
// @ts-expect-error a member is missing
await session.send('approve', {})
// @ts-expect-error no such command
await session.send('reject', { draft: 7 })

const authenticate: Authenticate = async () => ({ userId: 'ada' })
const server = await buildApp(configWith(), { authenticate })
server.dispatcher.commands(commands)

const host = Fastify()
await host.register(sessionManager)
await host.register(dispatcher)
await host.register(websocketGateway, { authenticate })
host.dispatcher.command('count', { result: Type.Integer() }, () => host.sessionManager.countSessions().total)
// @ts-expect-error a text is not an integer
host.dispatcher.command('wrong', { result: Type.Integer() }, () => 'one')
const isDraining: boolean = host.gateway.draining

export const used: [number, boolean, PlatformCore | undefined, ...unknown[]] = [
  approved, isDraining, undefined, createHttpCore, websocketOptions, CLOSE, ERRORS
]
