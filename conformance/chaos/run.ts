// The chaos run: plans it, starts proxy, core and clients, lets operators write to the sessions
// meanwhile, and has every client's history checked. The server runs elsewhere and knows nothing of
// it. Bounded in time: a client that is not done by then counts as not finished.

import { monitorEventLoopDelay } from 'node:perf_hooks'
import { createAdmin, type Admin } from '../admin.js'
import { addVerdicts, checkHistory, type Verdict } from '../checker.js'
import { startCore, type Core } from '../core.js'
import { credentials } from '../kit.js'
import type { ChaosOptions, KitOptions } from '../options.js'
import { createProxy, type Lane } from '../proxy.js'
import { startKiller, type Kill } from './killer.js'
import { createChaosClient, type ChaosClient } from './client.js'
import { planChaos, type ClientPlan, type CoreFault } from './plan.js'
import { markOf } from './talk.js'
import { findUnknowns, type Reason, type Unknown } from './unknown.js'

/** More than an outbox holds by default. */
const FLOOD = { outputs: 36, bytes: 40_000 }
const SHOWN_PROBLEMS = 40

export interface ChaosReport {
  readonly lines: readonly string[]
  readonly verdict: Verdict
  readonly exitCode: 0 | 1
}

interface Player {
  plan: ClientPlan
  client: ChaosClient
  lane: Lane
  produced: { mark: string, seq: number | undefined }[]
  executions: Map<number, number>
  troubles: string[]
}

export async function runChaos (options: KitOptions, chaos: ChaosOptions): Promise<ChaosReport> {
  const startedAt = performance.now()
  const delays = monitorEventLoopDelay({ resolution: 20 })
  delays.enable()
  const core = options.core === undefined
    ? undefined
    : await startCore(options.core.host, options.core.port, options.timeoutMs, { forgetful: chaos.coreFaults })
  const admin = options.admin === undefined
    ? undefined
    : createAdmin(options.admin, options.adminToken, options.timeoutMs)
  const proxy = createProxy(new URL(options.url))
  const bySession = new Map<string, Player>()
  try {
    if (core !== undefined) countExecutions(core, bySession)
    const players = await Promise.all(planChaos(chaos).map((plan) => createPlayer(plan)))
    const telling = options.verbose
      ? setInterval(() => process.stderr.write(`${showProgress(players)}\n`), 5000)
      : undefined
    const limit = setTimeout(() => { for (const { client } of players) client.stop() }, chaos.limitSeconds * 1000)
    const progress = (): number => players.reduce((sum, { client }) => sum + client.answered, 0) / chaos.commands
    const killer = chaos.killCommand === undefined
      ? undefined
      : startKiller(chaos.killCommand, chaos.kills ?? 10, progress)
    await Promise.all(players.map(({ client }) => client.run()))
    const kills = await killer?.stop() ?? []
    clearTimeout(limit)
    clearInterval(telling)
    const tookMs = performance.now() - startedAt
    return report(core, chaos, players, { tookMs, delayMs: delays.max / 1e6, kills, verbose: options.verbose })
  } finally {
    await proxy.close()
    await core?.close()
  }

  async function createPlayer (plan: ClientPlan): Promise<Player> {
    // By breaks rather than by connections: one that ends for another reason leaves its faults to
    // the next.
    const lane: Lane = await proxy.lane(() => plan.faults[lane.broken] ?? [])
    const operator = createOperator(plan, admin)
    const player: Player = {
      plan,
      lane,
      produced: operator.produced,
      executions: new Map(),
      troubles: operator.troubles,
      client: createChaosClient({
        plan,
        lane,
        timeoutMs: options.timeoutMs,
        headers: credentials(options, `chaos-${plan.client}`),
        hasCore: core !== undefined,
        onSession (sessionId) {
          bySession.set(sessionId, player)
          operator.open(sessionId)
        },
        beforeConnect: operator.beforeConnect,
        onAnswered: operator.onAnswered,
        isQuiet: operator.isQuiet
      })
    }
    if (core !== undefined) {
      for (const [n, { messages }] of plan.commands.entries()) {
        for (let k = 0; k < messages; k++) player.produced.push({ mark: markOf(plan.client, n + 1, k), seq: undefined })
      }
    }
    return player
  }
}

function showProgress (players: readonly Player[]): string {
  const done = players.filter(({ client }) => client.finalSeq !== undefined)
  const open = players.filter((player) => !done.includes(player))
    .slice(0, 3)
    .map(({ plan, client }) => `${plan.client} (${client.state()})`)
  return `${done.length} of ${players.length} clients done${open.length === 0 ? '' : `; not yet: ${open.join(', ')}`}`
}

function countExecutions (core: Core, bySession: ReadonlyMap<string, Player>): void {
  core.forget()
  core.onExecution(({ sessionId, id, payload }) => {
    const executions = bySession.get(sessionId)?.executions
    if (payload?.tag === 'chaos' && typeof id === 'number') executions?.set(id, (executions.get(id) ?? 0) + 1)
  })
}

/**
 * Writes to one session from outside: notes after some answers, and once, for some, a flood while
 * no connection is there.
 */
