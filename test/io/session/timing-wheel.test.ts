import fc from 'fast-check'
import t from 'tap'
import { createTimingWheel, type TimingWheel, type WheelItem } from '../../../src/io/session/timing-wheel.js'
import { FUZZ_SEED } from '../../helpers/fuzz-seed.js'

interface Item extends WheelItem { name: number, deadline: number, filed: boolean, filedAt: number }

interface World { wheel: TimingWheel<Item>, items: Item[], looks: () => number }

function createWorld (tickMs: number, buckets: number, now: number): World {
  let looks = 0
  const wheel = createTimingWheel<Item>({ deadlineOf: item => { looks++; return item.deadline }, tickMs, buckets, now })
  return {
    wheel,
    items: [],
    looks () {
      const seen = looks
      looks = 0
      return seen
    }
  }
}

function add ({ wheel, items }: World, deadline: number, filedAt = 0): Item {
  const item: Item = {
    name: items.length, deadline, filed: true, filedAt, wheelNext: null, wheelPrevious: null, wheelBucket: -1
  }
  items.push(item)
  wheel.file(item)
  return item
}

/** Sweeps until nothing is left to do; returns the names of what expired. */
function sweepAll ({ wheel }: World, now: number, limit: number, onExpire: (item: Item) => void = () => {}): number[] {
  const expired: number[] = []
  let calls = 0
  do {
    if (++calls > 10_000) throw new Error('the sweep comes to no end')
    let inCall = 0
    const count = wheel.sweep(now, limit, item => {
      expired.push(item.name)
      inCall++
      onExpire(item)
    })
    if (count > limit || count !== inCall) throw new Error('a wrong count')
  } while (wheel.behind)
  return expired
}

t.test('P-40 a deadline is passed one millisecond after it, not before, whatever the tick', async t => {
  for (const deadline of [999, 1000, 1001, 1499, 1999, 2000, 4095, 4096, 5000]) {
    const world = createWorld(1000, 4, 0)
    add(world, deadline)
    for (let now = Math.max(0, deadline - 1200); now <= deadline; now += 100) {
      t.strictSame(sweepAll(world, now, Infinity), [], `${deadline} at ${now}`)
    }
    t.strictSame(sweepAll(world, deadline, Infinity), [])
    t.strictSame(sweepAll(world, deadline + 1, Infinity), [0], `${deadline} passed`)
    t.strictSame(sweepAll(world, deadline + 100_000, Infinity), [], 'once')
  }
})

