// Socket.IO over WebSocket only, acknowledged events. RECOVERY=1: connection state recovery.
// HEARTBEAT_SECONDS: its ping interval.

import { Server } from 'socket.io'

const heartbeatSeconds = Number(process.env.HEARTBEAT_SECONDS ?? 25)
const io = new Server(Number(process.env.PORT), {
  transports: ['websocket'],
  serveClient: false,
  pingInterval: heartbeatSeconds * 1000,
  ...(process.env.RECOVERY === '1' ? { connectionStateRecovery: { maxDisconnectionDuration: 120_000 } } : {})
})

io.on('connection', socket => {
  socket.on('echo', (payload: unknown, answer: (payload: unknown) => void) => answer(payload))
})

const ACK_TIMEOUT_MS = 30_000

process.on('message', (message: { broadcast?: string, asksForAcks?: boolean }) => {
  if (message.broadcast === undefined) return
  const payload = JSON.parse(message.broadcast)
  if (message.asksForAcks !== true) io.emit('review.assigned', payload)
  else io.timeout(ACK_TIMEOUT_MS).emit('review.assigned', payload, () => {})
})