function createOperator (plan: ClientPlan, admin: Admin | undefined) {
  const produced: Player['produced'] = []
  const troubles: string[] = []
  const notes = admin === undefined ? [] : [...plan.notes]
  let sessionId: string | undefined
  let flooded = false
  let writing = 0

  async function write (mark: string, payload: string): Promise<void> {
    writing++
    try {
      const { status, body } = await admin!.message(sessionId!, 'note', payload)
      if (status === 202) produced.push({ mark, seq: body.seq })
      else troubles.push(`client ${plan.client}: a message was answered HTTP ${status} ${JSON.stringify(body)}`)
    } catch (error) {
      troubles.push(`client ${plan.client}: a message failed: ${(error as Error).message}`)
    } finally {
      writing--
    }
  }
  return {
    produced,
    troubles,
    open (id: string) { sessionId = id },
    async beforeConnect (broken: number) {
      if (admin === undefined || sessionId === undefined || flooded || plan.floodBefore === undefined ||
          broken < plan.floodBefore) {
        return
      }
      flooded = true
      for (let n = 0; n < FLOOD.outputs; n++) {
        const mark = `flood-${plan.client}-${n} `.padEnd(60, '.')
        await write(mark, mark + 'x'.repeat(FLOOD.bytes))
      }
    },
    onAnswered (answered: number) {
      while (notes.length > 0 && notes[0]! <= answered) {
        const mark = `note-${plan.client}-${notes.length}`
        notes.shift()
        void write(mark, mark)
      }
    },
    isQuiet: () => writing === 0
  }
}

interface Run { tookMs: number, delayMs: number, kills: readonly Kill[], verbose: boolean }

function report (
  core: Core | undefined, chaos: ChaosOptions, players: readonly Player[], { tookMs, delayMs, kills, verbose }: Run
): ChaosReport {
  const counted = core !== undefined
  const verdict = addVerdicts(players.map(({ plan, client, produced, executions }) => checkHistory({
    client: plan.client,
    commands: plan.commands.length,
    events: client.events,
    finalSeq: client.finalSeq,
    executions: counted ? executions : undefined,
    produced,
    serverDies: kills.length > 0
  })))
  const troubles = players.flatMap((player) => player.troubles)
  const sum = (of: (player: Player) => number) => players.reduce((total, player) => total + of(player), 0)
  const broken = sum(({ lane }) => lane.broken)
  const executions = sum((player) => [...player.executions.values()].reduce((total, runs) => total + runs, 0))
  const stuck = sum(({ client }) => client.stuck)
  const unknowns = players.flatMap(({ plan, client: { events, sessionId }, executions }) => findUnknowns({
    client: plan.client,
    sessionId,
    commands: plan.commands,
    events,
    executions: counted ? executions : undefined
  }, kills))
  const unexplained = unknowns.filter(({ reason }) => reason === 'none' || reason === 'other answer')
  const problems = [...verdict.problems, ...troubles, ...unexplained.map(({ sentence }) => sentence)]
  if (kills.length < (chaos.kills ?? 0)) {
    problems.push(`the server was killed ${kills.length} times, not ${chaos.kills}: give it more commands`)
  }
  if (broken < chaos.cuts) problems.push(`only ${broken} of ${chaos.cuts} connections were broken`)
  if (stuck > 0) problems.push(`${stuck} connections went silent and had to be left`)
  const lines = [
    `chaos seed ${chaos.seed}: ${chaos.clients} clients, ${(tookMs / 1000).toFixed(1)} s, longest delay of the kit ` +
      `itself ${Math.round(delayMs)} ms`,
    `commands ${chaos.commands}, executions ` +
      `${counted ? `${executions} (${core.repeats} asked for again by the server)` : 'not counted (needs --core)'}, ` +
      `duplicates answered ${verdict.repeats + verdict.expired} (${verdict.expired} RESULT_EXPIRED)`,
    `outputs besides answers ${sum(({ produced }) => produced.length)}, cuts ${broken}, resumes ${verdict.resumes}, ` +
      `outputs replayed ${verdict.replayed}, gaps ${verdict.gaps} of ${verdict.gapOutputs} outputs`,
    ...(kills.length > 0 ? [showKills(kills, unknowns)] : []),
    ...(chaos.coreFaults ? [`faults of the core: ${countFaults(players)}`] : []),
    `handshakes refused ${sum(({ client }) => client.refusedHandshakes)}, connections gone silent ${stuck}`,
    `lost ${verdict.lost}, doubled ${verdict.doubled}, reordered ${verdict.reordered}`,
    ...(verbose ? unknowns.filter(({ reason }) => reason === 'kill' || reason === 'hand-over') : [])
      .map(({ reason, sentence }) => `${reason}: ${sentence}`),
    ...problems.slice(0, SHOWN_PROBLEMS).map((sentence) => `FAIL ${sentence}`),
    ...(problems.length > SHOWN_PROBLEMS ? [`and ${problems.length - SHOWN_PROBLEMS} more`] : []),
    problems.length === 0
      ? 'ok nothing lost, doubled or out of order, every gap exact'
      : `FAIL ${problems.length} problems; repeat with --seed ${chaos.seed}`
  ]
  return { lines, verdict, exitCode: problems.length === 0 ? 0 : 1 }
}

function showKills (kills: readonly Kill[], unknowns: readonly Unknown[]): string {
  const count = (wanted: Reason) => unknowns.filter(({ reason }) => reason === wanted).length
  const times = kills.map(({ from, to }) => Math.round(to - from))
  return `server killed ${kills.length} times, for ${Math.min(...times)} to ${Math.max(...times)} ms; ` +
    `OUTCOME_UNKNOWN ${unknowns.length - count('other answer')}: ${count('kill')} by kills, ` +
    `${count('hand-over')} handed over after more than 300 ms, ${count('core')} by the core, ` +
    `${count('none')} without a reason`
}

function countFaults (players: readonly Player[]): string {
  const counts = new Map<CoreFault, number>()
  for (const { plan } of players) for (const { fault } of plan.commands) counts.set(fault, (counts.get(fault) ?? 0) + 1)
  return [...counts].filter(([fault]) => fault !== 'none')
    .map(([fault, count]) => `${fault} ${count}`)
    .sort()
    .join(', ')
}