t.test('P-40 files, touches, removals, stalls and limits expire the same as a plain list', async t => {
  t.comment(`seed ${FUZZ_SEED}`)
  const step = fc.oneof(
    fc.record({ kind: fc.constantFrom('file' as const), ms: fc.integer({ min: -50, max: 3000 }), pick: fc.nat(999) }),
    fc.record({
      kind: fc.constantFrom('touch' as const, 'hasten' as const, 'remove' as const),
      ms: fc.integer({ min: 0, max: 2000 }),
      pick: fc.nat(999)
    }),
    fc.record({
      kind: fc.constantFrom('sweep' as const),
      ms: fc.oneof(fc.integer({ min: 0, max: 400 }), fc.integer({ min: 0, max: 20_000 })),
      pick: fc.integer({ min: 1, max: 9 })
    })
  )
  fc.assert(
    fc.property(
      fc.integer({ min: 1, max: 200 }),
      fc.integer({ min: 2, max: 12 }),
      fc.integer({ min: 0, max: 5000 }),
      fc.array(step, { maxLength: 80 }),
      (tickMs, buckets, start, steps) => {
        let now = start
        const world = createWorld(tickMs, buckets, now)
        for (const { kind, ms, pick } of steps) {
          const item = world.items[pick % Math.max(1, world.items.length)]
          if (kind === 'file') add(world, now + ms, now)
          if (item !== undefined && kind === 'touch') item.deadline = Math.max(item.deadline, now + ms)
          if (item !== undefined && kind === 'hasten') {
            item.deadline = now + ms
            item.filed = true
            item.filedAt = now
            world.wheel.file(item)
          }
          if (item !== undefined && kind === 'remove') {
            item.filed = false
            world.wheel.remove(item)
          }
          if (kind !== 'sweep') continue
          now += ms
          if (pick < 6) {
            // With a limit the present tick is left alone; whatever was filed, and is overdue,
            // since before it is gone. After a stall of more than a round the present tick's bucket
            // holds older ones too.
            for (const name of sweepAll(world, now, pick)) {
              const gone = world.items[name] as Item
              if (!gone.filed || gone.deadline >= now) throw new Error(`at ${now} expired ${name}`)
              gone.filed = false
            }
            const late = world.items.filter(other => other.filed &&
              Math.max(other.deadline, other.filedAt) + tickMs < now && now - other.filedAt < tickMs * (buckets - 1))
            if (late.length > 0) throw new Error(`at ${now} overlooked ${late[0]?.name}`)
            continue
          }
          const due = world.items.filter(other => other.filed && other.deadline < now).map(other => other.name)
          for (const name of due) (world.items[name] as Item).filed = false
          const expired = sweepAll(world, now, Infinity)
          if (expired.sort((a, b) => a - b).join() !== due.join()) {
            throw new Error(`at ${now} expired ${expired.join()} instead of ${due.join()}`)
          }
        }
      }
    ),
    { seed: FUZZ_SEED, numRuns: 400 }
  )
})

t.test('P-40 an expire callback may remove, hasten, postpone and add others: none is lost or comes twice', async t => {
  t.comment(`seed ${FUZZ_SEED}`)
  const deed = fc.record({
    kind: fc.constantFrom('remove' as const, 'file' as const, 'add' as const, 'again' as const),
    pick: fc.nat(999),
    ms: fc.integer({ min: 0, max: 900 })
  })
  fc.assert(fc.property(
    fc.array(fc.integer({ min: 0, max: 900 }), { minLength: 1, maxLength: 25 }), fc.array(deed, { maxLength: 40 }),
    fc.constantFrom(1, 2, 5, Infinity), fc.integer({ min: 100, max: 500 }),
    (deadlines, plan, limit, tickMs) => {
      const deeds = [...plan]
      const world = createWorld(tickMs, 4, 0)
      for (const deadline of deadlines) add(world, deadline)
      for (let now = 90; now <= 60_000 && world.items.some(item => item.filed); now += 90) {
        sweepAll(world, now, limit, item => {
          if (!item.filed) throw new Error(`${item.name} expired though it is in no wheel`)
          if (item.deadline >= now) throw new Error(`${item.name} expired before its time`)
          item.filed = false
          const next = deeds.shift()
          if (next === undefined) return
          const other = next.kind === 'again' ? item : world.items[next.pick % world.items.length] as Item
          if (next.kind === 'add') {
            add(world, now + next.ms, now)
          } else if (next.kind === 'remove') {
            other.filed = false
            world.wheel.remove(other)
          } else {
            other.deadline = now + next.ms
            other.filed = true
            other.filedAt = now
            world.wheel.file(other)
          }
        })
        const late = world.items.filter(item => item.filed &&
          Math.max(item.deadline, item.filedAt) + (limit === Infinity ? 0 : tickMs) < now)
        if (late.length > 0) throw new Error(`at ${now} ${late.map(item => item.name).join()} were overlooked`)
      }
      const left = world.items.filter(item => item.filed)
      if (left.length > 0) throw new Error('somebody never expired')
    }), { seed: FUZZ_SEED, numRuns: 400 })
})

