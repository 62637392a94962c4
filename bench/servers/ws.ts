// The yardstick: ws and JSON, nothing else. Parses each frame and answers it; a broadcast is
// stringified once. HEARTBEAT_SECONDS: one timer pings all sockets, as the README of ws recommends.

import { randomUUID } from 'node:crypto'
import { WebSocket, WebSocketServer } from 'ws'

const server = new WebSocketServer({
  host: '127.0.0.1',
  port: Number(process.env.PORT),
  handleProtocols: protocols => protocols.values().next().value ?? false
})

const alive = new WeakSet<WebSocket>()

server.on('connection', socket => {
  alive.add(socket)
  socket.on('pong', () => alive.add(socket))
  socket.on('message', data => {
    const { id, payload } = JSON.parse(data.toString())
    if (id !== undefined) socket.send(JSON.stringify({ type: 'result', id, payload }))
  })
  socket.send(JSON.stringify({ type: 'session_created', payload: { sessionId: randomUUID() } }))
})

process.on('message', (message: { broadcast?: string }) => {
  if (message.broadcast === undefined) return
  const text = JSON.stringify({ type: 'message', event: 'review.assigned', payload: JSON.parse(message.broadcast) })
  for (const socket of server.clients) socket.send(text)
})

const heartbeatSeconds = Number(process.env.HEARTBEAT_SECONDS ?? 0)
if (heartbeatSeconds > 0) {
  setInterval(() => {
    for (const socket of server.clients) {
      if (!alive.has(socket)) socket.terminate()
      alive.delete(socket)
      socket.ping()
    }
  }, heartbeatSeconds * 1000)
}
