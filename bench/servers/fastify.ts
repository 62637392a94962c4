// What the frameworks below Holdfast cost by themselves: Fastify and @fastify/websocket, otherwise
// the same server as ws.ts.

import { randomUUID } from 'node:crypto'
import websocket from '@fastify/websocket'
import Fastify from 'fastify'

const app = Fastify()
await app.register(
  websocket, { options: { handleProtocols: (protocols: Set<string>) => protocols.values().next().value ?? false } }
)

app.get('/ws', { websocket: true }, socket => {
  socket.on('message', data => {
    const { id, payload } = JSON.parse(data.toString())
    if (id !== undefined) socket.send(JSON.stringify({ type: 'result', id, payload }))
  })
  socket.send(JSON.stringify({ type: 'session_created', payload: { sessionId: randomUUID() } }))
})

process.on('message', (message: { broadcast?: string }) => {
  if (message.broadcast === undefined) return
  const text = JSON.stringify({ type: 'message', event: 'review.assigned', payload: JSON.parse(message.broadcast) })
  for (const socket of app.websocketServer.clients) socket.send(text)
})

await app.listen({ host: '127.0.0.1', port: Number(process.env.PORT) })