t.test('P-40 an item due later in a tick can be removed and filed anew while its bucket expires', async t => {
  const world = createWorld(1000, 8, 0)
  const later = [add(world, 1900), add(world, 1800), add(world, 1700)]
  add(world, 1100)
  add(world, 1200)
  const expired = sweepAll(world, 1500, Infinity, () => {
    world.wheel.remove(later[0] as Item)
    ;(later[1] as Item).deadline = 5000
    world.wheel.file(later[1] as Item)
  })
  t.strictSame(expired.sort(), [3, 4])
  t.strictSame(sweepAll(world, 1999, Infinity), [2])
  t.strictSame(sweepAll(world, 4999, Infinity), [])
  t.strictSame(sweepAll(world, 5001, Infinity), [1])
  t.equal((later[0] as Item).wheelBucket, -1)
})

t.test('performance: a sweep looks at what falls due, not at what lives', async t => {
  const world = createWorld(1000, 4096, 0)
  for (let n = 0; n < 20_000; n++) add(world, 3_600_000)
  world.looks()
  for (let now = 0; now < 3_600_000; now += 1000) world.wheel.sweep(now, Infinity, () => {})
  t.equal(world.looks(), 0)
})

t.test('performance: an item that was touched is looked at once per round of its timeout', async t => {
  const world = createWorld(1000, 4096, 0)
  for (let n = 0; n < 1000; n++) add(world, 60_000)
  world.looks()
  for (let now = 0; now <= 600_000; now += 1000) {
    for (const item of world.items) item.deadline = now + 60_000
    world.wheel.sweep(now, Infinity, () => {})
  }
  const looks = world.looks()
  t.ok(
    looks <= 1000 * 10 * 2 + 2000,
    `${looks} looks for ten rounds of a thousand, at most one question and one filing each`
  )
})

t.test('performance: a sweep with a limit expires no more, and looks at eight times as many at most', async t => {
  const world = createWorld(1000, 64, 0)
  for (let n = 0; n < 5000; n++) add(world, 1100)
  // Touched since they were filed: nothing to expire, but each has to be looked at once.
  for (const item of world.items) if (item.name % 10 !== 0) item.deadline = 50_000
  world.looks()
  let expired = 0
  let most = 0
  let all = 0
  do {
    expired += world.wheel.sweep(2500, 10, () => {})
    const looks = world.looks()
    most = Math.max(most, looks)
    all += looks
  } while (world.wheel.behind)
  t.equal(expired, 500)
  t.ok(most <= 2 * 8 * 10, `${most} questions in one call`)
  t.ok(all <= 2 * 5000, `${all} questions in all: nobody is looked at again and again`)
})

t.test('performance: with a limit the tick that is not over yet is left alone, without one it is exact', async t => {
  const world = createWorld(1000, 64, 0)
  for (let n = 0; n < 100; n++) add(world, n < 50 ? 1100 : 1900)
  world.looks()
  for (let n = 0; n < 100; n++) t.equal(world.wheel.sweep(1500, 10, () => {}), 0)
  t.equal(world.looks(), 0)
  t.equal(world.wheel.behind, false)
  t.equal(world.wheel.sweep(1500, Infinity, () => {}), 50)
  t.equal(sweepAll(world, 2000, 10).length, 50)
})

t.test('P-40 after a stall of many rounds everything overdue expires in one sweep', async t => {
  const world = createWorld(10, 8, 0)
  for (let n = 0; n < 50; n++) add(world, n * 37)
  add(world, 1_000_000)
  t.equal(sweepAll(world, 900_000, Infinity).length, 50)
  t.strictSame(sweepAll(world, 1_000_001, Infinity), [50])
})

t.test('P-40 removing what is in no wheel, or filing it twice, harms nothing', async t => {
  const world = createWorld(10, 8, 0)
  const item = add(world, 50)
  const middle = add(world, 50)
  add(world, 50)
  world.wheel.file(item)
  world.wheel.remove(middle)
  world.wheel.remove(middle)
  t.strictSame(sweepAll(world, 51, Infinity).sort(), [0, 2])
})
