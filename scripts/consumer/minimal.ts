// A project that imports nothing but the package: what its plugins add to Fastify has to be known
// from that alone.

import { buildApp, configWith } from 'holdfast'

const app = await buildApp(configWith())
export const inFlight: number = (await buildApp(configWith())).dispatcher.inFlight
export const total: number = app.sessionManager.countSessions().total
export const isDraining: boolean = app.gateway.draining
